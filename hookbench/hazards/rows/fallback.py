"""The fallback of phase 2: what it runs again, does not see, or sees too late."""

import asyncio

from hookbench.errors import HazardError
from hookbench.faults.wire.client import ProxyControl
from hookbench.faults.wire.model import Rule
from hookbench.hazards.bench import Bench
from hookbench.hazards.model import Harm, Hazard, Observation
from hookbench.hazards.producer import Producer
from hookbench.hazards.watching import (
    accepted_are_done,
    come_to_rest,
    first_ns,
    seen,
    wait_until_not_put,
    wait_until_read,
)
from hookbench.ledger.events import Broker, Event
from hookbench.migration.phases import Phase
from hookbench.task import HookTask

__all__ = ["ROWS"]

_FINISHED = 20
_UNSEEN = 3
_STALLING_S = 2.0


async def _runs_again(bench: Bench) -> list[Observation]:
    """P8: twenty tasks are done by NATS, then NATS is killed, and the workers read Redis.

    Where the copies are not executed, a further task that Redis alone takes shows that it is read.
    """
    await bench.enter(Phase.DUAL_READ)
    producer = await bench.producer()
    await bench.worker()
    accepted = await producer.send_all(bench.tasks(_FINISHED))
    await wait_until_read(bench)
    await bench.wait_until_done(accepted)
    copies = await bench.redis.llen(bench.names.pending_key("sync"))
    bench.note(f"{accepted} tasks done by NATS, {copies} copies in Redis")
    await _kill_nats(bench)
    await _prove_fallback(bench, producer)
    await bench.quiesce()
    bench.note(f"{bench.count(Event.DONE)} executions after the outage")
    bench.note(f"{bench.count(Event.SKIPPED)} copies skipped")
    bench.topology.nats.nodes[0].restart()
    kept = Observation(
        text=f"Redis kept {copies} copies of {accepted} finished tasks", count=copies
    )
    return [kept, *await bench.conclude()]


async def _prove_fallback(bench: Bench, producer: Producer) -> None:
    """Put a task that Redis alone takes, and wait until the fallback has read it.

    Not needed where copies of finished tasks are executed, for then these show it.
    """
    if not (bench.measures.done_store or bench.measures.trim):
        return

    async def disconnected() -> bool:
        return not (await producer.connections.nats()).client.is_connected

    await bench.wait_until(disconnected, "the producer has lost NATS")
    (task,) = bench.tasks(1)
    if not await producer.send(task):
        raise HazardError("Redis did not take a task while NATS was away")

    async def read() -> bool:
        return str(task.id) in first_ns(bench.ledger(), Event.DONE)

    await bench.wait_until(read, "a task that Redis alone has is read during the outage")


async def _never_read(bench: Bench) -> list[Observation]:
    """P9: publishes fail on the producer's link alone, and the workers' NATS reads go on."""
    producer, proxy = await _dual_read_over_a_link(bench)
    await _put_on_redis_alone(bench, producer, proxy, bench.tasks(_UNSEEN))
    await wait_until_not_put(bench, Broker.NATS)
    later = await producer.send_all(bench.tasks(_UNSEEN))
    bench.note(f"{later} tasks accepted by both brokers")
    await bench.wait_until(producer.swept, "the outbox is empty")
    if bench.measures.reconcile or bench.measures.outbox:
        await bench.wait_until(lambda: accepted_are_done(bench), "every accepted task is done")
    await wait_until_read(bench)
    await come_to_rest(bench)
    return await bench.conclude()


async def _reordered(bench: Bench) -> list[Observation]:
    """P11: a task gets to Redis alone, a later one is done by NATS, then reads fall back.

    So the first is started after the second, both of one repository. An outbox sends the second
    not before the first, and with Redis read beside NATS the first may be done there.
    """
    producer, proxy = await _dual_read_over_a_link(bench)
    (earlier,) = bench.tasks(1)
    await _put_on_redis_alone(bench, producer, proxy, [earlier])
    (later,) = bench.tasks(1)  # made now: ids tell the order of what is made in different ms
    if not await producer.send(later):
        raise HazardError("the later task was not accepted, although publishes get through")
    _check_on_redis_alone(bench, earlier)
    bench.note("a later task of the same repository is accepted")
    await bench.wait_until(producer.swept, "the outbox is empty")
    await wait_until_read(bench)

    async def done() -> bool:
        return str(later.id) in first_ns(bench.ledger(), Event.DONE)

    await bench.wait_until(done, "the later task is done")
    await _kill_nats(bench)
    await _prove_fallback(bench, producer)
    await bench.quiesce()
    bench.topology.nats.nodes[0].restart()
    return await bench.conclude(max_inversions=0)


