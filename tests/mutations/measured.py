"""Scenarios under measures of the hardened design: each is valid without a bug."""

from hookbench.migration.measures import Measures
from hookbench.migration.phases import Phase
from hookbench.task import encode_task
from tests.conftest import eventually
from tests.mutations.scenarios import Failing, Gate, killed_with
from tests.mutations.scene import LEASE_S, environment

CLAIMED = Measures(ack_after=True, done_store=True)
TRIMMED = Measures(ack_after=True, done_store=True, trim=True)
COUNTING = Measures(ack_after=True, own_attempts=True)
_BUDGET = 3


async def _second_entry(scene, task):
    """Another entry of a task in the Redis list, as a repeated LPUSH leaves it (hazard R8)."""
    opened = scene.connections()
    try:
        await opened.redis().lpush(scene.names.pending_key("sync"), encode_task(task))
    finally:
        await opened.close()


async def claimed_at_once(scene):
    """Two entries of a task in the hands of two workers that claim what they start."""
    scene.enter(Phase.REDIS_ONLY)
    task, gate = scene.task(), Gate()
    with environment(strict_lists=True):
        await scene.put(task)
        async with scene.worker(1, service=gate, measures=CLAIMED):
            await eventually(lambda: gate.inside, what="a task in hand")
            await _second_entry(scene, task)
            async with scene.worker(2, service=gate, measures=CLAIMED):
                await scene.sees(lambda sample: sample.redis_work == 2, "the second delivery")
                gate.open.set()
                await scene.quiet()


async def claimed_in_turn(scene):
    """Two entries of a task, one after the other, come to a worker that claims what it starts."""
    scene.enter(Phase.REDIS_ONLY)
    task = scene.task()
    with environment(strict_lists=True):
        await scene.put(task)
        await _second_entry(scene, task)
        async with scene.worker(1, measures=CLAIMED):
            await scene.quiet()


async def claimed_and_replayed(scene):
    """Three tasks are done by Redis and replayed by NATS; the worker claims what it starts."""
    scene.enter(Phase.DUAL_WRITE)
    with environment():
        await scene.put(*scene.tasks())
        async with scene.worker(1, measures=CLAIMED) as worker:
            await scene.quiet()
            scene.enter(Phase.DUAL_READ)
            await eventually(
                lambda: [event for event in worker.said if event.get("index") == 1],
                what="the change of phase",
            )
            await scene.sees(
                lambda sample: (sample.consumer_pending, sample.ack_pending) == (0, 0),
                "the end of the replay",
            )
            await scene.quiet()


async def claimed_failing_once(scene):
    """A handler that claims, fails once, and then does its work, through Redis."""
    scene.enter(Phase.REDIS_ONLY)
    with environment():
        await scene.put(scene.task())
        async with scene.worker(1, service=Failing(1), measures=CLAIMED):
            await scene.quiet()


async def claimed_and_killed(scene):
    """A worker is killed with a claimed task in hand; another one takes it over."""
    await killed_with(scene, CLAIMED)


async def trimmed(scene):
    """NATS does a task of dual reads, an older one waits in Redis, and then Redis is read."""
    scene.enter(Phase.REDIS_ONLY)
    with environment():
        await scene.put(scene.task(repository="repo-old"))
        scene.enter(Phase.DUAL_READ)
        await scene.put(scene.task(repository="repo-new"))
        async with scene.worker(1, measures=TRIMMED) as worker:
            await scene.sees(lambda sample: sample.redis_pending == 1, "the trimming")
            scene.enter(Phase.REDIS_ONLY)
            await eventually(
                lambda: [event for event in worker.said if event.get("index") == 2],
                what="the change of phase",
            )
            await scene.quiet()


async def used_up_by_crashes(scene):
    """Three workers outside of the ledger die with a task; the fourth counts attempts itself."""
    scene.enter(Phase.NATS_PRIMARY)
    with environment(lease_s=LEASE_S):
        async with scene.worker(1, measures=COUNTING):
            pass  # it makes the consumer
        await scene.put(scene.task())
        for number in range(1, _BUDGET + 1):
            transport = await scene.transport()
            try:
                (message,) = await transport.pull(scene.names.subject("sync"), 1, 10.0)
                assert message.attempt == number
            finally:
                await transport.close()
        async with scene.worker(2, measures=COUNTING):
            await scene.quiet(leases=True)
