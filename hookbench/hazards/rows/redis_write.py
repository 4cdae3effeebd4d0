"""Redis writes and acknowledgements: entries that go together, come back, or come twice."""

import redis.asyncio as redis_asyncio

from hookbench.brokers.ports import LOOPBACK
from hookbench.brokers.redis_nodes import ask_node
from hookbench.errors import HazardError
from hookbench.faults.wire.model import Rule
from hookbench.hazards.bench import Bench
from hookbench.hazards.model import Harm, Hazard, Observation, Protection
from hookbench.ledger.events import Event
from hookbench.migration.phases import Phase
from hookbench.migration.producer import ReceiveSyncService
from hookbench.queues.redis_list import RedisListQueue
from hookbench.queues.redis_reaper import RedisSurvey
from hookbench.task import encode_task

__all__ = ["ROWS"]

LIBRARY_DEFAULTS = "redis-py=defaults"


async def _equal_payloads(bench: Bench) -> list[Observation]:
    """R4: two byte-equal payloads are in hand; one is acknowledged, the other's worker dies.

    The producer is a legacy one, outside of the reference code: its tasks have an id, since the
    reference code takes none without, but not a unique one. So they are told apart by nothing, and
    are counted instead: put, executed, and what the lists hold. To a done-store they are one task:
    the second is held back while the first is in hand, and after the first worker's death one of
    them is executed, the other skipped, so neither's end has removed the other.
    """
    await bench.enter(Phase.REDIS_ONLY)
    (task,) = bench.tasks(1)
    payload = encode_task(task)
    pending = bench.names.pending_key("sync")
    lists = RedisSurvey(bench.redis, names=bench.names)
    slow = await bench.worker("--sleep-ms", "60000", handler="sleep", replaced=False)
    await bench.redis.lpush(pending, payload)

    async def started() -> bool:
        return bench.count(Event.STARTED) > 0

    await bench.wait_until(started, f"{slow.name} works on the first one")
    await bench.worker()
    await bench.redis.lpush(pending, payload)

    async def acknowledged() -> bool:
        return bench.count(Event.ACK_SENT) > 0

    async def held_back() -> bool:
        return bench.count(Event.NAK) > 0

    if bench.measures.done_store:
        await bench.wait_until(held_back, "the second one is held back")
        await bench.kill(slow)
        await bench.wait_until_done(1)
    else:
        await bench.wait_until_done(1)
        await bench.wait_until(acknowledged, "the second one is acknowledged")
        await bench.kill(slow)
    if bench.measures.leases:  # the lease of the killed one ends, and the other takes its task
        await bench.quiesce()
    done = bench.count(Event.DONE)
    depth = await lists.depth()
    left = depth.pending + depth.in_flight
    skipped = bench.count(Event.SKIPPED)
    bench.note(f"2 equal payloads put, {done} executed, {skipped} skipped, {left} in the lists")
    lost = 2 - done - skipped - left
    if lost == 0:
        text = f"of 2 equal payloads {done} executed, {left} in a list"
        if skipped:
            text += f", {skipped} skipped as a copy of the other"
        return [Observation(text=text, protection=Protection.PREVENTED, count=2)]
    text = f"of 2 equal payloads {done} was executed, {left} are in a list, {lost} is gone"
    return [Observation(text=text, harm=Harm.LOST, count=lost, tasks=(str(task.id),))]


