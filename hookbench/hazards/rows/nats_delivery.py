"""NATS deliveries: given up, starved and repeated."""

import signal

from nats.aio.msg import Msg

from hookbench.clock import NS_PER_MS, NS_PER_S
from hookbench.errors import HazardError
from hookbench.hazards.bench import Bench
from hookbench.hazards.findings import EXAMPLES
from hookbench.hazards.model import Harm, Hazard, Observation
from hookbench.hazards.watching import depth_of, first_ns, seen, wait_until_read
from hookbench.ledger.events import Event
from hookbench.migration.phases import AckMode, Phase
from hookbench.queues.epochs import current_consumer
from hookbench.worker.scan import OpenState, scan_stream

__all__ = ["ROWS"]

_ACK_WAIT_S = 0.5
_LEASE_S = 1.0
_DELIVERIES = 3
"""The guide's max-deliver."""
_MORE_DELIVERIES = 10
_GIVEN_UP = 3
"""Tasks whose workers die; each worker has all of them in hand."""
_ACK_PENDING = 100
"""The guide's max-pending."""
_STARVING_S = 2.0
_OUTAGE_S = 1.0
"""Of a dependency; an immediate nak has used up the deliveries in a hundredth of it."""
_AFTER_PROCESSING = ("ack_after",)


async def _given_up(bench: Bench) -> list[Observation]:
    """N3: three workers, one after the other, are killed with the same three tasks in hand.

    The tasks stay in the stream with nothing pending, so the account has them as stuck; they are
    gone for good when max-age passes. Afterwards max-deliver is raised, which revives none.

    A worker that counts attempts itself buries them when they come for the fourth time.
    """
    await bench.enter(Phase.NATS_PRIMARY)
    producer = await bench.producer()
    advised: list[bytes] = []

    async def on_advisory(message: Msg) -> None:
        advised.append(message.data)

    names = bench.names
    subject = f"$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.{names.stream}.*"
    await (await bench.nats()).client.subscribe(subject, cb=on_advisory)
    tasks = bench.tasks(_GIVEN_UP)
    accepted = await producer.send_all(tasks)
    bench.note(f"{accepted} tasks accepted")
    for number in range(1, _DELIVERIES + 1):
        if not await _killed_at_work(bench, started=number * len(tasks)):
            if bench.ack is AckMode.AFTER_PROCESSING:
                raise HazardError(f"worker {number} of {_DELIVERIES} was given nothing to work on")
            break
    early = await seen(bench, lambda: _has(advised, 1), 2 * _ACK_WAIT_S)
    bench.note(f"{len(advised)} advisories before anybody pulls again")
    await bench.worker("--ack-wait", str(_ACK_WAIT_S), "--lease", str(_LEASE_S))
    await wait_until_read(bench)
    await seen(bench, lambda: _has(advised, len(tasks)), _ACK_WAIT_S)
    bench.note(f"nothing pending, nothing unacknowledged; {len(advised)} advisories")
    found = await bench.conclude()
    if advised:
        when = "before" if early else "only after"
        kept = "no stream keeps them"
        if bench.measures.advisories:
            report = await scan_stream(await bench.nats(), done=None, clock=bench.clock)
            given_up = report.open.get(OpenState.GIVEN_UP, 0)
            kept = f"{report.advisories} are kept, and a scan lists {given_up} tasks as given up"
        text = f"{len(advised)} advisories, {when} a later pull; {kept}"
        found.append(Observation(text=text, count=len(advised)))
    if any(item.harm is Harm.STUCK for item in found):
        found.append(await _raise_max_deliver(bench))
    dead = first_ns(bench.ledger(), Event.DEAD)
    if dead:
        text = f"{len(dead)} dead letters about tasks whose {_DELIVERIES} workers were killed"
        found.append(Observation(text=text, count=len(dead), tasks=tuple(dead)[:EXAMPLES]))
    return found


async def _has(items: list[bytes], count: int) -> bool:
    return len(items) >= count


