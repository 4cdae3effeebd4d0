"""A key-value bucket of JetStream, as the done-store needs it: its entries, writes and reads.

A bucket is a stream whose last record of each subject counts; every write names the revision that
it replaces, and is refused if another came first.
"""

import asyncio
import contextlib
import enum
import uuid
from collections.abc import AsyncGenerator, Awaitable, Collection
from datetime import datetime
from typing import Any

import msgspec
import nats.errors
import nats.js.errors
from nats.js.api import DiscardPolicy, PubAck, StorageType, StreamConfig

from hookbench.cancellation import raise_if_cancelled
from hookbench.clock import NS_PER_S
from hookbench.errors import BrokerUnreachableError, BrokerUnsuitableError, ConfigDriftError
from hookbench.queues.authority import ANSWER_TIMEOUT_S, LogPlace
from hookbench.queues.reconnecting import ReconnectingClient
from hookbench.queues.stream_publisher import StreamAnswer, StreamPublisher
from hookbench.queues.stream_windows import read_windows
from hookbench.queues.transport import AppTransport

__all__ = [
    "ENDED",
    "NOTHING",
    "Bucket",
    "Entry",
    "State",
    "StoredEntry",
    "ensure_bucket",
    "is_task_key",
]

_AT_ONCE = 64
_READ_THROUGH = 2_000
"""Up to so many tasks are read one by one, without asking how large the bucket is."""
_QUICKER = 5
"""How many entries are read through in the time of a read of its own."""
_WINDOW = 1_000
_EXPECTED = "Nats-Expected-Last-Subject-Sequence"
_EXPECTED_HEAD = f"NATS/1.0\r\n{_EXPECTED}: %d\r\n\r\n".encode()
_SEQUENCE = "Nats-Sequence"
_NOT_FOUND = 404
_WRONG_REVISION = (10071, 10164)  # JSStreamWrongLastSequence, and the same of a clustered stream


class State(enum.StrEnum):
    """Of a task that was claimed once."""

    CLAIMED = "c"
    RELEASED = "r"
    DONE = "d"
    SUPERSEDED = "s"


ENDED = (State.DONE, State.SUPERSEDED)


class Entry(msgspec.Struct, omit_defaults=True):
    """What a key holds.

    Attributes:
        state: of the task; a repository's key is released.
        base: what a token is above a revision: the last token of the store before this one.
        token: 0 in the write that is the claim itself, whose revision makes the token.
        owner, lease_s: of a claim.
        done_ms: of a repository's key: the time in the id of the last task done.
    """

    state: State = msgspec.field(name="s")
    base: int = msgspec.field(default=0, name="b")
    token: int = msgspec.field(default=0, name="t")
    owner: str = msgspec.field(default="", name="o")
    lease_s: float = msgspec.field(default=0.0, name="l")
    failures: int = msgspec.field(default=0, name="f")
    losses: int = msgspec.field(default=0, name="n")
    last_failure: str = msgspec.field(default="", name="w")
    done_ms: int = msgspec.field(default=0, name="m")


class StoredEntry(msgspec.Struct, frozen=True):
    """An entry with its revision, and when the server wrote it (Unix ns); revision 0 for none."""

    entry: Entry
    revision: int
    written_ns: int = 0

    @property
    def token(self) -> int:
        """The last that was given for the key; 0 for none."""
        if not self.revision:
            return 0
        return self.entry.token or self.entry.base + self.revision


class _Message(msgspec.Struct):
    """A stored message as the server sends it."""

    seq: int
    time: datetime
    data: bytes = b""  # msgspec decodes the base64

    @property
    def written_ns(self) -> int:
        """Unix ns, to the microsecond."""
        return int(self.time.timestamp() * NS_PER_S)


class _Refusal(msgspec.Struct, frozen=True):
    code: int = 0
    description: str = "an answer without a message"


class _MessageAnswer(msgspec.Struct):
    message: _Message | None = None
    error: _Refusal = _Refusal()


_message_decoder = msgspec.json.Decoder(_MessageAnswer)

NOTHING = StoredEntry(Entry(state=State.RELEASED), 0)
"""What is read of a key that was never written."""
_decoder = msgspec.json.Decoder(Entry)
_encode = msgspec.json.Encoder().encode


def is_task_key(key: str) -> bool:
    """Whether a key is that of a task; all others have a dot."""
    return "." not in key


