"""Redis writes and acknowledgements: entries that go together, come back, or come twice."""

import signal

import redis.asyncio as redis_asyncio

from hookbench.brokers.embedded import LOOPBACK
from hookbench.errors import HazardError
from hookbench.faults.wire.model import Rule
from hookbench.hazards.bench import Bench
from hookbench.hazards.model import Harm, Hazard, Observation
from hookbench.ledger.events import Event
from hookbench.migration.phases import Phase
from hookbench.migration.producer import ReceiveSyncService
from hookbench.queues.redis_list import RedisListQueue
from hookbench.task import encode_task

__all__ = ["ROWS"]

LIBRARY_DEFAULTS = "redis-py=defaults"


async def _equal_payloads(bench: Bench) -> list[Observation]:
    """R4: two byte-equal payloads are in hand; one is acknowledged, the other's worker dies.

    The producer is a legacy one, outside of the reference code: its tasks have an id, since the
    reference code takes none without, but not a unique one. So they are told apart by nothing, and
    are counted instead: put, executed, and what the lists hold.
    """
    await bench.enter(Phase.REDIS_ONLY)
    (task,) = bench.tasks(1)
    payload = encode_task(task)
    pending, work = bench.names.pending_key("sync"), bench.names.work_key("sync")
    slow = await bench.worker("--sleep-ms", "60000", handler="sleep", replaced=False)
    await bench.redis.lpush(pending, payload)

    async def started() -> bool:
        return bench.count(Event.STARTED) > 0

    await bench.wait_until(started, f"{slow.name} works on the first one")
    await bench.worker()
    await bench.redis.lpush(pending, payload)
    await bench.wait_until_done(1)

    async def acknowledged() -> bool:
        return bench.count(Event.ACK_SENT) > 0

    await bench.wait_until(acknowledged, "the second one is acknowledged")
    await bench.kill(slow)
    done = bench.count(Event.DONE)
    left = await bench.redis.llen(pending) + await bench.redis.llen(work)
    bench.note(f"2 equal payloads put, {done} executed, {left} in the lists")
    lost = 2 - done - left
    text = f"of 2 equal payloads {done} was executed, {left} are in a list, {lost} is gone"
    return [Observation(text=text, harm=Harm.LOST, count=lost, tasks=(str(task.id),))]


async def _requeued_twice(bench: Bench) -> list[Observation]:
    """R5: a reaper requeues the task of a slow worker, whose own retry arrives afterwards.

    The guide has no reaper; an operator's script plays it. The slow worker's script is held on the
    wire until the task is done by another worker.
    """
    await bench.enter(Phase.REDIS_ONLY)
    producer = await bench.producer()
    proxy = await bench.link("redis")
    rule = Rule(action="delay", direction="request", command="EVAL", delay_ms=60_000.0)
    number = await proxy.add(rule)
    stale = await bench.worker(handler="fail", redis_url=proxy.url("redis"), replaced=False)
    (task,) = bench.tasks(1)
    await producer.send(task)

    async def held() -> bool:
        return (await proxy.stats()).rules[0].firings > 0

    await bench.wait_until(held, f"the retry of {stale.name} is on the wire")
    stale.child.signal(signal.SIGSTOP)
    reaper = RedisListQueue(bench.redis, names=bench.names)
    _pending, (payload,) = await reaper.contents()
    requeued = await reaper.requeue(payload, payload)
    bench.note(f"the reaper requeued {requeued} task while the worker's retry is on its way")
    await bench.worker()
    await bench.wait_until_done(1)

    async def acknowledged() -> bool:
        return (await reaper.depth()).in_flight == 0

    await bench.wait_until(acknowledged, "the task is done and acknowledged")
    await proxy.remove(number)
    bench.note("the retry arrives")
    await bench.quiesce()
    return await bench.conclude()


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
    entries = await bench.redis.llen(bench.names.pending_key("sync"))
    dropped = (await proxy.stats()).rules[0].firings
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
