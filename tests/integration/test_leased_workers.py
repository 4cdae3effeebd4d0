"""Worker processes with leases on Redis lists: stopped, killed, paused, and beside older ones."""

import signal
from collections import Counter

import pytest

from hookbench.brokers.process import is_stopped
from hookbench.ledger.events import Event
from hookbench.ledger.read import read_ledger
from hookbench.migration.phases import Phase
from hookbench.queues.base import Depth
from hookbench.queues.redis_reaper import RedisSurvey
from tests.conftest import eventually
from tests.integration.test_worker_process import done_of, send

LEASES = ("--phase=0", "--measures=leases", "--redis-lease=1")
SLOW = ("--handler=sleep", "--sleep-ms=60000", "--concurrency=10")

pytestmark = pytest.mark.timeout(90)


@pytest.fixture
def survey(redis_client, fleet):
    return RedisSurvey(redis_client, names=fleet.names)


async def hands_are(survey, count):
    return (await survey.depth()).in_flight == count


async def all_done(fleet, survey, tasks):
    ids = sorted(task.id.bytes for task in tasks)
    await eventually(lambda: done_of(fleet) == ids, timeout_s=30)
    await eventually(lambda: hands_are(survey, 0))
    assert await survey.depth() == Depth(pending=0, in_flight=0)


def tasks_of(fleet, event):
    """How often each task has such a record."""
    ledger = read_ledger(fleet.ledger, same_boot=True, lenient=True)
    rows = ledger.task[ledger.records["event"] == event]
    return Counter(ledger.ids[row].tobytes() for row in rows)


async def test_the_tasks_of_a_killed_worker_are_done_by_another(fleet, make_task, clock, survey):
    tasks = [make_task() for _ in range(50)]
    await send(fleet, Phase.REDIS_ONLY, clock, tasks)
    killed = fleet.worker(*LEASES, *SLOW)
    await eventually(lambda: hands_are(survey, 10))
    fleet.worker(*LEASES, writer=2)
    assert killed.stop(signal.SIGKILL) == -signal.SIGKILL
    await all_done(fleet, survey, tasks)
    requeued = tasks_of(fleet, Event.REQUEUED)
    assert len(requeued) == 10
    assert set(requeued.values()) == {1}
    received = tasks_of(fleet, Event.RECEIVED)
    assert {task for task, count in received.items() if count > 1} == set(requeued)


async def test_a_stopped_worker_leaves_nothing(fleet, make_task, clock, survey, redis_client):
    tasks = [make_task() for _ in range(30)]
    await send(fleet, Phase.REDIS_ONLY, clock, tasks)
    worker = fleet.worker(*LEASES)
    await all_done(fleet, survey, tasks)
    assert worker.stop() == 0
    assert await redis_client.keys(f"{fleet.names.prefix}*") == []


async def test_a_paused_worker_learns_that_its_tasks_are_done_by_another(
    fleet, make_task, clock, survey
):
    tasks = [make_task() for _ in range(5)]
    await send(fleet, Phase.REDIS_ONLY, clock, tasks)
    paused = fleet.worker(*LEASES, "--handler=sleep", "--sleep-ms=1500")
    await eventually(lambda: hands_are(survey, 5))
    paused.popen.send_signal(signal.SIGSTOP)
    await eventually(lambda: is_stopped(paused.popen.pid))
    other = fleet.worker(*LEASES, writer=2)
    await all_done(fleet, survey, tasks)
    assert other.stop() == 0
    paused.popen.send_signal(signal.SIGCONT)
    ids = {task.id.bytes for task in tasks}
    await eventually(lambda: set(tasks_of(fleet, Event.ACK_FAILED)) == ids, timeout_s=30)
    assert await survey.depth() == Depth(pending=0, in_flight=0)
    more = [make_task()]
    await send(fleet, Phase.REDIS_ONLY, clock, more)
    await eventually(lambda: more[0].id.bytes in done_of(fleet))
    assert paused.stop() == 0


async def test_a_long_task_keeps_its_worker(fleet, make_task, clock, survey):
    """Three leases long, with all hands full, so that nothing is read meanwhile."""
    tasks = [make_task() for _ in range(2)]
    await send(fleet, Phase.REDIS_ONLY, clock, tasks)
    busy = fleet.worker(*LEASES, "--handler=sleep", "--sleep-ms=3000", "--concurrency=2")
    await eventually(lambda: hands_are(survey, 2))
    idle = fleet.worker(*LEASES, writer=2)
    await all_done(fleet, survey, tasks)
    assert not tasks_of(fleet, Event.REQUEUED)
    assert [busy.stop(), idle.stop()] == [0, 0]


async def test_a_fleet_of_both_kinds_strands_nothing(fleet, make_task, clock, survey):
    tasks = [make_task() for _ in range(60)]
    await send(fleet, Phase.REDIS_ONLY, clock, tasks)
    old = fleet.worker("--phase=0", *SLOW)
    await eventually(lambda: hands_are(survey, 10))
    assert old.stop(signal.SIGKILL) == -signal.SIGKILL
    fleet.worker("--phase=0", "--handler=sleep", "--sleep-ms=20", writer=2)
    fleet.worker(*LEASES, writer=3)
    await all_done(fleet, survey, tasks)
    assert len(tasks_of(fleet, Event.REQUEUED)) == 10


async def test_the_attempts_of_a_failing_task_are_counted_over_crashes(
    fleet, make_task, clock, survey, redis_client
):
    task = make_task()
    await send(fleet, Phase.REDIS_ONLY, clock, [task])
    crashed = fleet.worker(*LEASES, *SLOW)
    await eventually(lambda: hands_are(survey, 1))
    assert crashed.stop(signal.SIGKILL) == -signal.SIGKILL
    failing = fleet.worker(*LEASES, "--handler=fail", writer=2)
    key = fleet.names.dead_key("sync")
    await eventually(lambda: redis_client.llen(key), timeout_s=30)
    await eventually(lambda: hands_are(survey, 0))
    assert failing.stop() == 0
    ledger = read_ledger(fleet.ledger, same_boot=True, lenient=True)
    received = ledger.records[ledger.records["event"] == Event.RECEIVED]
    assert received["attempt"].tolist() == [1, 2, 3]
    # The killed one is remembered for a while: a BLMOVE of its may still wait.
    left = {key.encode(), fleet.names.leases_key("sync").encode()}
    assert set(await redis_client.keys(f"{fleet.names.prefix}*")) == left
