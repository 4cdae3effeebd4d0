"""The Redis server: full, failed over, or slower than its client's patience."""

import asyncio

import redis.asyncio as redis_asyncio

from hookbench.brokers.embedded import LOOPBACK
from hookbench.brokers.redis_nodes import ask_node
from hookbench.brokers.redis_replica import RedisReplica
from hookbench.clock import NS_PER_S
from hookbench.errors import BrokerUnreachableError, HazardError
from hookbench.hazards.bench import Bench
from hookbench.hazards.model import Harm, Hazard, Observation
from hookbench.hazards.rows.redis_write import LIBRARY_DEFAULTS
from hookbench.hazards.watching import seen
from hookbench.ledger.events import Event
from hookbench.migration.consumer import RedisConsumer
from hookbench.migration.phases import Phase

__all__ = ["ROWS"]

_BACKLOG = 20
_WATCHED_S = 2.0
_BLOCK_S = 8.0
_PATIENCE_S = 10.0


async def _full(bench: Bench) -> list[Observation]:
    """R6: a full Redis first refuses to be drained, then evicts the queue as a whole.

    Full by noeviction: watched for two seconds, then given room again. Full by allkeys-lru: the
    limit is below what is used, and the queue is one key.
    """
    await bench.enter(Phase.REDIS_ONLY)
    producer = await bench.producer()
    await producer.send_all(bench.tasks(_BACKLOG))
    await _limit(bench, "noeviction")
    worker = await bench.worker()

    async def received() -> bool:
        return bench.count(Event.RECEIVED) > 0

    found = []
    refused = await producer.send_all(bench.tasks(1)) == 0
    if not await seen(bench, received, _WATCHED_S):
        text = (
            f"none of {_BACKLOG} waiting tasks could be taken for {_WATCHED_S:g} s at maxmemory"
            f" with noeviction; a further put was {'refused' if refused else 'taken'}"
        )
        found.append(Observation(text=text, harm=Harm.FULL, count=_BACKLOG))
    await _limit(bench, None)
    await bench.wait_until_done(_BACKLOG)
    bench.note("room again, and they are done")
    await bench.stop(worker)
    await producer.send_all(bench.tasks(_BACKLOG))
    await _limit(bench, "allkeys-lru")
    left = await bench.redis.llen(bench.names.pending_key("sync"))
    bench.note(f"{left} of {_BACKLOG} tasks left under allkeys-lru")
    await _limit(bench, None)
    await bench.worker()
    await bench.quiesce()
    return [*found, *await bench.conclude()]


async def _limit(bench: Bench, policy: str | None) -> None:
    """Leave no room beyond what is used, or take the limit away."""
    (redis,) = bench.topology.redis.nodes
    used = int((await ask_node(redis, "INFO", "memory"))["used_memory"])
    if policy is not None:
        await ask_node(redis, "CONFIG", "SET", "maxmemory-policy", policy)
    limit = 0 if policy is None else used * 9 // 10
    await ask_node(redis, "CONFIG", "SET", "maxmemory", limit)
    bench.note(f"{used} bytes used, maxmemory {limit}, policy {policy or 'as before'}")


async def _failed_over(bench: Bench) -> list[Observation]:
    """R7: five tasks are acknowledged while the replica applies nothing, and the master dies."""
    group = bench.topology.redis
    if not isinstance(group, RedisReplica):
        raise HazardError(f"topology {bench.topology.name}: the row needs redis_replica")
    await bench.enter(Phase.REDIS_ONLY)
    producer = await bench.producer()
    before = await producer.send_all(bench.tasks(5))
    await group.wait_until_ready()
    await group.pause_replication()
    after = await producer.send_all(bench.tasks(5))
    bench.note(f"{before} tasks accepted and replicated, {after} accepted by the master alone")
    old = await group.master()
    old.kill()
    new = await group.promote()
    bench.note(f"{old.name} killed, {new.name} promoted")
    await bench.worker()
    await bench.quiesce()
    return await bench.conclude()


async def _impatient(bench: Bench) -> list[Observation]:
    """R9: a read that waits for 8 s on an empty queue, with redis-py as it is shipped.

    The reference client's socket outlives the wait, in both designs; under the switch the consumer
    is given a client with the library's defaults. It is watched for 10 s.
    """
    await bench.enter(Phase.REDIS_ONLY)
    client = redis_asyncio.Redis(host=LOOPBACK, port=bench.topology.redis.nodes[0].port)
    defaults = bench.has(LIBRARY_DEFAULTS)
    consumer = RedisConsumer(
        client if defaults else bench.redis,  # type: ignore[arg-type]  # redis-py's own hints
        block_timeout_secs=_BLOCK_S,
        names=bench.names,
    )
    begin_ns = bench.clock.monotonic_ns()
    how = "no answer, and no error"
    answered = False
    try:
        async with asyncio.timeout(_PATIENCE_S):
            answered = await consumer.receive("sync", 1) == []
            how = "the empty answer that it should give" if answered else "a task"
    except TimeoutError:
        pass
    except BrokerUnreachableError as error:
        how = f"an error: {error}"
    finally:
        await client.aclose()
    seconds = (bench.clock.monotonic_ns() - begin_ns) / NS_PER_S
    text = f"a read of {_BLOCK_S:g} s on an empty queue: {how} after {seconds:.1f} s"
    bench.note(text)
    harm = None if answered else Harm.STALLED
    return [Observation(text=text, harm=harm, count=int(not answered))]


ROWS = (
    Hazard(
        id="R6",
        where="Redis memory",
        mechanism="at maxmemory a queue cannot be drained, for LMOVE is refused as LPUSH is; with"
        " an evicting policy the whole queue is evicted",
        harm=Harm.LOST,
        scenario=_full,
    ),
    Hazard(
        id="R7",
        where="Redis failover",
        mechanism="replication is asynchronous: what a master acknowledged is gone with it",
        harm=Harm.LOST,
        scenario=_failed_over,
        topology="redis_replica",
    ),
    Hazard(
        id="R9",
        where="client",
        mechanism="redis-py gives up a socket after 5 s and tries 10 times, so a longer BLMOVE"
        " comes to no end",
        harm=Harm.STALLED,
        scenario=_impatient,
        switches=(LIBRARY_DEFAULTS,),
    ),
)
