"""Two operators on one fleet: the second is told who the first is, a dead one is not waited for."""

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys

import msgspec
import pytest

from hookbench.clock import SystemClock
from hookbench.errors import PlaceHeldError
from hookbench.live.boards import Boards
from hookbench.live.hold import Hold, this_operator
from hookbench.live.places import LEASE_S, decode_step, encode_step, parse_place
from hookbench.migration.phases import Phase
from hookbench.migration.reconcile import read_progress
from hookbench.queues.jetstream import StreamSettings
from tests.conftest import eventually
from tests.integration.conftest import COMMAND

STREAM = StreamSettings(storage="memory")
CLOCK = SystemClock()


def at(kind, number, folder):
    return parse_place(
        f"file:{folder / f'{number}.json'}" if kind == "file" else f"{kind}:{number}"
    )


@pytest.fixture
async def operator_of(redis_broker, nats_broker, names, tmp_path):
    """Makes operators with connections of their own; a file is one process's lock."""
    opened = []

    def make(kind, *, lease_s=LEASE_S, by_force=False, clock=CLOCK, **changes):
        boards = Boards(
            redis_broker.url, nats_broker.url, names, stream=STREAM, clock=CLOCK, lease_s=lease_s
        )
        operator = msgspec.structs.replace(this_operator("dual_write to dual_read"), **changes)
        places = [at(kind, number, tmp_path) for number in (1, 2)]
        hold = Hold(boards, places, operator, clock=clock, by_force=by_force)
        opened.append((hold, boards))
        return hold

    yield make
    for hold, boards in opened:
        await hold.let_go()
        await boards.close()


def ended_pid():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize("kind", ["redis", "nats", "file"])
async def test_the_second_is_told_who_the_first_is(operator_of, kind):
    first, second = operator_of(kind, user="ann"), operator_of(kind, user="ben")
    await first.take()
    with pytest.raises(PlaceHeldError, match=r"held by another operator: ann on .*, process \d+"):
        await second.take()
    for number, place in enumerate(first._places):
        await first.write(place, encode_step(number, Phase.DUAL_WRITE))
        board = await second._boards.of(place)
        assert await board.read(place.key) == encode_step(number, Phase.DUAL_WRITE)
    await second.let_go()  # of what it does not hold
    with pytest.raises(PlaceHeldError, match="ann"):
        await second.take()
    await first.let_go()
    await second.take()
    with pytest.raises(PlaceHeldError, match="ben"):
        await first.take()
    await second.let_go()


@pytest.mark.parametrize("kind", ["redis", "nats", "file"])
async def test_of_two_that_begin_at_once_one_begins(operator_of, kind):
    operators = [operator_of(kind, user=f"user-{number}") for number in range(4)]
    found = await asyncio.gather(*(item.take() for item in operators), return_exceptions=True)
    assert found.count(None) == 1
    assert [type(item) for item in found if item is not None] == [PlaceHeldError] * 3


@pytest.mark.parametrize("kind", ["redis", "nats"])
async def test_one_that_is_known_to_have_ended_is_not_waited_for(operator_of, kind):
    await operator_of(kind, pid=ended_pid()).take()
    second = operator_of(kind)
    await second.take()
    third = operator_of(kind, started_s=1.0, user="third")
    with pytest.raises(PlaceHeldError):
        await third.take()
    await second.let_go()
    await third.take()  # its number is that of a process that was started later
    await second.take()


async def take_in_the_end(hold):
    """Take the places once the lease of another operator has ended."""

    async def taken():
        with contextlib.suppress(PlaceHeldError):
            await hold.take()
            return True
        return False

    await eventually(taken, what="the end of the lease")


@pytest.mark.parametrize("kind", ["redis", "nats"])
async def test_one_of_another_machine_is_waited_for_until_its_lease_ends(operator_of, kind):
    await operator_of(kind, lease_s=1.0, machine="elsewhere", pid=ended_pid(), user="ann").take()
    second = operator_of(kind, lease_s=1.0)
    with pytest.raises(PlaceHeldError, match="ann"):
        await second.take()
    await take_in_the_end(second)