def _check_on_redis_alone(bench: Bench, task: HookTask) -> None:
    """That NATS has not taken it, and no worker has it from Redis."""
    ledger, key = bench.ledger(), str(task.id)
    if key in first_ns(ledger, Event.PUT_OK, broker=Broker.NATS):
        raise HazardError(f"task {key} was to be on Redis alone, and NATS has taken it")
    if key in first_ns(ledger, Event.RECEIVED):
        raise HazardError(f"task {key} was to wait on Redis, and a worker has received it")


async def _sees_nothing_new(bench: Bench) -> list[Observation]:
    """P12: a worker of phase 2 has lost NATS, and producers of phase 3 write nothing else.

    It reads Redis all the time, where nothing new arrives, for the two seconds that are watched.
    """
    await bench.enter(Phase.DUAL_READ)
    proxy = await bench.link("nats")
    old = await bench.worker("--ack-wait", "1", nats_url=proxy.url("nats"))
    if bench.gated:
        await bench.producer()  # a gate asks whether there is one
    await bench.enter(Phase.NATS_PRIMARY, workers=[])
    bench.note(f"{old.name} stays in dual_read")
    producer = await bench.producer()
    await proxy.add(Rule(action="partition", refuse=True))
    await proxy.add(Rule(action="cut", direction="request", command="Fetch", count=0))
    before = bench.count(Event.RECEIVED)
    tasks = bench.tasks(_UNSEEN)
    accepted = await producer.send_all(tasks)
    bench.note(f"{accepted} tasks accepted by NATS")

    async def received() -> bool:
        return bench.count(Event.RECEIVED) > before

    found = []
    if not await seen(bench, received, _STALLING_S):
        waiting = tuple(str(task.id) for task in tasks if _waits(bench, task))
        text = f"{len(waiting)} tasks waited {_STALLING_S:g} s for a worker that reads Redis"
        found.append(Observation(text=text, harm=Harm.STALLED, count=len(waiting), tasks=waiting))
    await proxy.heal()
    await bench.wait_until_done(accepted)
    bench.note("the link is whole again, and they are done")
    return [*found, *await bench.conclude()]


def _waits(bench: Bench, task: HookTask) -> bool:
    return str(task.id) not in first_ns(bench.ledger(), Event.RECEIVED)


async def _dual_read_over_a_link(bench: Bench) -> tuple[Producer, ProxyControl]:
    """Phase 2, its producer's NATS behind a proxy and the worker's not."""
    await bench.enter(Phase.DUAL_READ)
    proxy = await bench.link("nats")
    producer = await bench.producer(nats_url=proxy.url("nats"))
    await bench.worker()
    return producer, proxy


async def _put_on_redis_alone(
    bench: Bench, producer: Producer, proxy: ProxyControl, tasks: list[HookTask]
) -> None:
    """Put tasks while each publish breaks the producer's connection to NATS."""
    subject = bench.names.subject("sync")
    rules = [
        Rule(action="reset", direction="request", command=command, subject=subject, count=0)
        for command in ("PUB", "HPUB")  # without and with a Nats-Msg-Id
    ]
    numbers = [await proxy.add(rule) for rule in rules]
    accepted = sum(await asyncio.gather(*(producer.send(task) for task in tasks)))

    async def cut() -> bool:
        return any(rule.firings for rule in (await proxy.stats()).rules)

    await bench.wait_until(cut, "a publish breaks its connection")

    async def on_redis() -> bool:  # by what it said, for a worker may have taken them since
        taken = first_ns(bench.ledger(), Event.PUT_OK, broker=Broker.REDIS)
        return all(str(task.id) in taken for task in tasks)

    await bench.wait_until(on_redis, "Redis has them")
    for number in numbers:
        await proxy.remove(number)
    bench.note(f"{accepted} tasks accepted while publishes failed")

    async def connected() -> bool:
        return (await producer.connections.nats()).client.is_connected

    await bench.wait_until(connected, "the producer is connected to NATS again")


async def _kill_nats(bench: Bench) -> None:
    (nats,) = bench.topology.nats.nodes
    nats.kill()
    bench.note("NATS killed")


ROWS = (
    Hazard(
        id="P8",
        where="phase 2",
        mechanism="Redis copies are never trimmed, and on a fallback every finished task runs"
        " again",
        harm=Harm.DUPLICATED,
        scenario=_runs_again,
    ),
    Hazard(
        id="P9",
        where="phase 2",
        mechanism="only a failed read falls back, so a task that Redis alone took is never read",
        harm=Harm.STUCK,
        scenario=_never_read,
    ),
    Hazard(
        id="P11",
        where="phase 2",
        mechanism="a fallback that comes and goes reorders the tasks of a repository",
        harm=Harm.REORDERED,
        scenario=_reordered,
    ),
    Hazard(
        id="P12",
        where="phase 2 to 3",
        mechanism="old workers that have fallen back to Redis see nothing of what producers write"
        " to NATS alone",
        harm=Harm.STALLED,
        scenario=_sees_nothing_new,
        held_by=("reroute_workers", "homogeneous fleet"),
    ),
)
