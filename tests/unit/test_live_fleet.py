"""A fleet that follows places is told its phase one place after the other."""

import json

import msgspec
import pytest

from hookbench.errors import HeldBackError, SettingError
from hookbench.live.file_board import FileBoard
from hookbench.live.fleet import LiveFleet, check_places
from hookbench.live.places import decode_step, encode_step, parse_place
from hookbench.migration.phases import Phase, PhaseFile
from tests.virtual import VirtualClock

NAMES = ("producer", "worker-0", "worker-1")


class Keys:
    """A board in memory, whose followers obey at once, or are deaf, or gone."""

    def __init__(self):
        self.held = {}
        self.said = {}
        self.deaf = set()
        self.told = []

    async def of(self, place):
        return FileBoard() if place.kind == "file" else self

    def follow(self, key, phase, **more):
        role = key.partition("-")[0]
        event = {"event": "phase", "role": role, "phase": phase.label, "follows": f"redis:{key}"}
        self.said.setdefault(key, {})[f"{key}-a"] = msgspec.json.encode({**event, **more})

    async def read(self, key):
        return self.held.get(key)

    async def write(self, key, data):
        self.held[key] = data
        self.told.append(key)
        if key not in self.deaf:
            self.follow(key, decode_step(parse_place(f"redis:{key}"), data)[1])

    async def announced(self, key):
        return self.said.get(key, {})


@pytest.fixture
def keys():
    board = Keys()
    for name in NAMES:
        board.held[name] = encode_step(4, Phase.NATS_PRIMARY)
        board.follow(name, Phase.NATS_PRIMARY)
    return board


def fleet_of(keys, clock, *, kind="redis", root="", printed=(), **more):
    found = [parse_place(f"{kind}:{root}{name}") for name in NAMES]
    places = {"producer": found[:1], "worker": found[1:]}
    return LiveFleet(places, keys, printed=printed, clock=clock, patience_s=3.0, **more)


def phases(keys):
    return [decode_step(parse_place("redis:x"), keys.held[name]) for name in NAMES]


async def test_both_roles_come_into_the_same_step(keys):
    async def scenario(clock):
        fleet = fleet_of(keys, clock)
        await fleet.enter("producer", Phase.REDIS_ONLY)
        assert phases(keys) == [(5, Phase.REDIS_ONLY), *[(4, Phase.NATS_PRIMARY)] * 2]
        await fleet.enter("worker", Phase.REDIS_ONLY)
        assert phases(keys) == [(5, Phase.REDIS_ONLY)] * 3
        await fleet.enter("worker", Phase.REDIS_ONLY)
        assert keys.told == ["producer", "worker-0", "worker-1"]

    await scenario(VirtualClock())


async def test_the_second_is_told_when_the_first_is_there_and_nothing_is_wrong(keys):
    asked = []

    async def between(phase, said):
        asked.append((phase, [item.phase for item in said if item.role == "worker"]))
        return "" if len(asked) > 2 else "redeliveries no-go"

    async def scenario(clock):
        await fleet_of(keys, clock, between=between).enter("worker", Phase.DUAL_READ)

    await scenario(VirtualClock())
    half = [Phase.DUAL_READ, Phase.NATS_PRIMARY]
    assert [found for _phase, found in asked] == [half, half, half, [Phase.DUAL_READ] * 2]


@pytest.mark.parametrize("what", ["deaf", "gone", "wrong"])
async def test_while_the_first_is_not_there_the_second_is_not_told(keys, what):
    async def between(_phase, _said):
        return "brokers answer unknown" if what == "wrong" else ""

    async def scenario(clock):
        if what == "deaf":
            keys.deaf.add("worker-0")
        if what == "gone":
            keys.said["worker-0"] = {}
            keys.deaf.add("worker-0")
        await fleet_of(keys, clock, between=between).enter("worker", Phase.DUAL_READ)

    told = {"deaf": "not in dual_read", "gone": "nobody follows", "wrong": "brokers answer"}
    with pytest.raises(HeldBackError, match=told[what]):
        await scenario(VirtualClock())
    assert keys.told == ["worker-0"]
    assert phases(keys)[2] == (4, Phase.NATS_PRIMARY)