@pytest.mark.parametrize("kind", ["redis", "nats", "file"])
@pytest.mark.parametrize("told", [False, True], ids=["looked", "told"])
async def test_who_has_lost_a_place_stops_and_tells_nobody_a_phase(operator_of, kind, told):
    """The one in between has let go again: nothing holds the place, and still it is not his."""
    first = operator_of(kind, lease_s=0.3, user="ann")
    place = first._places[0]
    board = await first._boards.of(place)
    await board.write(place.key, encode_step(0, Phase.REDIS_ONLY))
    await first.take()
    assert await first.during(asyncio.sleep(0.5, "done")) == "done"
    await first.write(place, encode_step(1, Phase.DUAL_WRITE))
    second = operator_of(kind, user="ben", by_force=True)
    await second.take()
    if told:
        await second.write(place, encode_step(2, Phase.REDIS_ONLY))
    await second.let_go()
    lost = r"was taken by another operator while this one was stopped.*" + (
        "somebody" if kind == "file" else "ben"  # a lock is gone with its file
    )
    with pytest.raises(PlaceHeldError, match=lost):
        await first.write(place, encode_step(3, Phase.DUAL_READ))
    assert await board.read(place.key) == encode_step(
        2 if told else 1, Phase.REDIS_ONLY if told else Phase.DUAL_WRITE
    )
    assert await board.write(place.key, b"{}", held_by=first._data) is not None
    stopped = []

    async def work():
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            stopped.append(True)
            raise

    with pytest.raises(PlaceHeldError, match=lost):
        await asyncio.wait_for(first.during(work()), 10)
    assert stopped == [True]
    await first.let_go()
    await second.take()


@pytest.mark.parametrize("kind", ["redis", "nats"])
async def test_a_lease_that_ended_is_renewed_where_nobody_came(operator_of, kind):
    first, second = operator_of(kind, lease_s=0.3), operator_of(kind, user="ben")
    await first.take()
    board = await first._boards.of(first._places[0])

    async def nobody_has_it():
        if kind == "redis":
            return await board._client.get(board._held("1")[0]) is None
        return await board._get(board._operators, "1") is None

    await eventually(nobody_has_it, what="the end of the lease")
    await first.assure()
    with pytest.raises(PlaceHeldError):
        await second.take()


class Moved(SystemClock):
    """As of a process that was stopped for so long."""

    ahead_ns = 0

    def monotonic_ns(self):
        return super().monotonic_ns() + self.ahead_ns


async def fleet_at(boards, kind, names=("producers", "workers")):
    """Two places with a follower each, who says once that it is in ``redis_only``."""
    board = await boards.of(parse_place(f"{kind}:{names[0]}"))
    for key in names:
        await board.write(key, encode_step(0, Phase.REDIS_ONLY))
        await say(board, kind, key, Phase.REDIS_ONLY)
    return board


async def say(board, kind, key, phase):
    said = {
        "event": "phase",
        "role": "worker" if key == "workers" else "producer",
        "phase": phase.label,
        "version": "0",
        "follows": f"{kind}:{key}",
    }
    await board.announce(key, f"a-{key}", json.dumps(said).encode())


def words_of(redis_broker, nats_broker, names, kind):
    return [
        "migrate", "redis_only", "dual_write", f"--producers={kind}:producers",
        f"--workers={kind}:workers", f"--redis-url={redis_broker.url}",
        f"--nats-url={nats_broker.url}", f"--prefix={names.prefix}", f"--stream={names.stream}",
        f"--subject-root={names.subject_root}", "--storage=memory", "--execute",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "lease", "more"),
    [
        ("redis", "renewed", ()),
        ("nats", "renewed", ()),
        ("redis", "once", ()),  # the next thing to change is its progress
        ("redis", "once", ("second",)),  # a phase
    ],
)
async def test_one_that_was_stopped_while_another_one_came_changes_nothing(
    redis_broker, nats_broker, names, tmp_path, forks, operator_of, kind, lease, more
):
    """It waits for producers when it is stopped, and they are there when it is woken."""
    boards = operator_of(kind)._boards
    board = await fleet_at(boards, kind, ("producers", "workers", *more))
    progress = tmp_path / "progress.json"
    words = [
        *words_of(redis_broker, nats_broker, names, kind),
        f"--progress={progress}",
        *(f"--producers={kind}:{key}" for key in more),
    ]
    moving = asyncio.create_task(forks.run("tests.integration.short_lease", ["1.0", lease, *words]))
    pid = 0
    try:

        async def told():
            return decode_step(place, await board.read(place.key))[1] is Phase.DUAL_WRITE

        place = parse_place(f"{kind}:producers")
        await eventually(told, timeout_s=30)
        pid = json.loads(await board.hold(place.key, b"somebody"))["pid"]
        os.kill(pid, signal.SIGSTOP)
        second = Hold(boards, [place], this_operator("phase set redis_only"), clock=CLOCK)
        await take_in_the_end(second)
        await second.write(place, encode_step(2, Phase.REDIS_ONLY))
        await second.let_go()
        for key in ("workers", *more):
            await say(board, kind, key, Phase.REDIS_ONLY)
        await say(board, kind, "producers", Phase.DUAL_WRITE)
    finally:
        if pid:
            os.kill(pid, signal.SIGCONT)
        code, output = await moving
    assert code == 1
    assert f"{place.text} was taken by another operator while this one was stopped" in output
    assert f"process {os.getpid()} (phase set redis_only)" in output
    assert await board.read("producers") == encode_step(2, Phase.REDIS_ONLY)
    for key in ("workers", *more):
        assert await board.read(key) == encode_step(0, Phase.REDIS_ONLY)
    assert "reroute_producers" not in read_progress(progress).done