async def ensure_bucket(
    transport: AppTransport, *, retention_s: float, storage: str = "file", replicas: int = 1
) -> bool:
    """Create the bucket of done-records, or check that the existing one is what is wanted.

    Returns:
        Whether a direct read answers what was written last: it is allowed (NATS ADR-31), and there
        is one replica alone, for others may be behind.

    Raises:
        ConfigDriftError: it exists with other settings, which the text lists.
        BrokerUnsuitableError: the server refuses it.
        BrokerUnreachableError: no answer.
    """
    bucket = transport.names.done_bucket
    wanted: dict[str, Any] = {
        "subjects": [f"$KV.{bucket}.>"],
        "max_age": retention_s,
        "max_msgs_per_subject": 1,
        "storage": StorageType(storage),
        "num_replicas": replicas,
    }
    jetstream = transport.jetstream
    try:
        try:
            info = await jetstream.stream_info(f"KV_{bucket}")
        except nats.js.errors.NotFoundError:
            config = StreamConfig(
                name=f"KV_{bucket}",
                **wanted,
                discard=DiscardPolicy.NEW,
                allow_rollup_hdrs=True,
                allow_direct=replicas == 1,
                deny_delete=True,
                duplicate_window=min(retention_s, 120.0),
            )
            info = await jetstream.add_stream(config)
    except nats.js.errors.APIError as error:
        raise BrokerUnsuitableError(f"bucket {bucket}: the server refused it: {error}") from error
    except (nats.errors.Error, TimeoutError) as error:
        raise BrokerUnreachableError(f"bucket {bucket}: no answer ({error!r})") from error
    found = {name: getattr(info.config, name) for name in wanted}
    differing = [
        f"{name}: wanted {wanted[name]}, found {found[name]}"
        for name in wanted
        if wanted[name] != found[name]
    ]
    if differing:
        raise ConfigDriftError(
            f"bucket {bucket} exists with other settings ({'; '.join(differing)}): change it with"
            f" 'nats stream edit KV_{bucket}', or use another stream name"
        )
    return bool(info.config.allow_direct) and replicas == 1


