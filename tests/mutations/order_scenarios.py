"""Scenarios of the order of a repository, kept by the authority: each is valid without a bug."""

import asyncio
import contextlib

from hookbench.migration.measures import Measures
from hookbench.migration.phases import Phase
from hookbench.queues.authority import ClaimOutcome
from hookbench.queues.redis_done_store import RedisDoneStore
from hookbench.task import encode_task
from tests.conftest import eventually
from tests.mutations.scenarios import Failing
from tests.mutations.scene import LONG_LEASE_S, environment

ORDERED = Measures(ack_after=True, done_store=True, own_attempts=True, repository_order=True)
_BUDGET = 3
_RETENTION_S = 600.0
_TICK_S = 0.002
"""Longer than a millisecond, by which the authority orders the tasks of a repository."""


@contextlib.asynccontextmanager
async def _outside(scene):
    """Commands to Redis and its done-store, for a worker that the ledger has not heard of."""
    opened = scene.connections()
    try:
        redis = opened.redis()
        yield redis, RedisDoneStore(redis, names=scene.names, retention_s=_RETENTION_S)
    finally:
        await opened.close()


async def superseded_after_its_letter(scene):
    """A task has its dead letter, and its end is lost; a later one of its repository is done.

    What a crash of the authority takes is taken by hand: the end, and not the failures before it.
    Then a second entry of the first task comes, as a repeated LPUSH leaves it (hazard R8).
    """
    scene.enter(Phase.REDIS_ONLY)
    first = scene.task()
    pending = scene.names.pending_key("sync")
    with environment():
        await scene.put(first)
        async with scene.worker(1, service=Failing(_BUDGET), measures=ORDERED):
            await scene.quiet()
            async with _outside(scene) as (redis, store):
                assert await store.are_done([first.id]) == {first.id}
                assert await store.forget([first.id]) == 1
                for _ in range(_BUDGET):
                    claim = await store.claim(first.id, "before", LONG_LEASE_S)
                    assert await store.release(claim, failure="as planned")
                await scene.put(scene.task())
                await scene.quiet()
                await redis.lpush(pending, encode_task(first))
            await scene.quiet()


async def superseded_and_moved(scene):
    """A worker is told that a task is superseded, and dies; the records move to JetStream.

    It is one of those that the ledger has not heard of, and it has taken the entry off the list.
    """
    scene.enter(Phase.DUAL_WRITE)
    first = scene.task()
    await asyncio.sleep(_TICK_S)
    with environment():
        await scene.put(first, scene.task())
        async with _outside(scene) as (redis, store):
            assert await redis.lrem(scene.names.pending_key("sync"), 1, encode_task(first)) == 1
            async with scene.worker(1, measures=ORDERED) as worker:
                await scene.quiet()
                claim = await store.claim(first.id, "dead", LONG_LEASE_S, repository=first.repo_id)
                assert claim.outcome is ClaimOutcome.SUPERSEDED
                scene.enter(Phase.NATS_ONLY)
                await eventually(
                    lambda: [event for event in worker.said if event.get("index") == 1],
                    what="the change of phase",
                )
                await scene.sees(
                    lambda sample: (sample.consumer_pending, sample.ack_pending) == (0, 0),
                    "the end of the replay",
                )
                await scene.quiet()
