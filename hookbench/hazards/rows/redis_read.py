"""Redis reads: what becomes of a task between the list and the worker."""

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from hookbench.brokers.redis_nodes import ask_node
from hookbench.errors import HazardError
from hookbench.faults.wire.client import ProxyControl
from hookbench.faults.wire.model import Rule
from hookbench.hazards.bench import Bench
from hookbench.hazards.model import Harm, Hazard, Observation
from hookbench.hazards.producer import Producer
from hookbench.ledger.events import Event
from hookbench.migration.consumer import RedisConsumer
from hookbench.migration.phases import Phase

if TYPE_CHECKING:
    from hookbench.migration.received import Received

__all__ = ["ROWS"]

_RACES = 160
_TRIES = 20
_MAX_STEPS = 32
"""Steps of the event loop between the push and the cancellation; each number in its turn."""


async def _reply_lost(bench: Bench) -> list[Observation]:
    """R1: the proxy forwards the third read of a task, drops its reply and breaks the connection.

    The guide reads by BLMOVE. With leases a script claims what is there, and BLMOVE waits for what
    is not: of that one a reply is lost in a second part, to a worker that waits.
    """
    await bench.enter(Phase.REDIS_ONLY)
    producer = await bench.producer()
    accepted = await producer.send_all(bench.tasks(5))
    bench.note(f"{accepted} tasks accepted")
    proxy = await bench.link("redis")
    leases = bench.measures.leases
    claim = ("EVALSHA", bench.names.pending_key("sync")) if leases else ("BLMOVE", None)
    await proxy.add(_lost_reply(*claim, nth=3))
    await bench.worker(redis_url=proxy.url("redis"))
    await bench.quiesce()
    dropped = (await proxy.stats()).rules[0].firings
    bench.note(f"{dropped} replies dropped, {bench.count(Event.DONE)} tasks done")
    if not dropped:
        raise HazardError("no reply to a read was dropped")
    if leases:
        if not bench.count(Event.REQUEUED):
            raise HazardError("the reply that was dropped brought no task")
        await _wait_lost(bench, proxy, producer)
    return await bench.conclude()


def _lost_reply(command: str, key: str | None, *, nth: int = 1) -> Rule:
    return Rule(action="drop", direction="reply", command=command, key=key, nth=nth, then="reset")


async def _wait_lost(bench: Bench, proxy: ProxyControl, producer: Producer) -> None:
    """The reply to a BLMOVE that brings a task is lost; one that brings none proves nothing."""
    for _ in range(_TRIES):
        rule = _lost_reply("BLMOVE", None)
        number = await proxy.add(rule)
        done = bench.count(Event.DONE)
        requeued = bench.count(Event.REQUEUED)
        await producer.send_all(bench.tasks(1))
        await bench.wait_until_done(done + 1)
        await proxy.remove(number)
        if bench.count(Event.REQUEUED) > requeued:
            bench.note("a reply to BLMOVE with a task in it dropped: the worker found the task")
            return
    raise HazardError(f"no reply to BLMOVE with a task in it was dropped in {_TRIES} tries")


async def _read_cancelled(bench: Bench) -> list[Observation]:
    """R2: reads that wait in BLMOVE are cancelled just when a task is pushed.

    What reads did return before they were cancelled is put back in the end, for a worker.
    """
    await bench.enter(Phase.REDIS_ONLY)
    producer = await bench.producer()
    (redis,) = bench.topology.redis.nodes
    pending = bench.names.pending_key("sync")

    async def waits() -> bool:
        return bool((await ask_node(redis, "INFO", "clients"))["blocked_clients"])

    reads = bench.redis_reads()
    leases = bench.measures.leases

    def read() -> RedisConsumer:
        consumer = RedisConsumer(bench.redis, block_timeout_secs=5.0, names=bench.names)
        consumer.redis_queue = reads.queue
        return consumer

    cancelled = 0
    returned: list[Received] = []
    for number, task in enumerate(bench.tasks(_RACES)):
        consumer = read()
        reading = asyncio.ensure_future(consumer.receive("sync", 1))
        await bench.wait_until(waits, "the read waits in BLMOVE")
        sending = asyncio.ensure_future(producer.send(task))
        for _ in range(number % _MAX_STEPS):
            await asyncio.sleep(0)
        reading.cancel()
        await sending
        received: list[Received] = []
        with suppress(asyncio.CancelledError):
            received = await reading
        cancelled += not received
        returned += received
        # With leases a cancelled read goes on, and the next one gets what it brings. In the guide
        # the task may still be there, if the read was cancelled before the push.
        if (leases and not received) or await bench.redis.llen(pending):
            returned += await consumer.receive("sync", 1)
    for item in returned:
        await item.delivery.nak()
    await reads.close()
    bench.note(f"{cancelled} of {_RACES} reads were cancelled, {len(returned)} tasks put back")
    if not cancelled:
        raise HazardError("no read was cancelled before it returned")
    await bench.worker(concurrency=8)
    await bench.quiesce()
    return await bench.conclude()


async def _killed_in_between(bench: Bench) -> list[Observation]:
    """R3: the third task is taken, and its worker dies of SIGKILL before LREM."""
    await bench.enter(Phase.REDIS_ONLY)
    producer = await bench.producer()
    worker = await bench.worker(replaced=True)
    await bench.die_at(worker, "start:3")
    accepted = await producer.send_all(bench.tasks(10))
    bench.note(f"{accepted} tasks accepted")

    async def dead() -> bool:
        return bool(bench.fleet.incidents)

    await bench.wait_until(dead, "the worker dies at its third task")
    bench.note(bench.fleet.incidents[0].what)
    await bench.quiesce()
    bench.note(f"{bench.count(Event.DONE)} tasks done by the worker and the one in its place")
    return await bench.conclude()


ROWS = (
    Hazard(
        id="R1",
        where="Redis read",
        mechanism="the reply to BLMOVE is lost: the task lies in the work list, and nobody has it",
        harm=Harm.STUCK,
        scenario=_reply_lost,
    ),
    Hazard(
        id="R2",
        where="Redis read",
        mechanism="the cancellation of a read that waits in BLMOVE races with a push",
        harm=Harm.STUCK,
        scenario=_read_cancelled,
    ),
    Hazard(
        id="R3",
        where="Redis read",
        mechanism="a worker killed between BLMOVE and LREM leaves its task in the work list, which"
        " nothing reads",
        harm=Harm.STUCK,
        scenario=_killed_in_between,
    ),
)
