"""What a scenario sees of its workers, of the consumer and of single tasks."""

import uuid
from collections.abc import Awaitable, Callable

from hookbench.brokers.nats_cluster import NatsCluster
from hookbench.clock import NS_PER_S
from hookbench.errors import HazardError
from hookbench.hazards.bench import Bench
from hookbench.hazards.model import Observation
from hookbench.ledger.events import NO_TASK, Broker, Event
from hookbench.ledger.read import Ledger
from hookbench.queues.base import Depth
from hookbench.queues.epochs import current_consumer, read_epoch
from hookbench.queues.jetstream import JetStreamQueue

__all__ = [
    "accepted_are_done",
    "accepted_have_ended",
    "cluster_of",
    "come_to_rest",
    "depth_of",
    "epoch_start",
    "first_ns",
    "refusal",
    "seen",
    "wait_until_not_put",
    "wait_until_read",
]

_POLL_S = 0.02
_READ_BOTH_S = 12.0
"""Well above the age at which ``read_both`` takes a task of Redis."""
_SAID_CHARACTERS = 2_000
_EXIT_REFUSED = 2
"""Of a ``hookbench`` command whose settings or environment do not suit, see ``cli/main.py``."""


def cluster_of(bench: Bench) -> NatsCluster:
    """The nodes of a scenario whose NATS is a cluster.

    Raises:
        HazardError: the row's topology has a single NATS.
    """
    group = bench.topology.nats
    if not isinstance(group, NatsCluster):
        raise HazardError(f"topology {bench.topology.name}: the row needs nats_cluster")
    return group


async def depth_of(bench: Bench) -> Depth:
    """What the consumer has not delivered, and what is not acknowledged.

    Raises:
        BrokerUnreachableError: no answer, or there is no consumer.
    """
    transport = await bench.nats()
    await transport.bind(bench.names.subject("sync"), await current_consumer(transport))
    return await JetStreamQueue(transport).depth()


async def epoch_start(bench: Bench) -> list[Observation]:
    """Where the consumer of the current epoch starts; nothing without epochs."""
    transport = await bench.nats()
    epoch, _revision = await read_epoch(transport, "sync")
    if epoch is None:
        return []
    last = (await transport.jetstream.stream_info(bench.names.stream)).state.last_seq
    text = (
        f"the consumer of epoch {epoch.number} starts at sequence {epoch.start_sequence}, and the"
        f" stream ends at {last}"
    )
    return [Observation(text=text, count=last + 1 - epoch.start_sequence)]


async def accepted_are_done(bench: Bench) -> bool:
    """Whether each task that was accepted so far was done at least once."""
    ledger = bench.ledger()
    return first_ns(ledger, Event.ACCEPTED).keys() <= first_ns(ledger, Event.DONE).keys()


async def accepted_have_ended(bench: Bench) -> bool:
    """Whether each task that was accepted so far is done, dead or superseded."""
    ledger = bench.ledger()
    ended: set[str] = set()
    for event in (Event.DONE, Event.DEAD, Event.SUPERSEDED):
        ended |= first_ns(ledger, event).keys()
    return first_ns(ledger, Event.ACCEPTED).keys() <= ended


async def wait_until_read(bench: Bench) -> None:
    """Until the consumer has delivered everything, and waits for no acknowledgement."""

    async def nothing_left() -> bool:
        depth = await depth_of(bench)
        return (depth.pending, depth.in_flight) == (0, 0)

    await bench.wait_until(nothing_left, "the consumer has nothing left")


async def wait_until_not_put(bench: Bench, broker: Broker, *, since_ns: int = 0) -> None:
    """Until a put on that broker has failed, or had no answer: what was done to it was felt.

    Args:
        bench: whose producers.
        broker: Redis or NATS.
        since_ns: only puts that ended after this (monotonic).
    """

    async def failed() -> bool:
        records = bench.ledger().records
        here = (records["broker"] == broker) & (records["time_ns"] > since_ns)
        bad = (records["event"] == Event.PUT_FAIL) | (records["event"] == Event.PUT_UNKNOWN)
        return bool((here & bad).any())

    await bench.wait_until(failed, f"a put on {broker.name.lower()} fails")


async def come_to_rest(bench: Bench) -> None:
    """Until nothing happens any more; with Redis read as well, not before it had its time."""
    if bench.measures.read_both:
        await seen(bench, lambda: accepted_have_ended(bench), _READ_BOTH_S)
    await bench.quiesce()


async def seen(bench: Bench, condition: Callable[[], Awaitable[bool]], seconds: float) -> bool:
    """Whether it came to be while somebody watched: at the first sight, or not in all the time."""
    deadline_ns = bench.clock.monotonic_ns() + int(seconds * NS_PER_S)
    while not await condition():
        bench.fleet.poll()
        if bench.clock.monotonic_ns() > deadline_ns:
            return False
        await bench.clock.sleep(_POLL_S)
    return True


async def refusal(bench: Bench, *options: str) -> str | None:
    """Start a worker that its brokers may not suit: why it ended, ``None`` if it works.

    Args:
        bench: whose brokers.
        options: of ``hookbench worker``.

    Raises:
        HazardError: it ended in another way than by an error that names what is wrong.
    """
    urls = ["--redis-url", bench.topology.redis_url, "--nats-url", bench.topology.nats_url]
    measures = ["--measures", bench.measures.text]
    member = bench.launch([*urls, *measures, "--ack", bench.ack, *options])
    member.expected_end = True  # nobody takes its place
    index = len(bench.phases) - 1

    async def decided() -> bool:
        return member.child.exit_code is not None or member.said.get("index") == index

    await bench.wait_until(decided, f"{member.name} starts, or refuses to")
    if member.child.exit_code is None:
        bench.note(f"{member.name} works with {' '.join(options)}")
        return None
    said = bench.fleet.log_tail(member, characters=_SAID_CHARACTERS)
    if member.child.exit_code != _EXIT_REFUSED or not said:
        raise HazardError(f"{member.name} ended with {member.child.exit_code}: {said or 'silent'}")
    bench.note(f"{member.name} refused to start: {said}")
    return said


def first_ns(ledger: Ledger, event: Event, *, broker: Broker | None = None) -> dict[str, int]:
    """When each task had that event first (monotonic), by its id; those that never had are out.

    Args:
        ledger: the records.
        event: the one that is looked for.
        broker: only where it concerned this one.
    """
    rows = ledger.records["event"] == event
    if broker is not None:
        rows &= ledger.records["broker"] == broker
    found: dict[str, int] = {}
    for task, time_ns in zip(ledger.task[rows], ledger.records["time_ns"][rows], strict=True):
        key = ledger.ids[task].tobytes()
        if key != NO_TASK:
            found.setdefault(str(uuid.UUID(bytes=key)), int(time_ns))
    return found
