"""What a fleet makes of the ends and the words of its processes."""

import asyncio
import contextlib
import signal
from types import SimpleNamespace

import pytest

from hookbench.growing_lines import GrowingLines
from hookbench.migration.phases import Phase, PhaseFile
from hookbench.rehearsal.fleet import Fleet, Member
from hookbench.rehearsal.settings import RehearsalSettings
from hookbench.rehearsal.timeline import Timeline
from hookbench.results.steps import plan_steps
from tests.virtual import FixedClock, VirtualClock


@pytest.fixture
def fleet(tmp_path):
    return Fleet(clock=FixedClock(), ledger=tmp_path, logs=tmp_path, control=tmp_path, spare=2)


@pytest.fixture
def join(fleet, tmp_path, monkeypatch):
    """Add a process that ended with a code, after it wrote a log and said something."""
    fleet.commands = []

    def spawn(_role, _number, arguments, _phase_file):
        fleet.commands.append(arguments)
        return SimpleNamespace(pid=78, exit_code=None)

    monkeypatch.setattr(fleet, "_spawn", spawn)

    def add(role, code, *, log="", said=b""):
        (tmp_path / f"{role}-0.log").write_text(log)
        output = tmp_path / f"{role}-0.jsonl"
        output.write_bytes(said)
        member = Member(
            role=role,
            number=0,
            arguments=[],
            phase_file=tmp_path / "phase.json",
            child=SimpleNamespace(pid=77, exit_code=code),
            output=GrowingLines(output),
        )
        fleet.members.append(member)
        fleet.poll()
        return member

    return add


FULL = "hookbench: ledger segment x: no room left; free some room or choose another folder"


def incidents(fleet):
    return [incident.what for incident in fleet.incidents]


def test_the_last_words_of_a_process_that_failed_are_in_its_incident(fleet, join):
    worker = join("worker", 2, log=f"a warning\n{FULL}\n")
    assert incidents(fleet) == [f"worker-0 (pid 77) ended with 2 ({FULL}), replaced by pid 78"]
    assert worker.child.pid == 78


def test_a_killed_process_has_no_last_words(fleet, join):
    join("producer", -9, log="a warning that has nothing to do with it\n")
    assert incidents(fleet) == ["producer-0 (pid 77) was killed by SIGKILL, replaced by pid 78"]
    fleet.poll()
    assert len(fleet.incidents) == 1


def test_a_producer_that_stopped_early_is_resumed_and_one_that_is_through_is_not(fleet, join):
    through = join("producer", 0, said=b'{"offered": 5, "left": 0}\n')
    assert through.expected_end
    assert incidents(fleet) == []
    early = join("producer", 0, said=b'{"offered": 5, "index": 2, "left": 3}\n')
    assert fleet.commands == [["--resume"]]
    assert (early.replacements, early.said) == (1, {})  # it has to enter its phase again
    early.said["offered"] = 3
    assert early.total("offered") == 8


class Followers:
    """A fleet whose processes enter a phase when they are waited for, and say in which order."""

    def __init__(self, *names):
        self.told = []
        self.members = [
            SimpleNamespace(
                role=name.split("-")[0], name=name, expected_end=False, said={"index": 0}
            )
            for name in names
        ]
        self.phases = dict.fromkeys(names, 0)

    def of(self, role):
        return [member for member in self.members if member.role == role]

    def enter(self, member, index, _phase):
        self.told.append(("enter", member.name))
        self.phases[member.name] = index

    async def wait_until_in(self, member, index, _timeout_s):
        self.told.append(("in", member.name, sorted(self.phases.values())))
        return self.phases[member.name] == index


async def test_a_fleet_changes_phase_one_process_at_a_time_producers_first(tmp_path):
    notes = []
    fleet = Followers("worker-0", "worker-1", "producer-0", "producer-1")
    settings = RehearsalSettings(phases=(Phase.REDIS_ONLY, Phase.DUAL_READ))
    timeline = Timeline(
        settings,
        plan_steps(settings.phases),
        clock=VirtualClock(),
        teller=None,
        fleet=fleet,
        pusher=None,
        observer=None,
        control=tmp_path,
        note=notes.append,
    )
    await timeline._change_phase(1)
    assert fleet.told == [
        ("enter", "producer-0"),
        ("in", "producer-0", [0, 0, 0, 1]),
        ("enter", "producer-1"),
        ("in", "producer-1", [0, 0, 1, 1]),
        ("enter", "worker-0"),
        ("in", "worker-0", [0, 1, 1, 1]),
        ("enter", "worker-1"),
        ("in", "worker-1", [1, 1, 1, 1]),
    ]
    assert PhaseFile(tmp_path / "hooks.json").read() == (1, Phase.DUAL_READ)
    assert notes == []