async def test_whom_a_killed_procedure_left_out_comes_after(keys):
    keys.held["worker-0"] = encode_step(5, Phase.DUAL_READ)
    keys.follow("worker-0", Phase.DUAL_READ)

    async def scenario(clock):
        await fleet_of(keys, clock).enter("worker", Phase.DUAL_READ)

    await scenario(VirtualClock())
    assert keys.told == ["worker-1"]
    assert phases(keys)[1:] == [(5, Phase.DUAL_READ)] * 2


async def test_who_has_not_followed_is_named(keys):
    keys.follow("worker-0", Phase.NATS_ONLY)

    async def scenario(clock):
        fleet = fleet_of(keys, clock)
        assert await fleet.not_in("worker", Phase.NATS_PRIMARY) == ["worker-0-a"]
        assert await fleet.not_in("producer", Phase.NATS_PRIMARY) == []
        keys.follow("worker-0", Phase.NATS_ONLY, event="stopped")
        assert await fleet.not_in("worker", Phase.NATS_PRIMARY) == []

    await scenario(VirtualClock())


async def test_files_are_written_and_what_their_followers_print_is_read(keys, tmp_path, clock):
    for name in NAMES:
        PhaseFile(tmp_path / name).write(4, Phase.NATS_ONLY)
    said = {"event": "phase", "role": "worker", "phase": "nats_only"}
    (tmp_path / "worker-0.jsonl").write_text(json.dumps(said) + "\n")
    fleet = fleet_of(keys, clock, kind="file", root=f"{tmp_path}/", printed=[tmp_path])
    await fleet.enter("worker", Phase.NATS_PRIMARY)
    assert [PhaseFile(tmp_path / name).read() for name in NAMES] == [
        (4, Phase.NATS_ONLY), *[(5, Phase.NATS_PRIMARY)] * 2
    ]  # fmt: skip
    assert await fleet.not_in("worker", Phase.NATS_PRIMARY) == ["worker-0"]
    (tmp_path / "worker-1").unlink()
    with pytest.raises(SettingError, match="worker-1 holds no phase"):
        await fleet.enter("producer", Phase.REDIS_ONLY)
    assert PhaseFile(tmp_path / "producer").read() == (4, Phase.NATS_ONLY)


@pytest.mark.parametrize(
    ("producers", "workers", "target", "message"),
    [
        ([], ["redis:a"], Phase.DUAL_READ, "no place of a producer"),
        (["redis:a"], [], Phase.DUAL_READ, "no place of a worker"),
        (["file:a", "file:b"], ["file:c/../b"], Phase.DUAL_READ, "of producers and of workers"),
        (["redis:a"], ["file:b"], Phase.NATS_ONLY, "on the broker that nats_only leaves"),
        (["file:a"], ["nats:b"], Phase.REDIS_ONLY, "on the broker that redis_only leaves"),
    ],
)
def test_places_that_cannot_carry_a_move_are_refused(producers, workers, target, message):
    places = {
        "producer": [parse_place(text) for text in producers],
        "worker": [parse_place(text) for text in workers],
    }
    with pytest.raises(SettingError, match=message):
        check_places(places, target)


@pytest.mark.parametrize("text", ["redis", "redis:", "redis:a:b", "kafka:a", "nats:a.b", "file:"])
def test_what_is_no_place(text):
    with pytest.raises(SettingError, match="place of a phase"):
        parse_place(text)


@pytest.mark.parametrize("data", [None, b"", b"{}", b'{"index": 1, "phase": "late"}'])
def test_what_is_no_phase(data):
    with pytest.raises(SettingError):
        decode_step(parse_place("redis:a"), data)