async def _killed_at_work(bench: Bench, *, started: int) -> bool:
    """Start a worker, and kill it in the middle; whether it was given anything to work on."""
    worker = await bench.worker(
        "--ack-wait",
        str(_ACK_WAIT_S),
        "--lease",
        str(_LEASE_S),
        "--sleep-ms",
        "60000",
        handler="sleep",
        concurrency=_GIVEN_UP,
        replaced=False,
    )

    async def at_work() -> bool:
        return bench.count(Event.STARTED) >= started

    async def at_work_or_idle() -> bool:
        depth = await depth_of(bench)
        return await at_work() or (depth.pending, depth.in_flight) == (0, 0)

    await bench.wait_until(at_work_or_idle, "the worker has its tasks, or there are none")
    await bench.kill(worker)
    return await at_work()


async def _raise_max_deliver(bench: Bench) -> Observation:
    """Raise max-deliver, and let a worker look for what was given up."""
    jetstream = (await bench.nats()).jetstream
    names = bench.names
    durable = await current_consumer(await bench.nats())
    config = (await jetstream.consumer_info(names.stream, durable)).config
    given_up = int(config.max_deliver or 0)
    config.max_deliver = _MORE_DELIVERIES
    await jetstream.add_consumer(names.stream, config)
    before = bench.count(Event.STARTED)
    await bench.worker("--ack-wait", str(_ACK_WAIT_S), "--max-deliver", str(_MORE_DELIVERIES))

    async def revived() -> bool:
        return bench.count(Event.STARTED) > before

    await seen(bench, revived, 2 * _ACK_WAIT_S)
    again = bench.count(Event.STARTED) - before
    return Observation(
        text=f"max-deliver raised from {given_up} to {_MORE_DELIVERIES}: {again} tasks revived",
        count=again,
    )


async def _burnt(bench: Bench) -> list[Observation]:
    """N4: a dependency is down for a second, and no task is left when it is back.

    In the reference code the third failure makes a task a dead letter, which the guide does not
    have: there the third nak leaves it as in N3. Either way no delivery is left.

    The second is counted from when every task has failed, and not by when nothing happens: delays
    that grow to seconds would make the outage longer, until it outlasts any number of them.
    """
    await bench.enter(Phase.NATS_PRIMARY)
    producer = await bench.producer()
    down = await bench.worker(handler="fail")
    tasks = bench.tasks(10)
    accepted = await producer.send_all(tasks)
    bench.note(f"{accepted} tasks accepted, the dependency is down")

    async def all_tried() -> bool:
        return len(first_ns(bench.ledger(), Event.FAILED)) >= len(tasks)

    await bench.wait_until(all_tried, "every task failed at least once")
    await bench.clock.sleep(_OUTAGE_S)
    await bench.stop(down)
    bench.note(f"the dependency is back, after {bench.count(Event.FAILED)} failures")
    await bench.worker()
    await wait_until_read(bench)
    await bench.quiesce()
    ledger = bench.ledger()
    started, dead = first_ns(ledger, Event.STARTED), first_ns(ledger, Event.DEAD)
    found = await bench.conclude()
    if dead:
        spans_ms = sorted((dead[task] - started[task]) / NS_PER_MS for task in dead)
        text = (
            f"{len(dead)} tasks had used up {_DELIVERIES} deliveries"
            f" {spans_ms[len(spans_ms) // 2]:.1f} ms (median; {spans_ms[-1]:.1f} at most) after"
            f" their first start; {bench.count(Event.DONE)} were done when the dependency was back"
        )
        found.append(
            Observation(text=text, harm=Harm.FAILED, count=len(dead), tasks=tuple(dead)[:EXAMPLES])
        )
    return found


