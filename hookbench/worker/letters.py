"""Dead letters as they are stored on both brokers: read, found, removed."""

import hashlib
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

import msgspec

from hookbench.errors import DecodeError, SettingError
from hookbench.queues.redis_client import RedisClient
from hookbench.queues.redis_errors import broker_errors
from hookbench.queues.stored import StoredTask, read_stream, remove_stored
from hookbench.queues.transport import AppTransport
from hookbench.task import HookTask, Names, decode_task
from hookbench.worker.dead_letters import DeadLetter

__all__ = [
    "LetterBox",
    "LetterFilter",
    "NatsLetterBox",
    "RedisLetterBox",
    "StoredLetter",
    "choose",
    "read_letters",
]

MAX_LETTERS = 100_000
"""How many are looked at on each broker; more are left alone, and said to be."""
_PAGE = 100
_DIGITS = 16
_LEAST_OF_ID = 8
_decoder = msgspec.json.Decoder(DeadLetter)


class StoredLetter(msgspec.Struct, frozen=True, kw_only=True):
    """One letter where it lies.

    Attributes:
        id: ``nats-<sequence>`` or ``redis-<digest of its bytes>``: stays the same while it lies
            there.
        broker: ``redis`` or ``nats``.
        task_type: by the place where it lies.
        raw: its bytes.
        letter: what they say, ``None`` if they are no letter.
        task: the task that the letter is about, ``None`` if its payload is none.
        problem: why there is no letter or no task in it, empty otherwise.
        sequence: of the stream, 0 on Redis.
    """

    id: str
    broker: str
    task_type: str
    raw: bytes
    letter: DeadLetter | None
    task: HookTask | None
    problem: str
    sequence: int = 0

    @property
    def task_id(self) -> uuid.UUID | None:
        """Of the task in it, if there is one."""
        return None if self.task is None else self.task.id


def _stored(letter_id: str, broker: str, task_type: str, raw: bytes, sequence: int) -> StoredLetter:
    letter: DeadLetter | None = None
    task: HookTask | None = None
    problem = ""
    try:
        letter = _decoder.decode(raw)
        task = decode_task(letter.payload)
    except (msgspec.MsgspecError, ValueError) as error:  # ValueError: no base64
        problem = f"no dead letter: {error}"
    except DecodeError as error:
        problem = str(error)
    return StoredLetter(
        id=letter_id,
        broker=broker,
        task_type=task_type,
        raw=raw,
        letter=letter,
        task=task,
        problem=problem,
        sequence=sequence,
    )


class LetterBox(Protocol):
    """The dead letters of one broker."""

    @property
    def broker(self) -> str:
        """``redis`` or ``nats``."""
        ...

    def letters(self) -> AsyncIterator[StoredLetter]:
        """All of them, the oldest first."""
        ...

    async def remove(self, stored: StoredLetter) -> bool:
        """Forget one; ``False`` if it was not there any more."""
        ...


class RedisLetterBox:
    """The lists ``{hook}:{task_type}:dead``."""

    broker = "redis"

    def __init__(self, client: RedisClient, names: Names, task_types: Sequence[str]) -> None:
        self._client = client
        self._names = names
        self._task_types = task_types

    async def letters(self) -> AsyncIterator[StoredLetter]:
        """Pages from the old end; what is put meanwhile comes in at the other one."""
        for task_type in self._task_types:
            key = self._names.dead_key(task_type)
            with broker_errors(f"LLEN {key}"):
                length = min(await self._client.llen(key), MAX_LETTERS)
            for start in range(0, length, _PAGE):
                with broker_errors(f"LRANGE {key}"):
                    page = await self._client.lrange(key, -start - _PAGE, -start - 1)
                for raw in reversed(page):
                    digest = hashlib.sha256(raw).hexdigest()[:_DIGITS]
                    yield _stored(f"redis-{digest}", self.broker, task_type, raw, 0)

    async def remove(self, stored: StoredLetter) -> bool:
        """LREM of one entry: of two equal letters the other stays."""
        key = self._names.dead_key(stored.task_type)
        with broker_errors(f"LREM {key}"):
            return await self._client.lrem(key, 1, stored.raw) > 0


class NatsLetterBox:
    """The stream of dead letters; read without a consumer, so that it stays as it is."""

    broker = "nats"

    def __init__(self, transport: AppTransport) -> None:
        self._transport = transport

    async def letters(self) -> AsyncIterator[StoredLetter]:
        """In the order of the stream."""
        names = self._transport.names
        async for item in read_stream(self._transport, names.dead_stream, limit=MAX_LETTERS):
            yield _of_stream(item)

    async def remove(self, stored: StoredLetter) -> bool:
        """Delete one sequence."""
        names = self._transport.names
        return await remove_stored(self._transport, names.dead_stream, stored.sequence)


def _of_stream(item: StoredTask) -> StoredLetter:
    task_type = item.subject.rpartition(".")[2]
    return _stored(f"nats-{item.sequence}", "nats", task_type, item.payload, item.sequence)


class LetterFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which letters are looked for; an empty field is any.

    Attributes:
        task_type: of the queue.
        reason: a text that the reason contains, in any case of letters.
    """

    task_type: str = ""
    reason: str = ""

    def takes(self, stored: StoredLetter) -> bool:
        """Whether it is one of them."""
        reason = stored.letter.reason if stored.letter is not None else stored.problem
        return (not self.task_type or stored.task_type == self.task_type) and (
            self.reason.casefold() in reason.casefold()
        )


async def read_letters(
    boxes: Sequence[LetterBox], wanted: LetterFilter, *, limit: int = MAX_LETTERS
) -> tuple[list[StoredLetter], bool]:
    """Up to ``limit`` letters of all brokers, and whether there are more.

    Raises:
        BrokerUnreachableError: a broker does not answer.
    """
    found: list[StoredLetter] = []
    for box in boxes:
        async for stored in box.letters():
            if not wanted.takes(stored):
                continue
            if len(found) == limit:
                return found, True
            found.append(stored)
    return found, False


def choose(letters: Sequence[StoredLetter], ids: Sequence[str]) -> list[StoredLetter]:
    """The letters with these ids, or about the tasks with them.

    Args:
        letters: those that there are.
        ids: of a letter, or of a task, of which the first eight characters are enough.

    Raises:
        SettingError: there is no such letter, or the beginning fits several tasks.
    """
    chosen: dict[tuple[str, str, bytes], StoredLetter] = {}
    for item in ids:
        found = [stored for stored in letters if _is_about(stored, item)]
        if not found:
            raise SettingError(
                f"dead letter {item!r}: there is none; hookbench dead list has those that there"
                f" are, and of the id of a task at least {_LEAST_OF_ID} characters are needed"
            )
        tasks = sorted({str(stored.task_id) for stored in found})
        if len(tasks) > 1:
            raise SettingError(
                f"dead letter {item!r}: it fits {len(tasks)} tasks, {tasks[0]} and {tasks[1]}: give"
                " more of the id"
            )
        chosen |= {(stored.broker, stored.id, stored.raw): stored for stored in found}
    return list(chosen.values())


def _is_about(stored: StoredLetter, wanted: str) -> bool:
    if stored.id == wanted:
        return True
    return len(wanted) >= _LEAST_OF_ID and str(stored.task_id).startswith(wanted.lower())