async def test_one_that_died_as_the_phase_changes_is_replaced_in_the_new_one(fleet, join, tmp_path):
    notes = []
    fleet._clock = VirtualClock()
    settings = RehearsalSettings(phases=(Phase.REDIS_ONLY, Phase.NATS_PRIMARY))
    timeline = Timeline(
        settings,
        plan_steps(settings.phases),
        clock=fleet._clock,
        teller=None,
        fleet=fleet,
        pusher=None,
        observer=None,
        control=tmp_path,
        note=notes.append,
    )
    worker = join("worker", None)
    PhaseFile(worker.phase_file).write(0, Phase.REDIS_ONLY)
    worker.child.exit_code = -9  # and nobody has looked yet
    spawn = fleet._spawn

    def enter(role, number, arguments, phase_file):
        index, _phase = PhaseFile(phase_file).read()
        with (tmp_path / "worker-0.jsonl").open("a") as output:
            output.write(f'{{"index": {index}}}\n')
        return spawn(role, number, arguments, phase_file)

    fleet._spawn = enter
    await timeline._change_phase(1)
    assert notes == []
    assert (worker.child.pid, worker.said) == (78, {"index": 1})


def test_what_dies_over_and_over_is_left_dead(fleet, join):
    worker = join("worker", 1)
    for _ in range(5):
        worker.child.exit_code = 1
        fleet.poll()
    assert worker.expected_end
    assert [what.rpartition(" ")[2] for what in incidents(fleet)] == ["78", "78", "78", "replaced"]


def test_half_of_a_line_is_an_incident_and_what_follows_is_heard(fleet, join):
    member = join(
        "worker", None, said=b'{"event": "phase", "ind{"event": "x"}\n{"index": 3}\n{"done": 5'
    )
    assert member.said == {"index": 3}
    (what,) = incidents(fleet)
    assert what.startswith('worker-0 (pid 77) said what is no JSON: b\'{"event": "phase"')


class Stopping:
    """A process that ends as it is told, at the first signal."""

    def __init__(self, code=None, ends_with=0):
        self.pid, self.exit_code, self.signals, self._ends_with = 79, code, [], ends_with

    def signal(self, number):
        self.signals.append(number)
        if number == signal.SIGTERM:
            self.exit_code = self._ends_with


async def test_a_load_that_is_told_to_end_ends_well_with_tasks_left(fleet, join):
    producer = join("producer", None, said=b'{"index": 1, "left": 40}\n')
    producer.child = Stopping()
    fleet._clock = VirtualClock()
    assert await fleet.finish([producer], 1.0)
    assert producer.child.signals == [signal.SIGCONT, signal.SIGTERM]
    assert (producer.told_to_stop, producer.replacements, fleet.incidents) == (True, 0, [])


async def test_who_dies_instead_is_replaced_and_the_new_one_is_told_when_it_listens(fleet, join):
    fleet._clock = VirtualClock()
    producer = join("producer", None, said=b'{"index": 1}\n')
    producer.child = Stopping(ends_with=-9)
    finishing = asyncio.ensure_future(fleet.finish([producer], 60.0))
    await fleet._clock.sleep(5.0)
    assert (producer.replacements, producer.told_to_stop) == (1, False)
    producer.child = Stopping()
    await fleet._clock.sleep(5.0)
    assert producer.child.signals == []  # it would die of it
    producer.said["index"] = 1
    assert await finishing
    assert producer.child.signals == [signal.SIGCONT, signal.SIGTERM]


async def test_a_wait_ends_with_a_cancellation_that_somebody_swallowed(tmp_path):
    """As ``asyncio.wait_for`` of Python 3.11 does below a client: Ctrl-C must not be lost."""
    fleet = Fleet(clock=VirtualClock(), ledger=tmp_path, logs=tmp_path, control=tmp_path)
    ended = []

    async def rehearse():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        ended.append(await fleet.wait_for_end([SimpleNamespace(child=fleet)], 1e9))

    fleet.exit_code = None
    running = asyncio.ensure_future(rehearse())
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert ended == []