async def _starved(bench: Bench) -> list[Observation]:
    """N5: a worker that hangs with 100 tasks in hand leaves nothing to the idle one beside it.

    It is stopped by SIGSTOP in the middle of its work, and goes on when that was looked at for
    two seconds; the guide's AckWait would have let the others wait for 30 s.
    """
    await bench.enter(Phase.NATS_PRIMARY)
    producer = await bench.producer()
    hung = await bench.worker(
        "--sleep-ms", "3000", handler="sleep", concurrency=_ACK_PENDING, replaced=False
    )
    tasks = bench.tasks(_ACK_PENDING + 10)
    accepted = await producer.send_all(tasks)
    bench.note(f"{accepted} tasks accepted")
    in_flight = 0 if bench.ack is AckMode.IMMEDIATE else _ACK_PENDING

    async def full() -> bool:
        depth = await depth_of(bench)
        return bench.count(Event.STARTED) >= _ACK_PENDING and depth.in_flight == in_flight

    await bench.wait_until(full, f"{hung.name} has {_ACK_PENDING} tasks")
    hung.child.pause()
    bench.note(f"{hung.name} stopped by SIGSTOP")
    await bench.worker()

    async def served() -> bool:
        return bench.count(Event.STARTED) > _ACK_PENDING

    found = []
    if not await seen(bench, served, _STARVING_S):
        depth = await depth_of(bench)
        received = first_ns(bench.ledger(), Event.RECEIVED)
        waiting = [str(task.id) for task in tasks if str(task.id) not in received]
        text = (
            f"{depth.pending} tasks waited {_STARVING_S:g} s beside an idle worker:"
            f" {depth.in_flight} unacknowledged ones of a hung worker are all that may be"
        )
        found.append(
            Observation(
                text=text, harm=Harm.STALLED, count=depth.pending, tasks=tuple(waiting[:EXAMPLES])
            )
        )
    hung.child.signal(signal.SIGCONT)
    await bench.wait_until_done(len(tasks))
    return [*found, *await bench.conclude()]


async def _delivered_again(bench: Bench) -> list[Observation]:
    """N6: a task of 1.5 s under an AckWait of 0.5 s is delivered again while it runs.

    The acknowledgement of the stale attempt removes the task under the worker that has it now. And
    a third delivery, overdue since nobody pulled, may overtake it: the server can answer the next
    pull of the worker that has just acknowledged before it has seen to the acknowledgement.
    """
    await bench.enter(Phase.NATS_PRIMARY)
    producer = await bench.producer()
    for _ in range(2):
        await bench.worker("--ack-wait", str(_ACK_WAIT_S), "--sleep-ms", "1500", handler="sleep")
    await producer.send_all(bench.tasks(1))
    await bench.wait_until_done(1)

    async def acknowledged() -> bool:
        depth = await depth_of(bench)
        return bench.count(Event.ACK_SENT) > 0 and (depth.pending, depth.in_flight) == (0, 0)

    await bench.wait_until(acknowledged, "the first execution is acknowledged")
    running = bench.count(Event.STARTED) - bench.count(Event.DONE)
    bench.note(f"acknowledged, {running} executions still running")

    async def all_ended() -> bool:
        return bench.count(Event.DONE) == bench.count(Event.STARTED)

    await bench.wait_until(all_ended, "every execution ends")
    await bench.quiesce()
    if not _outlasted(bench):
        raise HazardError(f"no execution took longer than the AckWait of {_ACK_WAIT_S} s")
    found = await bench.conclude()
    if running:
        text = f"the first acknowledgement removed the task, {running} of its executions still ran"
        found.append(Observation(text=text, count=running))
    return found


def _outlasted(bench: Bench) -> bool:
    """Whether some task was at work for longer than AckWait."""
    ledger = bench.ledger()
    started, done = first_ns(ledger, Event.STARTED), first_ns(ledger, Event.DONE)
    return any(done[task] - started[task] > _ACK_WAIT_S * NS_PER_S for task in done)


ROWS = (
    Hazard(
        id="N3",
        where="phase 3",
        mechanism="after three deliveries without an answer a task stays in the stream, pending"
        " nowhere, and one advisory that nobody stored says so",
        harm=Harm.STUCK,
        scenario=_given_up,
        switches=_AFTER_PROCESSING,
        masked_by="P10",
    ),
    Hazard(
        id="N4",
        where="phase 3",
        mechanism="an immediate nak uses up all three deliveries in milliseconds",
        harm=Harm.FAILED,
        scenario=_burnt,
        switches=_AFTER_PROCESSING,
        masked_by="P10",
    ),
    Hazard(
        id="N5",
        where="phase 3",
        mechanism="100 unacknowledged tasks of one hung worker starve every other worker",
        harm=Harm.STALLED,
        scenario=_starved,
        switches=_AFTER_PROCESSING,
        masked_by="P10",
    ),
    Hazard(
        id="N6",
        where="phase 3",
        mechanism="a task that takes longer than AckWait is delivered again while it runs",
        harm=Harm.DUPLICATED,
        scenario=_delivered_again,
        switches=_AFTER_PROCESSING,
        masked_by="P10",
    ),
)
