"""The removal of Redis, and the ways back."""

import asyncio
import shutil

from hookbench.hazards.bench import Bench
from hookbench.hazards.model import Harm, Hazard, Observation
from hookbench.hazards.watching import accepted_have_ended, wait_until_read
from hookbench.ledger.events import Event
from hookbench.migration.phases import Phase

__all__ = ["ROWS"]

_COUNT = 10


async def _deleted_with_redis(bench: Bench) -> list[Observation]:
    """C1: a task is orphaned in phase 0, and Redis with all its data is removed for phase 4."""
    await bench.enter(Phase.REDIS_ONLY)
    producer = await bench.producer()
    worker = await bench.worker(replaced=False)
    await bench.die_at(worker, "start:1")
    await producer.send_all(bench.tasks(1))

    async def died() -> bool:
        return worker.child.exit_code is not None

    await bench.wait_until(died, "the worker dies with its first task in hand")
    orphans = await bench.redis.llen(bench.names.work_key("sync"))
    bench.note(f"{orphans} orphans in the work list")
    for phase in (Phase.DUAL_WRITE, Phase.DUAL_READ, Phase.NATS_PRIMARY):
        await bench.enter(phase, asked=False)  # earlier gates would not let it get so far
    await bench.retire(producer)
    await bench.worker()
    later = await bench.producer()
    await bench.enter(Phase.NATS_ONLY)
    accepted = await later.send_all(bench.tasks(_COUNT))
    await bench.wait_until_done(accepted)
    if bench.gated:  # the orphan was moved; who had it in hand may still hold a claim
        await bench.wait_until(lambda: accepted_have_ended(bench), "what was moved has ended")
    (redis,) = bench.topology.redis.nodes
    redis.stop()
    await asyncio.to_thread(shutil.rmtree, redis.data)
    redis.data.mkdir()
    redis.restart()  # empty: whoever looks for what is left finds nothing
    bench.note("Redis removed")
    return await bench.conclude()


async def _re_entered(bench: Bench) -> list[Observation]:
    """B1: 1 to 0 and back to 1, then on to 2: the stream has the history of both entries."""
    await bench.enter(Phase.DUAL_WRITE)
    producer = await bench.producer()
    await bench.worker()
    first = await producer.send_all(bench.tasks(_COUNT))
    await bench.wait_until_done(first)
    await bench.enter(Phase.REDIS_ONLY)
    rolled_back = await bench.producer()
    between = await rolled_back.send_all(bench.tasks(_COUNT))
    await bench.wait_until_done(first + between)
    bench.note(f"{first} tasks done before the rollback and {between} after it")
    await bench.enter(Phase.DUAL_WRITE)
    await bench.enter(Phase.DUAL_READ)
    await wait_until_read(bench)
    await bench.quiesce()
    return await bench.conclude()


async def _copies_run(bench: Bench) -> list[Observation]:
    """B2: twenty tasks are done by NATS, and the rollback reads their copies in Redis."""
    await bench.enter(Phase.DUAL_READ)
    producer = await bench.producer()
    await bench.worker()
    accepted = await producer.send_all(bench.tasks(2 * _COUNT))
    await wait_until_read(bench)
    await bench.wait_until_done(accepted)
    bench.note(f"{accepted} tasks done by NATS")
    await bench.enter(Phase.REDIS_ONLY)
    await bench.quiesce()
    bench.note(f"{bench.count(Event.DONE)} executions after the rollback")
    return await bench.conclude()


async def _stranded(bench: Bench) -> list[Observation]:
    """B3: 3 to 0 with a backlog in the stream, and a producer that learns of it too late."""
    await bench.enter(Phase.NATS_PRIMARY)
    late = await bench.producer(hears=False)
    worker = await bench.worker()
    done = await late.send_all(bench.tasks(_COUNT))
    await bench.wait_until_done(done)
    await bench.stop(worker)
    backlog = await late.send_all(bench.tasks(_COUNT))
    if bench.gated:  # a gate asks whether there is one: too slow for the backlog
        await bench.worker("--sleep-ms", "500", handler="sleep")
    await bench.enter(Phase.REDIS_ONLY)
    await bench.worker()
    rolled_back = await bench.producer()
    on_redis = await rolled_back.send_all(bench.tasks(_COUNT))
    published = await late.send_all(bench.tasks(_COUNT))
    bench.note(
        f"{backlog} tasks were in the stream, {published} were published after the rollback,"
        f" {on_redis} went to Redis"
    )
    await bench.wait_until_done(done + on_redis)
    await bench.quiesce()
    return await bench.conclude()


ROWS = (
    Hazard(
        id="C1",
        where="phase 3 to 4",
        mechanism="what is left in a Redis list is deleted with Redis",
        harm=Harm.LOST,
        scenario=_deleted_with_redis,
        held_by=("redis is empty",),
    ),
    Hazard(
        id="B1",
        where="1 to 0 to 1",
        mechanism="a re-entry within max-age replays the history of the first one",
        harm=Harm.DUPLICATED,
        scenario=_re_entered,
        held_by=("ids reconciled", "watermark"),
    ),
    Hazard(
        id="B2",
        where="2 to 0",
        mechanism="Redis still holds every task that is finished, and a rollback runs them again",
        harm=Harm.DUPLICATED,
        scenario=_copies_run,
        held_by=("copies of finished tasks",),
    ),
    Hazard(
        id="B3",
        where="3 or 4 to 0",
        mechanism="tasks that NATS alone has are stranded, and late producers add to them",
        harm=Harm.STUCK,
        scenario=_stranded,
        held_by=("reroute_producers", "no old producer", "late publishes", "nats drained"),
    ),
)
