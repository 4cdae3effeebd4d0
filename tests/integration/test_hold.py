"""Two operators on one fleet: the second is told who the first is, a dead one is not waited for."""

import asyncio
import contextlib
import re
import subprocess
import sys

import msgspec
import pytest

from hookbench.clock import SystemClock
from hookbench.errors import PlaceHeldError
from hookbench.live import hold as hold_module
from hookbench.live import places as places_module
from hookbench.live.boards import Boards
from hookbench.live.hold import Hold, this_operator
from hookbench.live.places import encode_step, parse_place
from hookbench.migration.phases import Phase
from hookbench.queues.jetstream import StreamSettings
from tests.conftest import eventually
from tests.integration.conftest import COMMAND

STREAM = StreamSettings(storage="memory")


def at(kind, number, folder):
    return parse_place(
        f"file:{folder / f'{number}.json'}" if kind == "file" else f"{kind}:{number}"
    )


@pytest.fixture
async def operator_of(redis_broker, nats_broker, names, tmp_path):
    """Makes operators with connections of their own; a file is one process's lock."""
    opened = []

    def make(kind, **changes):
        clock = SystemClock()
        boards = Boards(redis_broker.url, nats_broker.url, names, stream=STREAM, clock=clock)
        opened.append(boards)
        operator = msgspec.structs.replace(this_operator("dual_write to dual_read"), **changes)
        places = [at(kind, number, tmp_path) for number in (1, 2)]
        return Hold(boards, places, operator, clock=clock)

    yield make
    for boards in opened:
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
    for place in first._places:
        await first.assure(place)
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


@pytest.mark.parametrize("kind", ["redis", "nats"])
async def test_one_of_another_machine_is_waited_for_until_its_lease_ends(
    operator_of, kind, monkeypatch
):
    monkeypatch.setattr(places_module, "LEASE_S", 1.0)
    await operator_of(kind, machine="elsewhere", pid=ended_pid(), user="ann").take()
    second = operator_of(kind)
    with pytest.raises(PlaceHeldError, match="ann"):
        await second.take()

    async def taken():
        with contextlib.suppress(PlaceHeldError):
            await second.take()
            return True
        return False

    await eventually(taken, what="the end of the lease")


@pytest.mark.parametrize("kind", ["redis", "nats"])
async def test_who_has_lost_a_place_stops_and_tells_nobody_a_phase(operator_of, kind, monkeypatch):
    monkeypatch.setattr(hold_module, "LEASE_S", 0.3)
    first, second = operator_of(kind, user="ann"), operator_of(kind, user="ben")
    await first.take()
    assert await first.during(asyncio.sleep(0.5, "done")) == "done"
    board = await second._boards.of(second._places[0])
    assert await board.hold("1", second._data, instead_of=first._data) is None
    with pytest.raises(PlaceHeldError, match="ben"):
        await first.assure(first._places[0])
    stopped = []

    async def work():
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            stopped.append(True)
            raise

    with pytest.raises(PlaceHeldError, match="ben"):
        await asyncio.wait_for(first.during(work()), 10)
    assert stopped == [True]


async def test_a_move_on_a_fleet_that_is_moved_says_whose_it_is(
    redis_broker, nats_broker, names, tmp_path
):
    """The first waits for somebody who does not follow; the second comes from another folder."""
    boards = Boards(redis_broker.url, nats_broker.url, names, stream=STREAM, clock=SystemClock())
    board = await boards.of(parse_place("nats:producers"))
    for key in ("producers", "workers"):
        await board.write(key, encode_step(0, Phase.REDIS_ONLY))
    words = [
        "migrate", "redis_only", "dual_write", "--producers=nats:producers",
        "--workers=nats:workers", f"--redis-url={redis_broker.url}",
        f"--nats-url={nats_broker.url}", f"--prefix={names.prefix}", f"--stream={names.stream}",
        f"--subject-root={names.subject_root}", "--storage=memory", "--execute",
    ]  # fmt: skip

    def start(name):
        folder = tmp_path / name
        folder.mkdir()
        return subprocess.Popen(
            [*COMMAND, *words], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True,
        )  # fmt: skip

    said = b'{"role": "producer", "phase": "redis_only", "version": "0"}'
    first = None
    try:
        await board.announce("producers", "deaf", said)
        first = start("first")
        await eventually(lambda: board._get(board._operators, "workers"), timeout_s=30)
        second = await asyncio.to_thread(lambda: start("second").communicate(timeout=60)[0])
        assert f"process {first.pid} (redis_only to dual_write)" in second, second
        assert re.search(r"held back at hold_places: nats:producers is held by", second), second
        assert "--back" not in second
        assert first.poll() is None
        assert not list((tmp_path / "second").iterdir())
    finally:
        if first is not None:
            first.kill()
            first.communicate()
        await boards.close()