@pytest.mark.parametrize("kind", ["redis", "nats"])
async def test_no_task_is_moved_once_a_lease_may_have_ended(operator_of, kind):
    clock = Moved()
    first, second = operator_of(kind, clock=clock), operator_of(kind, user="ben", by_force=True)
    await first.take()
    await second.take()
    await first.assure()  # nobody could take it by itself: the broker is not asked
    clock.ahead_ns = int(LEASE_S * 1e9)
    with pytest.raises(PlaceHeldError, match="ben"):
        await first.assure()


async def test_a_move_on_a_fleet_that_is_moved_says_whose_it_is(
    redis_broker, nats_broker, names, tmp_path, operator_of
):
    """The first waits for somebody who does not follow; the second comes from another folder."""
    board = await fleet_at(operator_of("nats")._boards, "nats")
    words = words_of(redis_broker, nats_broker, names, "nats")

    def start(name, words):
        folder = tmp_path / name
        folder.mkdir()
        return subprocess.Popen(
            [*COMMAND, *words], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True,
        )  # fmt: skip

    first = None
    try:
        first = start("first", words)
        await eventually(lambda: board._get(board._operators, "workers"), timeout_s=30)
        second = await asyncio.to_thread(lambda: start("second", words).communicate(timeout=60)[0])
        assert f"process {first.pid} (redis_only to dual_write)" in second, second
        assert re.search(r"held back at hold_places: nats:producers is held by", second), second
        assert "--back" not in second
        assert first.poll() is None
        assert not list((tmp_path / "second").iterdir())
    finally:
        if first is not None:
            first.kill()
            first.communicate()


@pytest.mark.parametrize("kind", ["redis", "nats", "file"])
async def test_a_phase_is_set_by_one_operator_too(
    redis_broker, nats_broker, names, forks, operator_of, kind
):
    move = operator_of(kind, user="ann", machine="elsewhere")
    place = move._places[0]
    board = await move._boards.of(place)
    brokers = (f"--redis-url={redis_broker.url}", f"--nats-url={nats_broker.url}")
    named = (f"--prefix={names.prefix}", f"--stream={names.stream}", "--storage=memory")

    async def set_phase(phase, *more):
        words = ("phase", "set", place.text, phase, *more, *brokers, *named)
        return await forks.run("hookbench", words)

    def held():
        return decode_step(place, data)

    assert await set_phase("redis_only") == (0, f"{place.text}: redis_only\n")
    await move.take()
    for more in ((), ("--force",)):
        code, said = await set_phase("dual_write", *more)
        data = await board.read(place.key)
        assert held() == (0, Phase.REDIS_ONLY)
        assert code == (1 if more else 2), said  # another phase is refused first
    assert f"{place.text} is held by another operator: ann on" in said
    assert "in an emergency give --break-hold" in said
    assert said.count("\n") == 1
    await move.write(place, encode_step(1, Phase.REDIS_ONLY))
    code, said = await set_phase("dual_write", "--force", "--break-hold")
    assert (code, said) == (0, f"{place.text}: dual_write\n")
    data = await board.read(place.key)
    assert held() == (2, Phase.DUAL_WRITE)
    with pytest.raises(PlaceHeldError, match="was taken by another operator"):
        await move.write(place, encode_step(3, Phase.DUAL_READ))
    assert await board.read(place.key) == data
    await move.let_go()
    assert await set_phase("redis_only", "--force") == (0, f"{place.text}: redis_only\n")
