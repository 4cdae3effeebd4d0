"""What a gate looks at: both brokers and the processes, as they were at one moment."""

import uuid
from collections.abc import Iterable

import msgspec

from hookbench.ids import uuid7_wall_ms
from hookbench.migration.phases import Phase

__all__ = ["Announcement", "ConsumerView", "NatsView", "RedisView", "Snapshot"]

NEVER = -1


class Announcement(msgspec.Struct, frozen=True, kw_only=True):
    """What a producer or worker said of itself last.

    Attributes:
        name: of the process.
        role: ``producer`` or ``worker``.
        version: of its code.
        measures: those that are on, as ``Measures.text`` has them.
        task_type: what a worker works on; empty for a producer.
        authority: where its done-store is: ``redis``, ``nats``, or empty for none.
        in_hand: tasks that a worker has in work, as far as it says so.
        follows: the place of its phase, as ``live/places.py`` writes it; empty if it does not say.
    """

    name: str
    role: str
    phase: Phase
    version: str = ""
    measures: str = "none"
    task_type: str = ""
    authority: str = ""
    in_hand: int = 0
    follows: str = ""

    def has(self, measure: str) -> bool:
        """Whether a measure is on in it."""
        return measure in self.measures.split(",")


class RedisView(msgspec.Struct, frozen=True, kw_only=True):
    """The hook queue on Redis.

    Attributes:
        pending, work: ids in the lists of tasks not read, and in all work lists.
        junk: entries that are no task.
        letters: dead letters that Redis holds.
        types: task types that have an entry.
        whole: whether all entries were read; else there were more than a survey reads.
        held: entries of all lists, of which a sample has some.
        sampled: whether only a sample was read, as was asked for.
        largest, largest_bytes: the task that takes most, and how much that is.
        used_bytes: memory in use.
        max_bytes: ``maxmemory``, 0 for none.
        policy: what Redis does when it is full.
    """

    pending: tuple[uuid.UUID, ...] = ()
    work: tuple[uuid.UUID, ...] = ()
    junk: int = 0
    letters: int = 0
    types: frozenset[str] = frozenset()
    whole: bool = True
    held: int = 0
    sampled: bool = False
    largest: uuid.UUID | None = None
    largest_bytes: int = 0
    used_bytes: int = 0
    max_bytes: int = 0
    policy: str = "noeviction"

    @property
    def ids(self) -> frozenset[uuid.UUID]:
        """Of every task in a list."""
        return frozenset((*self.pending, *self.work))


class ConsumerView(msgspec.Struct, frozen=True, kw_only=True):
    """One durable consumer of the hook stream.

    Attributes:
        task_type: by its filter; empty for one that takes every subject.
        pending: tasks that it has not delivered.
        ack_pending: deliveries that it waits for.
        max_ack_pending: how many of these it allows; 0 or less for no bound.
        redelivered: of these, those that were delivered more than once.
        ack_floor: everything up to this sequence is acknowledged.
        delivered: highest sequence that it has delivered.
    """

    name: str
    task_type: str = ""
    pending: int = 0
    ack_pending: int = 0
    max_ack_pending: int = 0
    redelivered: int = 0
    ack_floor: int = 0
    delivered: int = 0


class NatsView(msgspec.Struct, frozen=True, kw_only=True):
    """The hook stream.

    Attributes:
        exists: ``False`` before the first process that writes to NATS.
        sequences: by task id the sequence of its last entry.
        task_types: the type of each of these tasks, by its subject.
        types: how many entries each task type has.
        messages, size_bytes: what it holds.
        max_messages, max_bytes, max_age_s: its limits; 0 or less for none.
        last_sequence: the highest that it has given.
        consumers: durable ones, of each task type the newest.
        drift: settings that differ from what is wanted, one text each.
        whole: whether all entries were read.
        sampled: see ``RedisView``.
        max_payload_bytes: what the server takes; 0 where it was not asked.
    """

    exists: bool = True
    sequences: dict[uuid.UUID, int] = {}
    task_types: dict[uuid.UUID, str] = {}
    types: dict[str, int] = {}
    messages: int = 0
    size_bytes: int = 0
    max_messages: int = 0
    max_bytes: int = 0
    max_age_s: float = 0.0
    last_sequence: int = 0
    consumers: tuple[ConsumerView, ...] = ()
    drift: tuple[str, ...] = ()
    whole: bool = True
    sampled: bool = False
    max_payload_bytes: int = 0

    @property
    def ids(self) -> frozenset[uuid.UUID]:
        """Of every task in the stream."""
        return frozenset(self.sequences)

    def acknowledged(self, task_id: uuid.UUID) -> bool:
        """Whether the consumer of the task's type is beyond it."""
        sequence, consumers = self._readers(task_id)
        return bool(consumers) and sequence <= min(item.ack_floor for item in consumers)

    def handed_out(self, task_id: uuid.UUID) -> bool:
        """Whether a task was delivered, and the consumer's acknowledgements do not reach it."""
        sequence, consumers = self._readers(task_id)
        return any(item.ack_floor < sequence <= item.delivered for item in consumers)

    def _readers(self, task_id: uuid.UUID) -> tuple[int, list[ConsumerView]]:
        sequence = self.sequences.get(task_id, 0)
        kinds = ("", self.task_types.get(task_id, ""))
        found = [item for item in self.consumers if item.task_type in kinds]
        return sequence, found if sequence else []


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a gate decides by.

    Attributes:
        redis, nats: ``None`` where the broker does not answer; ``problems`` has why.
        announcements: ``None`` where nobody listened to the processes.
        ended: of the tasks on both brokers those that are done or dead; ``None`` without a
            done-store.
        unmoved: tasks whose record the done-store of Redis has and the one of NATS has not, with
            the seconds since they ended; ``None`` where nobody compared them.
        problems: what could not be read, and why.
        wall_ms: Unix milliseconds of the look.
        earlier_sequence: the stream's highest sequence at an earlier look, ``NEVER`` for none.
    """

    redis: RedisView | None = None
    nats: NatsView | None = None
    announcements: tuple[Announcement, ...] | None = None
    ended: frozenset[uuid.UUID] | None = None
    unmoved: dict[uuid.UUID, float] | None = None
    problems: dict[str, str] = {}
    wall_ms: int = 0
    earlier_sequence: int = NEVER

    def of(self, role: str) -> list[Announcement]:
        """What the processes of a role said."""
        return [item for item in self.announcements or () if item.role == role]

    def every_worker_has(self, measure: str) -> bool:
        """Whether there are workers, and a measure is on in all of them."""
        workers = self.of("worker")
        return bool(workers) and all(item.has(measure) for item in workers)

    def open(self, ids: Iterable[uuid.UUID]) -> set[uuid.UUID]:
        """Those that are not known to have ended."""
        return set(ids) - (self.ended or frozenset())

    def settled(self, ids: Iterable[uuid.UUID], after_s: float) -> set[uuid.UUID]:
        """Those that are older than that, for the two writes of a dual write take a moment."""
        newest_ms = self.wall_ms - after_s * 1000
        return {item for item in ids if (uuid7_wall_ms(item) or 0) <= newest_ms}
