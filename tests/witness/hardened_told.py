"""What the ledger says of a run with all measures."""

import uuid
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import msgspec

from hookbench.ledger.events import NO_TASK, Broker, Event
from hookbench.ledger.read import read_ledger
from tests.witness.accounts import Delivery

__all__ = ["Accepted", "HardenedTold", "read_hardened"]

Ids = Counter[str]
_DOUBTS = (Event.PUT_FAIL, Event.PUT_UNKNOWN, Event.ACK_FAILED)
_PUTS = (Event.PUT_OK, Event.PUT_FAIL, Event.PUT_UNKNOWN)
_HARNESS = "harness."
_NOBODY = str(uuid.UUID(bytes=NO_TASK))


class Accepted(NamedTuple):
    """Where a task was accepted: the process, its step, and its place among what that accepted."""

    writer: str
    step: int
    place: int


class HardenedTold(msgspec.Struct, kw_only=True):
    """The ledger's side; task ids as text.

    Attributes:
        ids: by event and broker.
        pushed: put on Redis, with the length of the list; found_there: put, and there already.
        moved: put on Redis by a procedure.
        stored: sequence and task of each put on NATS.
        received: deliveries from NATS.
        claimed: task and fencing token.
        accepted: by task.
        put_by: tasks that a process has put on a broker itself, by process and broker.
        doubts: what keeps the ledger from being the whole truth.
    """

    ids: dict[tuple[Event, Broker], Ids] = {}
    pushed: Counter[tuple[str, int]] = msgspec.field(default_factory=Counter)
    found_there: Ids = msgspec.field(default_factory=Counter)
    moved: Ids = msgspec.field(default_factory=Counter)
    stored: Counter[tuple[int, str]] = msgspec.field(default_factory=Counter)
    received: Counter[Delivery] = msgspec.field(default_factory=Counter)
    claimed: Counter[tuple[str, int]] = msgspec.field(default_factory=Counter)
    accepted: dict[str, Accepted] = {}
    put_by: dict[tuple[str, Broker], set[str]] = {}
    doubts: list[str] = []

    def of(self, broker: Broker, *events: Event) -> Ids:
        """The tasks of some events on a broker."""
        found: Ids = Counter()
        for event in events:
            found += self.ids.get((event, broker), Counter())
        return found

    def anywhere(self, *events: Event) -> Ids:
        """The tasks of some events on either broker."""
        return self.of(Broker.REDIS, *events) + self.of(Broker.NATS, *events)


def read_hardened(folder: Path) -> HardenedTold:
    """The ledger of a run."""
    ledger = read_ledger(folder)
    names = [str(uuid.UUID(bytes=bytes(item))) for item in ledger.ids]
    told = HardenedTold()
    places: Counter[str] = Counter()
    rows = zip(ledger.records, ledger.task, ledger.writer, strict=True)
    for record, row, number in rows:
        name, writer = names[row], ledger.writers[number]
        if name == _NOBODY:
            continue
        event, broker = Event(record["event"]), Broker(record["broker"])
        told.ids.setdefault((event, broker), Counter())[name] += 1
        if event is Event.ACCEPTED:
            places[writer] += 1
            told.accepted[name] = Accepted(writer, int(record["phase"]), places[writer])
        elif event in _PUTS:
            told.put_by.setdefault((writer, broker), set()).add(name)
        _take(told, event, broker, name, record, writer)
    told.doubts = [
        f"the ledger holds {ids.total()} {event.name} {broker.name}"
        for (event, broker), ids in told.ids.items()
        if event in _DOUBTS
    ]
    if ledger.crashed or ledger.torn:
        told.doubts.append(f"writers that crashed: {ledger.crashed}, torn records: {ledger.torn}")
    return told


def _take(
    told: HardenedTold, event: Event, broker: Broker, name: str, record: object, writer: str
) -> None:
    """What stands in the value of a record."""
    value = int(record["value"])
    if event is Event.CLAIMED:
        told.claimed[name, value] += 1
    elif event is Event.RECEIVED and broker is Broker.NATS:
        told.received[Delivery(value, int(record["attempt"]))] += 1
    elif event is Event.PUT_OK and broker is Broker.NATS:
        told.stored[value, name] += 1
    elif event is Event.PUT_OK and writer.startswith(_HARNESS):
        told.moved[name] += 1
    elif event is Event.PUT_OK and value:
        told.pushed[name, value] += 1
    elif event is Event.PUT_OK:
        told.found_there[name] += 1
