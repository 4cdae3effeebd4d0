"""What a stored run says of a rate, second by second, and which trials are made again."""

import uuid

import msgspec
import pytest

from hookbench.clock import SystemClock
from hookbench.ledger.events import Broker, Event, LedgerWriter
from hookbench.ledger.model import Verdict
from hookbench.load.objectives import parse_objective
from hookbench.load.search import Trial
from hookbench.load.steady import MachineFasterError
from hookbench.migration.phases import Phase
from hookbench.rehearsal.capacity import CapacitySearch, CapacityTrials
from hookbench.rehearsal.judged import judge_run
from hookbench.rehearsal.settings import RehearsalSettings
from hookbench.results.store import MANIFEST_SCHEMA, Manifest
from tests.run_by_hand import ENVIRONMENT
from tests.unit.test_matrix_report import START, Ticks, account

MS = 1_000_000
PER_S = 50
OBJECTIVE = parse_objective("p50<50ms,backlog=flat")
SETTINGS = RehearsalSettings(phases=(Phase.NATS_ONLY,), rate_per_s=PER_S, phase_seconds=4.0)


def write_seconds(folder, latencies_ms):
    """So many tasks in each second, each of which takes as long as that second says."""
    folder.mkdir()
    clock, events = Ticks(), []
    for number in range(PER_S * len(latencies_ms)):
        task = uuid.UUID(int=0x0192_F300_0000_7000_8000_0000_0000_0000 + number).bytes
        due_ns = START + number * 1000 // PER_S * MS
        done_ns = due_ns + latencies_ms[number // PER_S] * MS
        events += [(due_ns, "put", task, due_ns), (done_ns, "work", task, due_ns)]
    writers = {
        "put": LedgerWriter(folder, role="producer", writer=1, clock=clock, capacity=4096),
        "work": LedgerWriter(folder, role="worker", writer=2, clock=clock, capacity=4096),
    }
    for at_ns, what, task, due_ns in sorted(events, key=lambda item: item[0]):
        clock.now_ns = at_ns
        if what == "put":
            writers[what].record(Event.PUT_INVOKED, task=task, value=due_ns)
            writers[what].record(Event.ACCEPTED, task=task)
        else:
            writers[what].record(Event.RECEIVED, task=task, broker=Broker.NATS, attempt=1)
            writers[what].record(Event.DONE, task=task, broker=Broker.NATS)
    for writer in writers.values():
        writer.close()


@pytest.fixture
def judged(tmp_path):
    """The trial that a run of such seconds is; ``slow``: the seconds of a slow machine."""

    def judge(*latencies_ms, slow=None):
        write_seconds(tmp_path / "ledger", latencies_ms)
        manifest = Manifest(
            schema=MANIFEST_SCHEMA,
            run="0001-abc1234",
            status="complete",
            design="guide",
            seed=7,
            durability="lazy",
            settings={},
            environment=ENVIRONMENT,
            started="2026-01-01T00:00:00Z",
            brokers=["nats-server 2"],
            verdict=Verdict.VALID,
            account=account(),
        )

        def fast(window):
            return round((window.begin_ns - START) / 1000 / MS) not in slow

        return judge_run(
            tmp_path, manifest, SETTINGS, OBJECTIVE, warm_up_s=0.0, fast=fast if slow else None
        )

    return judge


def test_half_of_the_seconds_are_enough(judged):
    found = judged(10, 90, 90, 10)
    assert (found.sustained, found.why) == (True, "")
    assert (found.figures["windows"], found.figures["counted"]) == (4, 4)


def test_most_of_them_above_the_bound_are_not(judged):
    found = judged(10, 90, 90, 90)
    assert found.sustained is False
    assert "p50 is a median of 90.0 ms, not below 50 ms in 3 of 4 windows" in found.why


def test_seconds_of_a_slow_machine_do_not_count(judged):
    found = judged(10, 90, 90, 10, slow=(1,))
    assert found.sustained
    assert found.figures["counted"] == 3
    assert found.figures["p50_median_ms"] == pytest.approx(10, rel=0.01)


def test_with_most_seconds_slow_a_trial_says_nothing(judged):
    found = judged(10, 10, 10, 10, slow=(0, 1, 2))
    assert found.sustained is None
    assert found.why == "the machine was slow in 3 of 4 windows"


def test_a_backlog_that_grows_in_most_seconds_is_told(judged):
    found = judged(0, 200, 400, 600)
    assert found.sustained is False
    assert "the backlog grows by" in found.why
    assert found.figures["growth_median"] > 0.1


async def test_a_trial_that_says_nothing_is_made_again(monkeypatch):
    trials = CapacityTrials(SETTINGS, OBJECTIVE, warm_up_s=0.0, clock=SystemClock())
    said = [None, None, False, True]

    async def make(rate_per_s):
        return Trial(rate_per_s=rate_per_s, sustained=said.pop(0))

    monkeypatch.setattr(trials, "_make", make)
    assert (await trials(50.0)).sustained is False
    assert said == [True]
    said[:] = [None] * 5
    assert (await trials(50.0)).sustained is None
    assert len(said) == 1


@pytest.mark.parametrize("times", [1, 9])
async def test_a_search_begins_again_when_the_machine_turns_out_faster(
    tmp_path, monkeypatch, times
):
    said, forgot = [], []
    search = CapacitySearch(
        msgspec.structs.replace(SETTINGS, out=tmp_path),
        OBJECTIVE,
        null=True,
        warm_up_s=0.0,
        least_speed=0.8,
        clock=SystemClock(),
        as_scenario=None,
        tell=lambda _trial: None,
        say=said.append,
    )

    async def trial(rate_per_s):
        if len(forgot) < times:
            raise MachineFasterError("faster")
        return Trial(rate_per_s=rate_per_s, sustained=rate_per_s < 70, why="slow")

    monkeypatch.setattr(search, "_trial", trial)
    monkeypatch.setattr(search._machine, "forget", lambda: forgot.append(True))
    answer = await search.run("null", 0.1)
    assert len(forgot) == min(times, 3)
    assert said == ["faster: the search begins again"] * len(forgot)
    if times == 1:
        assert answer.capacity.low_per_s < 70 <= answer.capacity.high_per_s
    else:
        assert answer.unknown_because == "the machine became faster in each of 3 searches"
