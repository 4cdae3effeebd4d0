"""Dead letters: tasks that are given up, and bytes that are none, kept with the reason."""

import base64
from typing import Protocol

import msgspec

from hookbench.errors import SettingError
from hookbench.ledger.events import Broker
from hookbench.queues.redis_client import RedisClient
from hookbench.queues.redis_errors import broker_errors
from hookbench.queues.replica_wait import write_replicated
from hookbench.queues.transport import AppTransport
from hookbench.task import Names

__all__ = [
    "DeadLetter",
    "DeadLetters",
    "MemoryDeadLetters",
    "NatsDeadLetters",
    "RedisDeadLetters",
    "RoutedDeadLetters",
]


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is kept of a task that is given up.

    Attributes:
        task_type: the queue that it came from.
        reason: why, for a person.
        broker: the broker that delivered it.
        attempts: deliveries until then; of a task that is claimed, claims.
        died_at_ns: wall clock, Unix epoch.
        payload_base64: the bytes as they were delivered.
        history: what is known of the attempts before, in lines; empty in older letters.
        worker: host and process that gave it up; empty in letters from before there was this field.
        sequence: in the hook stream of NATS, 0 for Redis and in older letters: by it bytes that are
            no task, and so have no id, are known to be buried.
    """

    task_type: str
    reason: str
    broker: str
    attempts: int
    died_at_ns: int
    payload_base64: str
    history: tuple[str, ...] = ()
    worker: str = ""
    sequence: int = 0

    @classmethod
    def of(
        cls,
        payload: bytes,
        *,
        task_type: str,
        reason: str,
        broker: Broker,
        attempts: int,
        died_at_ns: int,
        history: tuple[str, ...] = (),
        sequence: int = 0,
    ) -> "DeadLetter":
        """A letter about ``payload``."""
        return cls(
            task_type=task_type,
            reason=reason,
            broker=broker.name.lower(),
            attempts=attempts,
            died_at_ns=died_at_ns,
            payload_base64=base64.b64encode(payload).decode(),
            history=history,
            sequence=sequence,
        )

    @property
    def payload(self) -> bytes:
        """The bytes as they were delivered."""
        return base64.b64decode(self.payload_base64)


class DeadLetters(Protocol):
    """Where dead letters go. A letter is stored before its delivery is ended."""

    async def bury(self, letter: DeadLetter) -> None:
        """Store the letter durably.

        Raises:
            BrokerUnreachableError, PublishRefusedError, PublishUnknownError: it may not be
                stored; the delivery must not be ended.
        """
        ...


class MemoryDeadLetters:
    """In this process: for tests and the null queue."""

    def __init__(self) -> None:
        self.letters: list[DeadLetter] = []

    async def bury(self, letter: DeadLetter) -> None:
        """Keep the letter in a list."""
        self.letters.append(letter)


class RedisDeadLetters:
    """The list ``{hook}:{task_type}:dead``, newest first; with ``replicas``, so many have it."""

    def __init__(self, client: RedisClient, names: Names, *, replicas: int = 0) -> None:
        self._client = client
        self._names = names
        self._replicas = replicas

    async def bury(self, letter: DeadLetter) -> None:
        """LPUSH."""
        key = self._names.dead_key(letter.task_type)
        data = msgspec.json.encode(letter)
        if self._replicas:
            pipeline = self._client.pipeline(transaction=False)
            pipeline.lpush(key, data)
            await write_replicated(pipeline, self._replicas, f"LPUSH {key}")
            return
        with broker_errors(f"LPUSH {key}"):
            await self._client.lpush(key, data)


class NatsDeadLetters:
    """The stream of dead letters beside the hook stream; an oversize payload is cut, and so named.

    A dead letter is larger than its payload (base64, and the reason), so one near ``max_payload``
    would be refused and its task delivered for ever.
    """

    def __init__(self, transport: AppTransport) -> None:
        self._transport = transport

    async def bury(self, letter: DeadLetter, *, msg_id: str | None = None) -> None:
        """Publish, and wait for the acknowledgement; with an id, once within its window."""
        data = msgspec.json.encode(letter)
        room = self._transport.max_payload_bytes
        if len(data) > room:
            kept = max(0, (room - 4096) // 4 * 3)
            letter = msgspec.structs.replace(
                letter,
                reason=f"{letter.reason[:1024]} (first {kept} of {len(letter.payload)} bytes kept)",
                payload_base64=base64.b64encode(letter.payload[:kept]).decode(),
            )
            data = msgspec.json.encode(letter)
        subject = self._transport.names.dead_subject(letter.task_type)
        await self._transport.publish(subject, data, msg_id=msg_id)


class RoutedDeadLetters:
    """Each letter to the broker that delivered the task, with the name of the worker."""

    def __init__(self, worker: str = "") -> None:
        self._worker = worker
        self.redis: DeadLetters | None = None
        self.nats: DeadLetters | None = None

    async def bury(self, letter: DeadLetter) -> None:
        """Store the letter on its own broker."""
        target = self.redis if letter.broker == "redis" else self.nats
        if target is None:
            raise SettingError(f"no dead letters for broker {letter.broker}: it is not connected")
        await target.bury(msgspec.structs.replace(letter, worker=self._worker))