class Bucket:
    """Reads and writes keys; it must exist, see ``ensure_bucket``.

    Args:
        transport: the connection, and the names.
        timeout_s: after which the server counts as away.
        direct: see ``ensure_bucket``.
    """

    def __init__(
        self,
        transport: AppTransport,
        *,
        timeout_s: float = ANSWER_TIMEOUT_S,
        direct: bool = False,
    ) -> None:
        self._transport = transport
        self._client = transport.client
        self._publisher = transport.publisher
        self._fast = self._client if isinstance(self._client, ReconnectingClient) else None
        self._direct = self._fast if direct else None
        self._timeout_s = timeout_s
        self.stream = f"KV_{transport.names.done_bucket}"
        self._subject = f"$KV.{transport.names.done_bucket}."

    async def write(self, key: str, data: bytes, *, over: int | None) -> int | None:
        """The new revision; ``None`` if the key has another revision than ``over``.

        Without ``over`` it is written whatever is there.

        Raises:
            BrokerUnreachableError: no answer, so that nobody knows.
        """
        if not self._client.is_connected:
            # nats-py would keep the write, and send it when nobody waits for it any more.
            raise BrokerUnreachableError("the done-store: NATS is not connected (reconnecting)")
        subject, publisher = f"{self._subject}{key}", self._publisher
        answer: StreamAnswer | PubAck
        try:
            if isinstance(publisher, StreamPublisher):
                head = None if over is None else _EXPECTED_HEAD % over
                answer = await publisher.publish(
                    subject, data, timeout=self._timeout_s, headers=head
                )
            else:
                headers = None if over is None else {_EXPECTED: str(over)}
                answer = await publisher.publish(
                    subject, data, timeout=self._timeout_s, headers=headers
                )
                raise_if_cancelled()
        except nats.js.errors.NoStreamResponseError as error:
            raise BrokerUnreachableError(f"{self.stream} does not answer") from error
        except nats.js.errors.APIError as error:
            if error.err_code in _WRONG_REVISION:
                return None
            raise BrokerUnreachableError(f"{self.stream} refused a record: {error}") from error
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise BrokerUnreachableError(
                f"{self.stream}: no answer to a record ({type(error).__name__})"
            ) from error
        return answer.seq

    async def read(self, key: str) -> StoredEntry:
        """The last entry of a key.

        Raises:
            BrokerUnreachableError: no answer.
        """
        message = await self._last(key)
        if message is None:
            return NOTHING
        return StoredEntry(_decoder.decode(message.data), message.seq, message.written_ns)

    async def read_order(self, key: str) -> StoredEntry:
        """``read`` of a repository's key, without the time of the write, which no lease follows.

        Direct where that may be: a request of the API costs the server three times as much.
        """
        if self._direct is None:
            return await self.read(key)
        subject = f"$JS.API.DIRECT.GET.{self.stream}.{self._subject}{key}"
        try:
            answer = await self._direct.requests.ask_now(subject, b"", self._timeout_s)
            if not answer.is_status:
                revision = int((answer.headers or {})[_SEQUENCE])
                return StoredEntry(_decoder.decode(answer.data), revision)
        except nats.errors.NoRespondersError:
            return await self.read(key)  # it is not allowed any more, or nobody leads the stream
        except (
            nats.errors.Error, TimeoutError, OSError, msgspec.MsgspecError, KeyError, ValueError,
        ) as error:  # fmt: skip
            raise self._unreadable(type(error).__name__) from error
        if answer.headers["Status"] == str(_NOT_FOUND):
            return NOTHING
        raise self._unreadable(str(answer.headers))

    def _unreadable(self, why: str) -> BrokerUnreachableError:
        return BrokerUnreachableError(f"{self.stream}: a record cannot be read ({why})")

    def replace(self, key: str, entry: Entry, *, over: int) -> Awaitable[int | None]:
        """``write`` of an entry."""
        return self.write(key, _encode(entry), over=over)

    async def read_data(self, key: str) -> bytes | None:
        """What a key holds that is no entry; ``None`` if it was never written.

        Raises:
            BrokerUnreachableError: no answer.
        """
        message = await self._last(key)
        return None if message is None else message.data

    async def _last(self, key: str) -> _Message | None:
        """From the stream's leader: a direct get may be answered by a follower."""
        request = _encode({"last_by_subj": f"{self._subject}{key}"})
        subject = f"$JS.API.STREAM.MSG.GET.{self.stream}"
        try:
            if self._fast is not None:
                answer = await self._fast.requests.ask_now(subject, request, self._timeout_s)
            else:
                answer = await self._client.request(subject, request, timeout=self._timeout_s)
                raise_if_cancelled()
            found = _message_decoder.decode(answer.data)
        except (nats.errors.Error, TimeoutError, OSError, msgspec.MsgspecError) as error:
            raise self._unreadable(type(error).__name__) from error
        if found.message is not None:
            return found.message
        if found.error.code == _NOT_FOUND:
            return None
        raise self._unreadable(found.error.description)

    async def read_all(self, task_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, StoredEntry]:
        """The entries of these tasks, many at once.

        Raises:
            BrokerUnreachableError: no answer.
        """
        ids = list(dict.fromkeys(task_ids))
        found: dict[uuid.UUID, StoredEntry] = {}
        for start in range(0, len(ids), _AT_ONCE):
            part = ids[start : start + _AT_ONCE]
            stored = await asyncio.gather(*(self.read(str(task_id)) for task_id in part))
            found.update(zip(part, stored, strict=True))
        return found

    async def entries(
        self, first_sequence: int = 1
    ) -> AsyncGenerator[list[tuple[uuid.UUID, StoredEntry]], None]:
        """The entries of tasks that were written from a sequence on, in parts.

        Whoever does not read to the end closes it, with ``contextlib.aclosing``.

        Raises:
            BrokerUnreachableError: no answer.
        """
        windows = read_windows(
            self._transport, self.stream, first_sequence=first_sequence, window=_WINDOW
        )
        async with contextlib.aclosing(windows):
            async for window in windows:
                part = []
                for item in window:
                    key = item.subject.removeprefix(self._subject)
                    if is_task_key(key):
                        entry = _decoder.decode(item.payload)
                        stored = StoredEntry(entry, item.sequence, item.stored_ns)
                        part.append((uuid.UUID(key), stored))
                yield part

    async def others(self, keys: str) -> AsyncGenerator[list[tuple[str, Entry]], None]:
        """The entries of keys that are no tasks', by a pattern such as ``last.*``; likewise.

        Raises:
            BrokerUnreachableError: no answer.
        """
        windows = read_windows(
            self._transport, self.stream, subject=f"{self._subject}{keys}", window=_WINDOW
        )
        async with contextlib.aclosing(windows):
            async for window in windows:
                yield [
                    (item.subject.removeprefix(self._subject), _decoder.decode(item.payload))
                    for item in window
                ]

    async def end(self) -> LogPlace | None:
        """The last sequence, with what tells this bucket from another; ``None`` of no bucket.

        Raises:
            BrokerUnreachableError: no answer.
        """
        try:
            info = await self._transport.jetstream.stream_info(self.stream)
        except nats.js.errors.NotFoundError:
            return None
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise BrokerUnreachableError(f"{self.stream}: no answer ({error!r})") from error
        return LogPlace(entry=str(info.state.last_seq), digest=str(info.created))

    async def ended_among(self, task_ids: Collection[uuid.UUID]) -> set[uuid.UUID]:
        """Which of these tasks have ended: a read each, or all entries where that is quicker.

        Raises:
            BrokerUnreachableError: no answer.
        """
        wanted = set(task_ids)
        if len(wanted) > _READ_THROUGH and await self._count() < _QUICKER * len(wanted):
            return await self._ended_of_all(wanted)
        found = await self.read_all(wanted)
        return {task for task, stored in found.items() if stored.entry.state in ENDED}

    async def _count(self) -> int:
        """How many keys there are, for an estimate: 0 where that is not told."""
        try:
            info = await self._transport.jetstream.stream_info(self.stream)
        except (nats.errors.Error, TimeoutError, OSError):
            return 0
        return int(info.state.messages)

    async def _ended_of_all(self, wanted: set[uuid.UUID]) -> set[uuid.UUID]:
        ended: set[uuid.UUID] = set()
        async for part in self.entries():
            ended |= {task for task, stored in part if stored.entry.state in ENDED}
        return ended & wanted
