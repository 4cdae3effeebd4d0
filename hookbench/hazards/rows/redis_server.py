"""The Redis server: full, failed over, or slower than its client's patience."""

import asyncio

import redis.asyncio as redis_asyncio

from hookbench.brokers.ports import LOOPBACK
from hookbench.brokers.redis_nodes import ask_node
from hookbench.brokers.redis_replica import RedisReplica
from hookbench.clock import NS_PER_S
from hookbench.errors import BrokerUnreachableError, BrokerUnsuitableError, HazardError
from hookbench.hazards.bench import Bench
from hookbench.hazards.model import Harm, Hazard, Observation, Protection
from hookbench.hazards.producer import Producer
from hookbench.hazards.rows.redis_write import LIBRARY_DEFAULTS
from hookbench.hazards.watching import refusal, seen, wait_until_not_put
from hookbench.ledger.events import Broker, Event
from hookbench.migration.consumer import RedisConsumer
from hookbench.migration.phases import Phase
from hookbench.rehearsal.fleet import Member

__all__ = ["ROWS"]

_BACKLOG = 20
_WATCHED_S = 2.0
_BLOCK_S = 8.0
_PATIENCE_S = 10.0
_LIBRARY_PATIENCE_S = 5.0
_SAID_CHARACTERS = 10_000


async def _full(bench: Bench) -> list[Observation]:
    """R6: a full Redis first refuses to be drained, then evicts the queue as a whole.

    Full by noeviction: watched for two seconds, then given room again. Full by allkeys-lru: the
    limit is below what is used, and the queue is one key. With ``oom_claims`` it is drained while
    it is full, and where the policy evicts nobody starts, before a limit makes it evict; a worker
    that runs tells of it.
    """
    await bench.enter(Phase.REDIS_ONLY)
    producer = await bench.producer()
    await producer.send_all(bench.tasks(_BACKLOG))
    await _limit(bench, "noeviction")
    worker = await bench.worker()

    async def received() -> bool:
        return bench.count(Event.RECEIVED) > 0

    found = []
    full_ns = bench.clock.monotonic_ns()
    accepted = await producer.send_all(bench.tasks(1))
    if bench.measures.outbox:  # it takes the task, and Redis does not
        await wait_until_not_put(bench, Broker.REDIS, since_ns=full_ns)
    refused = accepted == 0 or bench.measures.outbox
    if bench.measures.oom_claims:
        if not refused:
            raise HazardError("Redis was not full: it took a task at maxmemory")
        await bench.wait_until_done(_BACKLOG)
        bench.note(f"all {_BACKLOG} tasks are done at maxmemory; a further put was refused")
        await _limit(bench, None)
        await bench.wait_until_done(_BACKLOG + accepted)
        return [*await _evicting(bench, worker), *await bench.conclude()]
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


async def _evicting(bench: Bench, worker: Member) -> list[Observation]:
    """Who says what of a policy that evicts, while there is no limit yet."""
    (redis,) = bench.topology.redis.nodes
    await ask_node(redis, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        said = await refusal(bench, "--measures", bench.measures.text)
        if said is None or "evicts" not in said:
            text = f"a worker starts on a Redis that evicts, or does not say why not: {said}"
            return [Observation(text=text, harm=Harm.LOST, count=1)]
        try:
            await bench.producer()
        except BrokerUnsuitableError as error:
            bench.note(f"the producer refused to start: {error}")
        else:
            text = "a producer starts on a Redis that evicts"
            return [Observation(text=text, harm=Harm.LOST, count=1)]

        async def told() -> bool:
            return "evicts" in bench.fleet.log_tail(worker, characters=_SAID_CHARACTERS)

        await bench.wait_until(told, f"{worker.name} tells that Redis evicts now")
        return [
            Observation(
                text="producer and worker do not start on a Redis that evicts",
                protection=Protection.REFUSED,
                count=2,
            ),
            Observation(
                text="a worker that runs tells when the policy is changed",
                protection=Protection.ALARMED,
                count=1,
            ),
        ]
    finally:
        await ask_node(redis, "CONFIG", "SET", "maxmemory-policy", "noeviction")


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
    """R7: five tasks are written while the replica applies nothing, and the master dies.

    With ``replica_wait`` the promoted master takes nothing while it has no replica itself. An
    outbox has the tasks meanwhile, and says why, so the old master comes back as a replica.
    """
    group = bench.topology.redis
    if not isinstance(group, RedisReplica):
        raise HazardError(f"topology {bench.topology.name}: the row needs redis_replica")
    await bench.enter(Phase.REDIS_ONLY)
    producer = await bench.producer()
    before = await producer.send_all(bench.tasks(5))
    await group.wait_until_ready()
    await group.pause_replication()
    after = await producer.send_all(bench.tasks(5))
    bench.note(f"{before} tasks accepted and replicated, {after} while nothing is replicated")
    old = await group.master()
    pending = bench.names.pending_key("sync")
    had = await ask_node(old, "LLEN", pending)
    old.kill()
    new = await group.promote()
    has = await ask_node(new, "LLEN", pending)
    bench.note(f"{old.name} killed with {had} tasks, {new.name} promoted with {has}")
    if had <= has:
        raise HazardError(f"the promoted node has all {has} tasks: nothing was left behind")
    await bench.worker()
    told = []
    if bench.measures.outbox and bench.measures.replica_wait:
        told.append(await _replica_awaited(bench, producer))
        await group.rejoin(old)
        bench.note(f"{old.name} is back, as a replica")
        await bench.wait_until(producer.swept, "the outbox is empty")
    await bench.quiesce()
    return [*await bench.conclude(), *told]


async def _replica_awaited(bench: Bench, producer: Producer) -> Observation:
    """The producer says what keeps its tasks in the outbox after the promotion."""

    async def told() -> bool:
        return "replicas are connected" in producer.service.trouble.get(Broker.REDIS, "")

    await bench.wait_until(told, "the outbox tells that the new master has no replica")
    trouble = producer.service.trouble[Broker.REDIS]
    bench.note(f"tasks stay in the outbox: {trouble}")
    return Observation(
        text=f"tasks that the new master alone would have stay in the outbox: {trouble}",
        protection=Protection.ALARMED,
    )


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
    if not answered:
        return [Observation(text=text, harm=Harm.STALLED, count=1)]
    if seconds < _LIBRARY_PATIENCE_S:
        raise HazardError(f"the read ended after {seconds:.1f} s: that is no long wait")
    return [Observation(text=text, protection=Protection.PREVENTED)]


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
