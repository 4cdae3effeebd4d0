"""The task: what a git push asks for, its names on both brokers, and its JSON on the wire."""

import datetime as dt
import re
import uuid
from collections.abc import Callable
from typing import Annotated, Any

import msgspec

from hookbench.clock import Clock
from hookbench.errors import DecodeError, OversizeError, SettingError
from hookbench.ids import Entropy, uuid7

__all__ = [
    "DEFAULT_TASK_LIMIT_BYTES",
    "KNOWN_TASK_TYPES",
    "MAX_DEPTH",
    "MAX_TASK_BYTES",
    "NATS_HEADER_ROOM_BYTES",
    "HookTask",
    "Names",
    "TaskSource",
    "check_size",
    "check_task_type",
    "decode_task",
    "encode_task",
    "new_task",
    "task_id_of",
    "with_retry",
]

KNOWN_TASK_TYPES = ("sync", "fsck", "gc")
"""Task types that ship; others are allowed, by the guide's ``queue.hook.{task_type}``."""

# NATS' default max_payload is 1 MiB and counts headers (https://docs.nats.io, max_payload);
# Redis' proto-max-bulk-len is 512 MiB. The smaller one, less room for headers, holds for both.
NATS_DEFAULT_MAX_PAYLOAD_BYTES = 1024 * 1024
NATS_HEADER_ROOM_BYTES = 1024
MAX_TASK_BYTES = 64 * 1024 * 1024
"""The largest max_payload that nats-server takes; Redis would hand out eight times as much."""
MAX_DEPTH = 500
"""Objects and arrays within each other in a payload: far from where the parser gives up, which
depends on who called it, so that what was read once can be written and read again."""
_SHALLOW_BYTES = 2 * MAX_DEPTH
"""In fewer nothing can be nested deeper: two brackets each."""
_TOO_DEEP = f"a payload nested deeper than {MAX_DEPTH}: flatten it, or send a reference"
DEFAULT_TASK_LIMIT_BYTES = NATS_DEFAULT_MAX_PAYLOAD_BYTES - NATS_HEADER_ROOM_BYTES

_GUIDE_TYPE = "sync"
"""The one type that the guide has a consumer for; its name is part of the consumer's."""
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_TOKEN = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_SUBJECT_ROOT = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_STREAM_NAME = re.compile(r"[A-Za-z0-9_-]{1,200}")
_PREFIX = re.compile(r"[A-Za-z0-9_.{}-]{1,100}")

TaskType = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]
RepoId = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
Retries = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
Moment = Annotated[dt.datetime, msgspec.Meta(tz=True)]


