"""The two accounts of one run: what the witness saw, and what the ledger says."""

import uuid
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import msgspec

from hookbench.ledger.events import Broker, Event
from hookbench.ledger.read import read_ledger

__all__ = ["Answer", "Delivery", "Seen", "Told", "read_told"]

Ids = Counter[str]
# With any of these the outcome of a call is not in the ledger, so it cannot be compared.
_DOUBTS = (Event.PUT_FAIL, Event.PUT_UNKNOWN, Event.ACK_FAILED)


class Delivery(NamedTuple):
    """The ``attempt``-th hand-over of one stream sequence."""

    sequence: int
    attempt: int


class Answer(NamedTuple):
    """``ack``, ``nak`` or ``term``, and the number of the delivery in its consumer."""

    what: str
    delivery: Delivery
    number: int


class Seen(msgspec.Struct, kw_only=True):
    """What happened on the brokers, without a look at the ledger; task ids as text.

    Attributes:
        pushed, removed: of LPUSH to the pending list and LREM from the work list.
        requeued, taken_back: the same two, called by the script of a retry.
        looked_for: of LREM from the pending list, which removes a copy or finds none.
        pending_left, work_left: what the two lists hold after the run.
        published: as the core subscription saw it.
        repeats: publishes whose ``Nats-Msg-Id`` came before: seen, but not stored again.
        stored: task by stream sequence, read back after the run.
        messages, last_sequence: what the stream says of itself.
        answers: what workers sent to ``$JS.ACK``.
        deliveries: of the consumer, by its own count.
        ack_pending: deliveries that the consumer still waits for.
        incomplete: what the witness may have missed.
    """

    pushed: Ids = msgspec.field(default_factory=Counter)
    removed: Ids = msgspec.field(default_factory=Counter)
    requeued: Ids = msgspec.field(default_factory=Counter)
    taken_back: Ids = msgspec.field(default_factory=Counter)
    looked_for: Ids = msgspec.field(default_factory=Counter)
    pending_left: Ids = msgspec.field(default_factory=Counter)
    work_left: Ids = msgspec.field(default_factory=Counter)
    published: Ids = msgspec.field(default_factory=Counter)
    repeats: int = 0
    stored: dict[int, str] = {}
    messages: int = 0
    last_sequence: int = 0
    answers: list[Answer] = []
    deliveries: int = 0
    ack_pending: int = 0
    incomplete: list[str] = []


class Told(msgspec.Struct, kw_only=True):
    """What the ledger says.

    Attributes:
        ids: task ids by event and broker.
        stored: sequence and task of each put that NATS acknowledged.
        received: deliveries from NATS.
        doubts: what keeps the ledger from being the whole truth.
    """

    ids: dict[tuple[Event, Broker], Ids] = msgspec.field(default_factory=dict)
    stored: Counter[tuple[int, str]] = msgspec.field(default_factory=Counter)
    received: Counter[Delivery] = msgspec.field(default_factory=Counter)
    doubts: list[str] = []

    def of(self, event: Event, broker: Broker) -> Ids:
        """The tasks of an event on a broker."""
        return self.ids.get((event, broker), Counter())


def read_told(folder: Path) -> Told:
    """The ledger of a run."""
    ledger = read_ledger(folder)
    names = [str(uuid.UUID(bytes=bytes(item))) for item in ledger.ids]
    told = Told()
    for record, row in zip(ledger.records, ledger.task, strict=True):
        event, broker, name = Event(record["event"]), Broker(record["broker"]), names[row]
        told.ids.setdefault((event, broker), Counter())[name] += 1
        if broker is not Broker.NATS:
            continue
        value = int(record["value"])
        if event is Event.PUT_OK:
            told.stored[value, name] += 1
        elif event is Event.RECEIVED:
            told.received[Delivery(value, int(record["attempt"]))] += 1
    told.doubts = [
        f"the ledger holds {ids.total()} {event.name} {broker.name}"
        for (event, broker), ids in told.ids.items()
        if event in _DOUBTS
    ]
    if ledger.crashed or ledger.torn:
        told.doubts.append(f"writers that crashed: {ledger.crashed}, torn records: {ledger.torn}")
    return told
