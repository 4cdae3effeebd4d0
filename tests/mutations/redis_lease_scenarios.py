"""Scenarios of workers with leases on Redis lists: each is valid without a bug."""

import contextlib

from hookbench.migration.measures import Measures
from hookbench.migration.phases import Phase
from hookbench.queues.redis_leased import RedisLeasedQueue
from tests.conftest import eventually
from tests.mutations.scenarios import Failing, Gate
from tests.mutations.scene import LONG_LEASE_S

LEASES = Measures(ack_after=True, leases=True)
SHORT_LEASE_S = 0.3
_WORKER = {"measures": LEASES, "redis_lease_s": SHORT_LEASE_S}


@contextlib.asynccontextmanager
async def _redis(scene):
    opened = scene.connections()
    try:
        yield opened.redis()
    finally:
        await opened.close()


async def dead_owner(scene):
    """Two of three tasks are in the list of a worker that is gone; another one does all three."""
    scene.enter(Phase.REDIS_ONLY)
    await scene.put(*scene.tasks())
    async with _redis(scene) as redis:
        dead = RedisLeasedQueue(redis, owner="dead", names=scene.names, lease_s=SHORT_LEASE_S)
        assert len(await dead.receive(2, 1.0)) == 2
        async with scene.worker(1, **_WORKER):
            # Twice the lease: by then it has ended, and the worker has looked since.
            await _passes(scene, redis, dead, 2 * SHORT_LEASE_S)
            await scene.quiet()


async def _passes(scene, redis, queue, seconds):
    """Wait until a lease has ended, by the clock of Redis, for so long."""
    key = scene.names.leases_key("sync")
    end_ms = await redis.zscore(key, queue.owner) + seconds * 1000

    async def passed():
        now_s, micros = await redis.time()
        return now_s * 1000 + micros / 1000 > end_ms

    await eventually(passed, what="the end of a lease")


async def lease_lost(scene):
    """A slow worker's lease ends, another one does its task, and then the first one fails."""
    scene.enter(Phase.REDIS_ONLY)
    task, gate, fail_once = scene.task(), Gate(), Failing(1)

    async def slow(task, execution):
        await gate(task, execution)
        await fail_once(task, execution)

    await scene.put(task)
    async with (
        _redis(scene) as redis,
        scene.worker(1, service=slow, measures=LEASES, redis_lease_s=LONG_LEASE_S),
    ):
        await eventually(lambda: gate.inside, what="a task in hand")
        (owner,) = await redis.zrange(scene.names.leases_key("sync"), 0, -1)
        await redis.zadd(scene.names.leases_key("sync"), {owner: 1})
        async with scene.worker(2, **_WORKER):
            await scene.sees(lambda sample: sample.redis_work == 0, "the task done by another")
            await scene.quiet()
            gate.open.set()
            await scene.quiet()