class HookTask(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One task.

    Attributes:
        id: UUIDv7, unique over all producers; it is what makes two payloads differ.
        repo_id: the repository, a path relative to the root of the origins.
        task_type: ``sync``, ``fsck``, ``gc`` or another token of ``[a-z0-9_-]``.
        payload: a JSON object, opaque to the queue.
        created_at: wall clock of the producer, with a time zone: a label, never a duration.
        retry_count: how often a worker has put the task back.
    """

    id: uuid.UUID
    repo_id: RepoId
    task_type: TaskType
    payload: dict[str, Any]
    created_at: Moment
    retry_count: Retries = 0


TaskSource = Callable[[int], HookTask]
"""Where a producer's tasks come from, by number."""


class _IdOnly(msgspec.Struct):
    id: uuid.UUID


_encoder = msgspec.json.Encoder()
_id_decoder = msgspec.json.Decoder(_IdOnly)
_decoder = msgspec.json.Decoder(HookTask, strict=True)


def new_task(
    *,
    repo_id: str,
    task_type: str,
    payload: dict[str, Any],
    clock: Clock,
    entropy: Entropy,
) -> HookTask:
    """A task with a fresh id, created now.

    Raises:
        SettingError: the task type is no token, or the repository id is empty or too long.
    """
    check_task_type(task_type)
    if not 1 <= len(repo_id) <= 255:  # noqa: PLR2004 - the bound of RepoId above
        raise SettingError(
            f"repository id of {len(repo_id)} characters: use between 1 and 255 characters"
        )
    return HookTask(
        id=uuid7(clock, entropy),
        repo_id=repo_id,
        task_type=task_type,
        payload=payload,
        created_at=_EPOCH + dt.timedelta(microseconds=clock.wall_ns() // 1000),
        retry_count=0,
    )


def with_retry(task: HookTask) -> HookTask:
    """The same task with one more retry counted."""
    return msgspec.structs.replace(task, retry_count=task.retry_count + 1)


def encode_task(task: HookTask) -> bytes:
    """The JSON of a task, as both brokers carry it.

    Raises:
        OversizeError: its payload is nested deeper than it can be read again.
    """
    try:
        data = _encoder.encode(task)
    except RecursionError as error:
        raise OversizeError(_TOO_DEEP) from error
    if len(data) > _SHALLOW_BYTES and _is_deep(data, task.payload):
        raise OversizeError(_TOO_DEEP)
    return data


def decode_task(data: bytes) -> HookTask:
    """The task in ``data``.

    Raises:
        DecodeError: the bytes are no task; the text says what is wrong and where.
    """
    if len(data) > MAX_TASK_BYTES:
        raise DecodeError(f"no task in {len(data)} bytes: more than {MAX_TASK_BYTES}")
    try:
        task = _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError(f"no task in {len(data)} bytes: {error}") from error
    if len(data) > _SHALLOW_BYTES and _is_deep(data, task.payload):
        raise DecodeError(
            f"no task in {len(data)} bytes: its payload is nested deeper than {MAX_DEPTH}"
        )
    return task


def _is_deep(data: bytes, payload: dict[str, Any]) -> bool:
    """Whether a payload is nested deeper than ``MAX_DEPTH``; of few brackets none is looked at."""
    if data.count(b"{") + data.count(b"[") <= MAX_DEPTH:
        return False
    level: list[Any] = [payload]
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for item in level:
            inner += item.values() if isinstance(item, dict) else item
        level = [item for item in inner if isinstance(item, dict | list)]
        if not level:
            return False
    return True


def task_id_of(data: bytes) -> uuid.UUID:
    """The id of the task in ``data``; the rest of it is not looked at.

    Raises:
        DecodeError: the bytes are no JSON object with an id.
    """
    try:
        return _id_decoder.decode(data).id
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError(f"no task id in {len(data)} bytes: {error}") from error


def check_task_type(task_type: str) -> str:
    """``task_type`` unchanged.

    Raises:
        SettingError: it cannot stand in a subject and a key.
    """
    if task_type not in KNOWN_TASK_TYPES and not _TOKEN.fullmatch(task_type):
        raise SettingError(
            f"task type {task_type!r}: use a letter, then up to 31 of a-z, 0-9, '_' and '-'"
            f" (known types: {', '.join(KNOWN_TASK_TYPES)})"
        )
    return task_type


def check_size(data: bytes, limit_bytes: int) -> None:
    """Refuse a task before any write.

    Raises:
        OversizeError: ``data`` is larger than ``limit_bytes``.
    """
    if len(data) > limit_bytes:
        raise OversizeError(
            f"task of {len(data)} bytes: the smallest limit of the brokers is {limit_bytes} bytes;"
            " shorten the payload or keep it elsewhere and send a reference"
        )


class Names(msgspec.Struct, frozen=True, kw_only=True):
    """What the hook queue is called on the brokers; the defaults are the guide's names.

    A run on somebody's broker uses names of its own (see ``Names.for_run``).
    """

    prefix: str = "{hook}"
    subject_root: str = "queue.hook"
    stream: str = "HOOK_QUEUE"
    consumer: str = "hook-sync-worker"

    def __post_init__(self) -> None:
        """Refuse names that a broker would refuse or read as something else."""
        for field, pattern in (
            ("prefix", _PREFIX),
            ("subject_root", _SUBJECT_ROOT),
            ("stream", _STREAM_NAME),
            ("consumer", _STREAM_NAME),
        ):
            value = getattr(self, field)
            if not pattern.fullmatch(value):
                raise SettingError(
                    f"{field} {value!r}: use only characters that match {pattern.pattern}"
                )

    @classmethod
    def for_run(cls, run: str) -> "Names":
        """Names that no other run and no production queue uses."""
        return cls(
            prefix=f"{{hook-{run}}}",
            subject_root=f"queue.hook-{run}",
            stream=f"HOOK_QUEUE_{run}",
            consumer="hook-sync-worker",
        )

    def subject(self, task_type: str) -> str:
        """The NATS subject of a task type."""
        return f"{self.subject_root}.{task_type}"

    def consumer_of(self, task_type: str) -> str:
        """The durable consumer of a task type, where each has its own: ``hook-fsck-worker``."""
        if task_type == _GUIDE_TYPE:
            return self.consumer
        if _GUIDE_TYPE in self.consumer:
            return self.consumer.replace(_GUIDE_TYPE, task_type, 1)
        return f"{self.consumer}-{task_type}"

    @property
    def epochs_stream(self) -> str:
        """The stream of what the workers have agreed on: epochs and their first sequences."""
        return f"{self.stream}_EPOCHS"

    def epoch_subject(self, task_type: str) -> str:
        """The subject of the epochs of a task type."""
        return f"epoch.{self.subject_root}.{task_type}"

    @property
    def workers_stream(self) -> str:
        """The stream in which workers announce their slots."""
        return f"{self.stream}_WORKERS"

    def worker_subject(self, task_type: str) -> str:
        """What the subjects of the workers of a task type begin with."""
        return f"worker.{self.subject_root}.{task_type}"

    @property
    def advisories_stream(self) -> str:
        """The stream that keeps what JetStream says of deliveries that it gives up."""
        return f"{self.stream}_ADVISORIES"

    @property
    def streams(self) -> tuple[str, ...]:
        """Every stream of these names; which of them there are depends on the measures."""
        return (
            self.stream,
            self.dead_stream,
            self.epochs_stream,
            self.workers_stream,
            self.advisories_stream,
        )

    def pending_key(self, task_type: str) -> str:
        """The Redis list of tasks not yet read."""
        return f"{self.prefix}:{task_type}"

    def work_key(self, task_type: str) -> str:
        """The Redis list of tasks in flight."""
        return f"{self.prefix}:{task_type}:work"

    def own_work_key(self, task_type: str, owner: str) -> str:
        """The Redis list of tasks in flight of one worker with a lease."""
        return f"{self.work_key(task_type)}:{owner}"

    def leases_key(self, task_type: str) -> str:
        """The Redis sorted set of leases: owners of work lists, and when their lease ends."""
        return f"{self.prefix}:{task_type}:leases"

    def attempts_key(self, task_type: str) -> str:
        """The Redis hash of deliveries that came to nothing, by task id."""
        return f"{self.prefix}:{task_type}:attempts"

    def seen_key(self, task_type: str) -> str:
        """The Redis hash of when entries of the shared work list were first seen there."""
        return f"{self.prefix}:{task_type}:seen"

    def stream_key(self, task_type: str) -> str:
        """The Redis stream of tasks, read and unread."""
        return f"{self.prefix}:{task_type}:stream"

    def dead_key(self, task_type: str) -> str:
        """The Redis list of dead letters."""
        return f"{self.prefix}:{task_type}:dead"

    @property
    def dead_stream(self) -> str:
        """The stream of dead letters."""
        return f"{self.stream}_DEAD"

    @property
    def done_bucket(self) -> str:
        """The key-value bucket of done-records."""
        return f"{self.stream}_DONE"

    def dead_subject(self, task_type: str) -> str:
        """The subject of dead letters; outside ``subject_root`` so that the queue ignores it."""
        return f"dead.{self.subject_root}.{task_type}"