async def _requeued_twice(bench: Bench) -> list[Observation]:
    """R5: a reaper requeues the task of a slow worker, whose own retry arrives afterwards.

    The guide has no reaper; an operator's script plays it. With leases it is that of the other
    worker, once the lease of the slow one has ended. The slow worker's script is held on the wire
    until the task is done by another worker.
    """
    await bench.enter(Phase.REDIS_ONLY)
    producer = await bench.producer()
    proxy = await bench.link("redis")
    work = f"{bench.names.work_key('sync')}*"  # of all scripts only the retry has it first
    rule = Rule(action="delay", direction="request", command="EVAL", key=work, delay_ms=60_000.0)
    number = await proxy.add(rule)
    stale = await bench.worker(handler="fail", redis_url=proxy.url("redis"), replaced=False)
    (task,) = bench.tasks(1)
    await producer.send(task)

    async def held() -> bool:
        return (await proxy.stats()).rules[0].firings > 0

    await bench.wait_until(held, f"the retry of {stale.name} is on the wire")
    stale.child.pause()
    lists = RedisSurvey(bench.redis, names=bench.names)
    if not bench.measures.leases:
        reaper = RedisListQueue(bench.redis, names=bench.names)
        _pending, (payload,) = await reaper.contents()
        requeued = await reaper.requeue(payload, payload)
        bench.note(f"the reaper requeued {requeued} task while the worker's retry is on its way")
    await bench.worker()
    await bench.wait_until_done(1)

    async def acknowledged() -> bool:
        return (await lists.depth()).in_flight == 0

    await bench.wait_until(acknowledged, "the task is done and acknowledged")
    before = await _removals(bench)
    await proxy.remove(number)

    async def arrived() -> bool:
        return await _removals(bench) > before

    await bench.wait_until(arrived, "the retry arrives")
    bench.note("the retry arrives")
    await bench.quiesce()
    return await bench.conclude()


async def _removals(bench: Bench) -> int:
    """How often LREM was called so far, in scripts or not."""
    (redis,) = bench.topology.redis.nodes
    calls = (await ask_node(redis, "INFO", "commandstats")).get("cmdstat_lrem", {})
    return int(calls.get("calls", 0))


async def _library_retries(bench: Bench) -> list[Observation]:
    """R8: the reply to LPUSH is lost, and redis-py as it is shipped sends it again.

    The reference client repeats nothing, in both designs; under the switch the producer is given
    a client with the library's defaults.
    """
    await bench.enter(Phase.REDIS_ONLY)
    proxy = await bench.link("redis")
    producer = await bench.producer(redis_url=proxy.url("redis"))
    # RESP3, which newer versions of the library prefer, is not parsed by the proxy.
    defaults = bench.has(LIBRARY_DEFAULTS)
    port = proxy.ports["redis"]
    client = redis_asyncio.Redis(host=LOOPBACK, port=port, protocol=2) if defaults else None
    if client is not None:
        producer.service = ReceiveSyncService(
            client,  # type: ignore[arg-type]  # redis-py's own hints are wider than the Protocol
            names=bench.names,
            recorder=producer.ledger,
        )
    await proxy.add(Rule(action="drop", direction="reply", command="LPUSH", then="reset"))
    (task,) = bench.tasks(1)
    told = await producer.send(task)

    async def lost() -> bool:
        return (await proxy.stats()).rules[0].firings > 0

    if bench.measures.outbox:  # it puts the task after the caller was told, and once more
        await bench.wait_until(lost, "the reply to LPUSH is lost")
        await bench.wait_until(producer.swept, "the outbox has an answer")
    entries = await bench.redis.llen(bench.names.pending_key("sync"))
    dropped = (await proxy.stats()).rules[0].firings
    if not dropped:
        raise HazardError("no reply to LPUSH was dropped")
    bench.note(
        f"sent once, {dropped} replies dropped, {'accepted' if told else 'no answer'}: {entries}"
        " entries in the list"
    )
    if client is not None:
        await client.aclose()
    if not dropped or (defaults and entries < 2):  # noqa: PLR2004 - sent, and sent again
        raise HazardError(f"{dropped} replies to LPUSH dropped, {entries} entries")
    await bench.worker()
    await bench.quiesce()
    found = Observation(text=f"one task sent once is {entries} entries of the list", count=entries)
    return [found, *await bench.conclude()]


ROWS = (
    Hazard(
        id="R4",
        where="Redis ack",
        mechanism="LREM with count 0 removes both of two equal payloads",
        harm=Harm.LOST,
        scenario=_equal_payloads,
    ),
    Hazard(
        id="R5",
        where="Redis retry",
        mechanism="the retry script pushes although LREM removed nothing",
        harm=Harm.DUPLICATED,
        scenario=_requeued_twice,
    ),
    Hazard(
        id="R8",
        where="Redis write",
        mechanism="the reply to LPUSH is lost, and the client library sends it again",
        harm=Harm.DUPLICATED,
        scenario=_library_retries,
        switches=(LIBRARY_DEFAULTS,),
    ),
)
