"""Tasks that the queue was not made for: other types, too large, or none at all."""

import msgspec

from hookbench.hazards.bench import Bench
from hookbench.hazards.model import Harm, Hazard, Observation, Protection
from hookbench.hazards.watching import wait_until_read
from hookbench.ledger.events import Event
from hookbench.migration.phases import Phase, WriteRoute
from hookbench.migration.producer import ReceiveSyncService
from hookbench.queues.task_types import types_without_consumer
from hookbench.queues.transport import make_nats_publish

__all__ = ["ROWS"]

NO_SIZE_CHECK = "size_check=off"
_TWO_MIB = 2 * 1024 * 1024
_HUGE = 1024 * _TWO_MIB
_COUNT = 3
_JUNK = (b"", b"{", b"\xff\xfe", b'{"id": 7}')


async def _other_type(bench: Bench) -> list[Observation]:
    """T1: tasks of type fsck are published, and the guide's only consumer is the one for sync.

    With a consumer per type the worker is told to work on both; before it is, the types that have
    tasks and no consumer are looked for, as a gate does.
    """
    await bench.enter(Phase.NATS_PRIMARY)
    producer = await bench.producer()
    per_type = bench.measures.consumer_per_type
    if not per_type:
        await bench.worker()
    sync = await producer.send_all(bench.tasks(_COUNT))
    # Another repository: between two types there is no order to keep.
    made = bench.tasks(_COUNT, repository="synthetic/plain/repo-1")
    fsck = [msgspec.structs.replace(task, task_type="fsck") for task in made]
    other = await producer.send_all(fsck)
    bench.note(f"{sync} sync tasks and {other} fsck tasks accepted")
    found = []
    if per_type:
        missing = await types_without_consumer(await bench.nats(), bench.topology.redis_url)
        found.append(Observation(text=f"types with tasks and without a consumer: {missing}"))
        await bench.worker("--task-type", "sync,fsck")
        await bench.wait_until_done(sync + other)
    await wait_until_read(bench)
    await bench.wait_until_done(sync)
    await bench.quiesce()
    return [*found, *await bench.conclude()]


async def _too_large(bench: Bench) -> list[Observation]:
    """S1: a task of 2 MiB in phase 1, where Redis takes it and NATS does not.

    The reference producer looks at the size before either write, in both designs; the switch
    takes its limit away.
    """
    await bench.enter(Phase.DUAL_WRITE)
    producer = await bench.producer()
    if bench.has(NO_SIZE_CHECK):
        producer.service = ReceiveSyncService.with_nats(
            bench.redis,
            make_nats_publish(await producer.connections.nats()),
            route=WriteRoute.BOTH,
            names=bench.names,
            limit_bytes=_HUGE,
            recorder=producer.ledger,
        )
    (task,) = bench.tasks(1, filling="x" * _TWO_MIB)
    told = await producer.send(task)
    in_redis = await bench.redis.llen(bench.names.pending_key("sync"))
    jetstream = (await bench.nats()).jetstream
    in_nats = (await jetstream.stream_info(bench.names.stream)).state.messages
    bench.note(f"{'accepted' if told else 'refused'}: {in_redis} in Redis, {in_nats} in the stream")
    await bench.worker()
    await bench.quiesce()
    if not told:
        text = f"refused before either write: {in_redis} in Redis, {in_nats} in the stream"
        protection = Protection.REFUSED if in_redis == in_nats == 0 else None
        return [Observation(text=text, protection=protection), *await bench.conclude()]
    split = int(in_redis != in_nats)
    text = f"a task of 2 MiB is accepted with {in_redis} copy in Redis and {in_nats} in the stream"
    found = Observation(text=text, harm=Harm.SPLIT, count=split, tasks=(str(task.id),))
    return [found, *await bench.conclude()]


async def _junk(bench: Bench) -> list[Observation]:
    """S2: bytes that are no task are put into both queues, with tasks behind them."""
    await bench.enter(Phase.REDIS_ONLY)
    worker = await bench.worker()
    producer = await bench.producer()
    for junk in _JUNK:
        await bench.redis.lpush(bench.names.pending_key("sync"), junk)
    accepted = await producer.send_all(bench.tasks(_COUNT))
    await bench.wait_until_done(accepted)
    await bench.enter(Phase.NATS_PRIMARY)
    later = await bench.producer()
    transport = await bench.nats()
    for junk in _JUNK:
        await transport.publish(bench.names.subject("sync"), junk)
    accepted += await later.send_all(bench.tasks(_COUNT))
    await bench.wait_until_done(accepted)
    await bench.quiesce()
    buried = bench.count(Event.DEAD)
    letters = await bench.redis.llen(bench.names.dead_key("sync"))
    state = (await transport.jetstream.stream_info(bench.names.dead_stream)).state
    died = len(bench.fleet.incidents)
    text = (
        f"{2 * len(_JUNK)} payloads that are no task: {buried} buried, {letters} letters in Redis"
        f" and {state.messages} in NATS, {accepted} tasks behind them done, {died} workers died"
    )
    bench.note(f"{worker.name}: {text}")
    kept = letters + state.messages == 2 * len(_JUNK) and not died
    if kept:
        found = Observation(text=text, protection=Protection.PREVENTED, count=buried)
    else:
        found = Observation(text=text, harm=Harm.FAILED, count=2 * len(_JUNK) - buried + died)
    return [found, *await bench.conclude()]


ROWS = (
    Hazard(
        id="T1",
        where="phases 2 and 3",
        mechanism="the consumer's filter is the sync subject, so other types have no consumer",
        harm=Harm.STUCK,
        scenario=_other_type,
    ),
    Hazard(
        id="S1",
        where="all",
        mechanism="a payload over max_payload: Redis takes it, NATS refuses",
        harm=Harm.SPLIT,
        scenario=_too_large,
        switches=(NO_SIZE_CHECK,),
    ),
    Hazard(
        id="S2",
        where="all",
        mechanism="bytes that are no task crash the worker again and again, or are gone",
        harm=Harm.FAILED,
        scenario=_junk,
        otherwise="the reference worker stores a dead letter with the reason and goes on, in both"
        " designs; the guide says nothing about it",
    ),
)
