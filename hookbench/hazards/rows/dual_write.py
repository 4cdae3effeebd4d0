"""Dual writes: one broker has a task, and the other has not."""

import asyncio
import signal

from hookbench.brokers.embedded import EmbeddedBroker
from hookbench.hazards.bench import Bench
from hookbench.hazards.model import Harm, Hazard, Observation
from hookbench.hazards.watching import (
    accepted_are_done,
    come_to_rest,
    wait_until_not_put,
    wait_until_read,
)
from hookbench.ledger.events import Broker, Event
from hookbench.migration.phases import Phase

__all__ = ["ROWS"]

_COUNT = 5


async def _old_producer(bench: Bench) -> list[Observation]:
    """P1: of two producers one still writes Redis only when the workers read NATS already."""
    await bench.enter(Phase.REDIS_ONLY)
    old = await bench.producer(hears=False)
    await bench.worker()
    await bench.enter(Phase.DUAL_WRITE)
    new = await bench.producer()
    await bench.enter(Phase.DUAL_READ)
    by_new = await new.send_all(bench.tasks(_COUNT))
    by_old = await old.send_all(bench.tasks(_COUNT))
    bench.note(f"{by_new} tasks accepted of the new producer, {by_old} of the old one")
    await wait_until_read(bench)
    await come_to_rest(bench)
    return await bench.conclude()


async def _nats_fails(bench: Bench) -> list[Observation]:
    """P2: NATS is killed while a backlog is written, so a part of it is in Redis only.

    The caller was told that all is well, for one of two writes is enough. What the workers of
    phase 1 do not get to before the switch is then missing in NATS.
    """
    await bench.enter(Phase.DUAL_WRITE)
    producer = await bench.producer()
    both = await producer.send_all(bench.tasks(_COUNT))
    (nats,) = bench.topology.nats.nodes
    _kill(bench, nats)
    alone = await producer.send_all(bench.tasks(_COUNT))
    await wait_until_not_put(bench, Broker.NATS)
    bench.note(f"{both} tasks accepted before NATS was killed, {alone} while it was away")
    _start(bench, nats)
    await bench.enter(Phase.DUAL_READ)
    await bench.worker()
    await bench.wait_until(producer.swept, "the outbox is empty")
    if bench.measures.reconcile or bench.measures.outbox:
        await bench.wait_until(lambda: accepted_are_done(bench), "every accepted task is done")
    await wait_until_read(bench)
    await bench.quiesce()
    return await bench.conclude()


async def _redis_fails(bench: Bench) -> list[Observation]:
    """P3: Redis is killed while tasks are written, so they are in NATS only, which nobody reads.

    They would run at the switch to phase 2, whenever that is.
    """
    await bench.enter(Phase.DUAL_WRITE)
    await bench.worker()
    producer = await bench.producer()
    both = await producer.send_all(bench.tasks(_COUNT))
    await bench.wait_until_done(both)
    (redis,) = bench.topology.redis.nodes
    _kill(bench, redis)
    alone = await producer.send_all(bench.tasks(_COUNT))
    await wait_until_not_put(bench, Broker.REDIS)
    bench.note(f"{both} tasks accepted before Redis was killed, {alone} while it was away")
    _start(bench, redis)
    after = await producer.send_all(bench.tasks(_COUNT))
    await bench.wait_until(producer.swept, "the outbox is empty")
    await bench.wait_until_done(both + after)
    await bench.quiesce()
    return await bench.conclude()


async def _ghost(bench: Bench) -> list[Observation]:
    """P4: NATS is stopped during a publish: a timeout, and the task is stored when it goes on.

    The caller was told neither yes nor no, so it sends the task again.
    """
    await bench.enter(Phase.NATS_PRIMARY)
    producer = await bench.producer()
    await bench.worker()
    (nats,) = bench.topology.nats.nodes
    (task,) = bench.tasks(1)
    nats.pause()
    bench.note("NATS stopped by SIGSTOP")
    sending = asyncio.ensure_future(producer.send(task))
    await wait_until_not_put(bench, Broker.NATS)
    if not (bench.measures.message_ids or bench.measures.outbox):
        await sending  # the guide tries once
    nats.child.signal(signal.SIGCONT)
    told = await sending
    doubtful = bench.count(Event.DOUBTFUL)
    bench.note(f"sent: {'accepted' if told else 'no answer'}, {doubtful} callers in doubt")

    async def received() -> bool:
        return bench.count(Event.RECEIVED) > 0

    await bench.wait_until(received, "the task whose publish had no answer is delivered")
    bench.note("NATS goes on, and delivers it")
    ghosts = [] if told else [task]
    if ghosts:
        again = await producer.send(task)
        bench.note(f"sent again: {'accepted' if again else 'not accepted'}")
    await bench.wait_until(producer.swept, "the outbox is empty")
    await wait_until_read(bench)
    await bench.quiesce()
    stored = (await (await bench.nats()).jetstream.stream_info(bench.names.stream)).state.messages
    text = (
        f"{len(ghosts)} publishes without an answer whose task was stored and delivered, and sent"
        f" again by the caller; {stored} copies in the stream"
    )
    found = Observation(text=text, count=len(ghosts), tasks=tuple(str(item.id) for item in ghosts))
    return [found, *await bench.conclude()]


def _kill(bench: Bench, broker: EmbeddedBroker) -> None:
    broker.kill()
    bench.note(f"{broker.name} killed")


def _start(bench: Bench, broker: EmbeddedBroker) -> None:
    broker.restart()
    bench.note(f"{broker.name} started again")


ROWS = (
    Hazard(
        id="P1",
        where="phase 0 to 1",
        mechanism="some producers still write Redis only, and nobody reads Redis any more once"
        " the workers read NATS",
        harm=Harm.STUCK,
        scenario=_old_producer,
        held_by=("reroute_producers", "no old producer"),
    ),
    Hazard(
        id="P2",
        where="phase 1",
        mechanism="Redis takes a task and NATS does not: accepted, and missing once NATS is read",
        harm=Harm.STUCK,
        scenario=_nats_fails,
    ),
    Hazard(
        id="P3",
        where="phase 1",
        mechanism="NATS takes a task and Redis does not: accepted, not processed now, and a"
        " surprise later",
        harm=Harm.STUCK,
        scenario=_redis_fails,
    ),
    Hazard(
        id="P4",
        where="phases 1 to 3",
        mechanism="a publish ends in a timeout although the stream stores it; sent again, the task"
        " is there twice",
        harm=Harm.DUPLICATED,
        scenario=_ghost,
    ),
)
