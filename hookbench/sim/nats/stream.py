"""A simulated stream: what it stores, its limits, and its duplicate window."""

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from hookbench.sim.nats.errors import StreamError
from hookbench.sim.nats.frames import headers_of
from hookbench.sim.nats.subjects import is_literal, matches

__all__ = [
    "Change",
    "Purged",
    "Removed",
    "Stored",
    "StoredMessage",
    "Stream",
    "StreamConfig",
]

_MINUTE_NS = 60_000_000_000
_OVERHEAD_BYTES = 22
"""What the file store adds to a message, about."""


class StoredMessage(msgspec.Struct, frozen=True, gc=False):
    """One message."""

    sequence: int
    subject: str
    headers: bytes
    payload: bytes
    time_ns: int

    @property
    def size_bytes(self) -> int:
        """In the store."""
        return len(self.subject) + len(self.headers) + len(self.payload) + _OVERHEAD_BYTES


class StreamConfig(msgspec.Struct, kw_only=True):
    """The settings, as the API has them; times in ns."""

    name: str
    subjects: list[str] = msgspec.field(default_factory=list)
    retention: str = "limits"
    max_consumers: int = -1
    max_msgs: int = -1
    max_msgs_per_subject: int = -1
    max_bytes: int = -1
    max_age: int = 0
    max_msg_size: int = -1
    storage: str = "file"
    discard: str = "old"
    num_replicas: int = 1
    duplicate_window: int = 0
    sealed: bool = False
    deny_delete: bool = False
    deny_purge: bool = False
    allow_rollup_hdrs: bool = False
    allow_direct: bool = False
    mirror_direct: bool = False
    metadata: dict[str, str] = msgspec.field(default_factory=dict)
    consumer_limits: dict[str, int] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Fill in what the server fills in."""
        if not self.duplicate_window:
            self.duplicate_window = 2 * _MINUTE_NS
            if self.max_age:
                self.duplicate_window = min(self.duplicate_window, self.max_age)
        for name in ("max_msgs", "max_msgs_per_subject", "max_bytes", "max_msg_size"):
            if getattr(self, name) == 0:
                setattr(self, name, -1)
        if not self.subjects:
            self.subjects = [self.name]


class Stored(msgspec.Struct, frozen=True, gc=False):
    """A message was stored at a time."""

    time_ns: int
    subject: str
    headers: bytes
    payload: bytes


class Removed(msgspec.Struct, frozen=True, gc=False):
    """A message was deleted by its sequence."""

    time_ns: int
    sequence: int


class Purged(msgspec.Struct, frozen=True, gc=False):
    """What falls under a pattern was deleted."""

    time_ns: int
    pattern: str
    below: int


Change = Stored | Removed | Purged
"""What changes a stream, but for its limits: those are the same wherever it is done again."""


class Stream:
    """Messages by sequence, of several subjects.

    Args:
        config: its settings.
        wall_ns: the server's clock.

    Attributes:
        on_removed: called with each message that is removed.
        journal: what changed it, in order; ``None`` where nobody looks at its disk.
    """

    def __init__(self, config: StreamConfig, wall_ns: Callable[[], int]) -> None:
        self.config = config
        self.created_ns = wall_ns()
        self.messages: dict[int, StoredMessage] = {}
        self.last_sequence = 0
        self.on_removed: Callable[[StoredMessage], None] = lambda _message: None
        self.journal: list[Change] | None = None
        self._wall_ns = wall_ns
        self._last_time_ns = 0
        self._bytes = 0
        self._by_subject: dict[str, dict[int, None]] = {}
        self._ids: dict[str, tuple[int, int]] = {}

    def takes(self, subject: str) -> bool:
        """Whether it listens to a subject."""
        for pattern in self.config.subjects:  # noqa: SIM110 - each publish comes here
            if matches(pattern, subject):
                return True
        return False

    def store(self, subject: str, headers: bytes, payload: bytes) -> dict[str, Any]:
        """Store a message; the acknowledgement.

        Raises:
            StreamError: it is refused.
        """
        return self.store_at(self._wall_ns(), subject, headers, payload)

    def store_at(self, now_ns: int, subject: str, headers: bytes, payload: bytes) -> dict[str, Any]:
        """As ``store``, with the time of whoever was told first.

        Raises:
            StreamError: it is refused.
        """
        self.expire()
        told = headers_of(headers) if headers else {}
        expected = told.get("Nats-Expected-Last-Subject-Sequence")
        if expected is not None:
            last = self.last_of(subject)
            found = 0 if last is None else last.sequence
            if int(expected) != found:
                raise StreamError(400, 10071, f"wrong last sequence: {found}")
        message_id = told.get("Nats-Msg-Id")
        if message_id is not None:
            known = self._known(message_id, now_ns)
            if known is not None:
                return {"stream": self.config.name, "seq": known, "duplicate": True}
        self._make_room(subject, len(payload))
        self.last_sequence += 1
        message = StoredMessage(self.last_sequence, subject, headers, payload, now_ns)
        self.messages[message.sequence] = message
        self._bytes += message.size_bytes
        self._by_subject.setdefault(subject, {})[message.sequence] = None
        if message_id is not None:
            self._ids[message_id] = (message.sequence, now_ns)
        if self.journal is not None:
            self.journal.append(Stored(now_ns, subject, headers, payload))
        self._enforce(subject)
        return {"stream": self.config.name, "seq": message.sequence}

    def sequence_of(self, message_id: str) -> int | None:
        """Of the message with this id, if it was stored within the duplicate window."""
        return self._known(message_id, self._wall_ns())

    def _known(self, message_id: str, now_ns: int) -> int | None:
        known = self._ids.get(message_id)
        if known is None:
            return None
        sequence, then_ns = known
        if now_ns - then_ns > self.config.duplicate_window:
            del self._ids[message_id]
            return None
        return sequence

    def _make_room(self, subject: str, size_bytes: int) -> None:
        config = self.config
        if 0 < config.max_msg_size < size_bytes:
            raise StreamError(400, 10054, "message size exceeds maximum allowed")
        if config.discard != "new":
            return
        replaces = config.max_msgs_per_subject > 0 and (
            len(self._by_subject.get(subject, ())) >= config.max_msgs_per_subject
        )
        if 0 < config.max_msgs <= len(self.messages) and not replaces:
            raise StreamError(503, 10077, "maximum messages exceeded")
        if 0 < config.max_bytes <= self._bytes + size_bytes and not replaces:
            raise StreamError(503, 10077, "maximum bytes exceeded")

    def _enforce(self, subject: str) -> None:
        config = self.config
        if config.max_msgs_per_subject > 0:
            held = self._by_subject[subject]
            while len(held) > config.max_msgs_per_subject:
                self._remove(self.messages[next(iter(held))])
        while 0 < config.max_msgs < len(self.messages):
            self._remove(self.first())
        while 0 < config.max_bytes < self._bytes and len(self.messages) > 1:
            self._remove(self.first())

    def expire(self) -> None:
        """Remove what is older than the stream keeps; whoever looks calls this first."""
        if self.config.max_age:
            oldest_ns = self._wall_ns() - self.config.max_age
            while self.messages and self.first().time_ns <= oldest_ns:
                self._remove(self.first())

    def first(self) -> StoredMessage:
        """The first message of a stream that has one."""
        return self.messages[next(iter(self.messages))]

    @property
    def first_sequence(self) -> int:
        """Of the first message, or of the next one in a stream that has none."""
        return self.first().sequence if self.messages else self.last_sequence + 1

    def last_of(self, subject: str) -> StoredMessage | None:
        """The last message of a subject or pattern."""
        held = self._by_subject.get(subject)
        if held is not None:
            return self.messages[next(reversed(held))]
        if is_literal(subject):
            return None
        found = [
            next(reversed(sequences))
            for name, sequences in self._by_subject.items()
            if matches(subject, name)
        ]
        return self.messages[max(found)] if found else None

    def next_of(self, pattern: str, sequence: int) -> StoredMessage | None:
        """The first message of a pattern from a sequence on; an empty pattern is any."""
        for number in range(max(1, sequence), self.last_sequence + 1):
            message = self.messages.get(number)
            if message is not None and (not pattern or matches(pattern, message.subject)):
                return message
        return None

    def remove(self, sequence: int) -> None:
        """Delete one message.

        Raises:
            StreamError: it is not there, or may not be.
        """
        if self.config.deny_delete:
            raise StreamError(400, 10057, "message delete not permitted")
        message = self.messages.get(sequence)
        if message is None:
            raise StreamError(400, 10043, f"sequence {sequence} not found")
        self._log(Removed(self._wall_ns(), sequence))
        self._remove(message)

    def purge(self, pattern: str, below: int) -> int:
        """Delete what falls under a pattern, below a sequence if that is not 0; how many."""
        gone = [
            message
            for message in self.messages.values()
            if (not pattern or matches(pattern, message.subject))
            and (not below or message.sequence < below)
        ]
        self._log(Purged(self._wall_ns(), pattern, below))
        for message in gone:
            self._remove(message)
        return len(gone)

    def _log(self, change: Change) -> None:
        if self.journal is not None:
            self.journal.append(change)

    def carry_out(self, changes: Iterable[Change]) -> None:
        """Begin again with nothing, and do what was done; whoever watches is told of none of it.

        A message that is too old by now is removed as well.
        """
        watching, self.on_removed = self.on_removed, lambda _message: None
        keeps = self.journal is not None
        self.messages.clear()
        self._by_subject.clear()
        self._ids.clear()
        self.last_sequence = self._bytes = 0
        done, self.journal = list(changes), None
        for change in done:
            if isinstance(change, Stored):
                with contextlib.suppress(StreamError):  # what was refused is refused again
                    self.store_at(change.time_ns, change.subject, change.headers, change.payload)
            elif isinstance(change, Purged):
                self.purge(change.pattern, change.below)
            elif change.sequence in self.messages:  # else a limit removed it
                self.remove(change.sequence)
        self.on_removed, self.journal = watching, done if keeps else None

    def _remove(self, message: StoredMessage) -> None:
        del self.messages[message.sequence]
        held = self._by_subject[message.subject]
        del held[message.sequence]
        if not held:
            del self._by_subject[message.subject]
        self._bytes -= message.size_bytes
        self.on_removed(message)

    def state(self, subjects: str = "") -> dict[str, Any]:
        """As STREAM.INFO tells it; with the number of messages per subject of a pattern."""
        self.expire()
        empty = not self.messages
        first = self.first_sequence
        told: dict[str, Any] = {
            "messages": len(self.messages),
            "bytes": self._bytes,
            "first_seq": first if self.last_sequence else 0,
            "last_seq": self.last_sequence,
            "num_subjects": len(self._by_subject),
            "consumer_count": 0,
        }
        deleted = 0 if empty else self.last_sequence - first + 1 - len(self.messages)
        if deleted:
            told["num_deleted"] = deleted
        if subjects:
            told["subjects"] = {
                name: len(held)
                for name, held in self._by_subject.items()
                if matches(subjects, name)
            }
        return told
