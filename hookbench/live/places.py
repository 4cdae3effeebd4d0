"""Where a fleet finds its phase: a key of Redis, a key of a NATS bucket, or a file.

A place holds what a phase file holds. Who follows a key says there what it is and in which phase,
again and again: who says nothing for ``SILENT_S`` is gone. Who follows a file says so in the lines
that it prints with ``--json``.
"""

import contextlib
import fcntl
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Protocol, cast

import msgspec
import nats.errors
import nats.js.errors
from nats.js.api import KeyValueConfig, RawStreamMsg, StorageType

from hookbench.decoding import decode_json
from hookbench.errors import BrokerUnreachableError, SettingError
from hookbench.migration.phases import Phase, PhaseFile, parse_phase
from hookbench.queues.jetstream import StreamSettings
from hookbench.queues.redis_client import RedisClient
from hookbench.queues.redis_errors import broker_errors
from hookbench.queues.stream_windows import read_windows
from hookbench.queues.transport import AppTransport
from hookbench.task import Names

__all__ = [
    "LEASE_S",
    "SILENT_S",
    "Board",
    "FileBoard",
    "NatsBoard",
    "Place",
    "PlaceKind",
    "RedisBoard",
    "decode_step",
    "encode_step",
    "parse_place",
]

SILENT_S = 10.0
LEASE_S = 15.0
"""For which an operator holds a place on a broker, see ``hold``."""
_HOLD_ROUNDS = 3
_LONGEST_OPERATOR = 4096
_KEY = re.compile(r"[A-Za-z0-9_-]{1,100}")
_NAME = re.compile(r"[^A-Za-z0-9_-]+")
PlaceKind = str
REDIS, NATS, FILE = "redis", "nats", "file"
_EXPECTED = "Nats-Expected-Last-Subject-Sequence"
_WRONG_SEQUENCE = 10071


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """``redis:KEY``, ``nats:KEY`` or ``file:PATH``."""

    kind: PlaceKind
    key: str

    @property
    def text(self) -> str:
        """As it is written."""
        return f"{self.kind}:{self.key}"


class _Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    index: int
    phase: str


def parse_place(text: str) -> Place:
    """A place as it is written.

    Raises:
        SettingError: it is none.
    """
    kind, colon, key = text.partition(":")
    if colon and kind == FILE and key:
        return Place(kind=FILE, key=str(Path(key).resolve()))
    if colon and kind in (REDIS, NATS) and _KEY.fullmatch(key):
        return Place(kind=kind, key=key)
    raise SettingError(
        f"place of a phase {text!r}: use redis:KEY, nats:KEY (of letters, digits, - and _) or"
        " file:PATH"
    )


def encode_step(index: int, phase: Phase) -> bytes:
    """What a place holds."""
    return msgspec.json.encode(_Step(index=index, phase=phase.label))


def decode_step(place: Place, data: bytes | None) -> tuple[int, Phase]:
    """Index of the step, and its phase.

    Raises:
        SettingError: there is none, or something else.
    """
    if data is None:
        raise SettingError(
            f"{place.text} holds no phase: give it one with hookbench phase set {place.text} PHASE"
        )
    try:
        step = decode_json(data, _Step)
    except msgspec.MsgspecError as error:
        raise SettingError(f"{place.text} holds no phase: {error}") from error
    return step.index, parse_phase(step.phase)


class Board(Protocol):
    """The places of one kind."""

    async def read(self, key: str) -> bytes | None:
        """What a place holds, ``None`` for nothing."""
        ...

    async def write(self, key: str, data: bytes) -> None:
        """Put something there."""
        ...

    async def announce(self, key: str, name: str, data: bytes) -> None:
        """Say something as a follower; it is forgotten after ``SILENT_S``."""
        ...

    async def retract(self, key: str, name: str) -> None:
        """Have it forgotten now."""
        ...

    async def announced(self, key: str) -> dict[str, bytes]:
        """What each follower said last."""
        ...

    async def hold(self, key: str, data: bytes, *, instead_of: bytes | None = None) -> bytes | None:
        """Hold a place as an operator, or go on holding it, for ``LEASE_S`` on a broker.

        Args:
            key: of the place.
            data: who holds it.
            instead_of: who may be displaced: the same operator, or one that is gone.

        Returns:
            Who holds it in the way of that; ``None`` if it is held now.
        """
        ...

    async def let_go(self, key: str, data: bytes) -> None:
        """No longer hold a place; nothing if somebody else holds it."""
        ...


class _Keys(Protocol):
    """What every Redis client has beside the commands of the queues."""

    async def get(self, name: str) -> bytes | None: ...

    async def set(self, name: str, value: bytes, *, px: int | None = None) -> object: ...

    async def delete(self, *names: str) -> int: ...

    async def eval(self, script: str, numkeys: int, *keys_and_args: Any) -> Any: ...

    def scan_iter(self, match: str, count: int) -> AsyncIterator[bytes]: ...


_HOLD = """
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[2] then return held end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
return false
"""
_LET_GO = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""


class RedisBoard:
    """Keys of Redis, with those of the queue.

    Args:
        client: the commands.
        names: prefix of the keys.
    """

    def __init__(self, client: RedisClient, names: Names) -> None:
        self._client = cast("_Keys", client)
        self._prefix = f"{names.prefix}:phase/"

    async def read(self, key: str) -> bytes | None:
        """See ``Board``."""
        with broker_errors("GET of a phase"):
            return await self._client.get(f"{self._prefix}{key}")

    async def write(self, key: str, data: bytes) -> None:
        """See ``Board``."""
        with broker_errors("SET of a phase"):
            await self._client.set(f"{self._prefix}{key}", data)

    async def announce(self, key: str, name: str, data: bytes) -> None:
        """See ``Board``."""
        with broker_errors("SET of an announcement"):
            await self._client.set(
                f"{self._prefix}{key}/said/{name}", data, px=int(SILENT_S * 1000)
            )

    async def retract(self, key: str, name: str) -> None:
        """See ``Board``."""
        with broker_errors("DEL of an announcement"):
            await self._client.delete(f"{self._prefix}{key}/said/{name}")

    async def announced(self, key: str) -> dict[str, bytes]:
        """See ``Board``."""
        prefix = f"{self._prefix}{key}/said/"
        found: dict[str, bytes] = {}
        with broker_errors("SCAN for announcements"):
            async for raw in self._client.scan_iter(match=f"{prefix}*", count=1000):
                name = raw.decode()
                data = await self._client.get(name)
                if data is not None:
                    found[name.removeprefix(prefix)] = data
        return found

    async def hold(self, key: str, data: bytes, *, instead_of: bytes | None = None) -> bytes | None:
        """See ``Board``."""
        arguments = (f"{self._prefix}{key}/operator", data, instead_of or b"", int(LEASE_S * 1000))
        with broker_errors("hold on a phase"):
            return cast("bytes | None", await self._client.eval(_HOLD, 1, *arguments))

    async def let_go(self, key: str, data: bytes) -> None:
        """See ``Board``."""
        with broker_errors("end of a hold on a phase"):
            await self._client.eval(_LET_GO, 1, f"{self._prefix}{key}/operator", data)


class NatsBoard:
    """Keys of buckets of JetStream: one for phases, one for announcements, one for operators.

    Args:
        transport: the connection.
        stream: whose storage and replicas the buckets get.
    """

    def __init__(self, transport: AppTransport, stream: StreamSettings) -> None:
        self._transport = transport
        self._stream = stream
        self._phases = f"{transport.names.stream}_phases"
        self._said = f"{transport.names.stream}_fleet"
        self._operators = f"{transport.names.stream}_operators"
        self._made: set[str] = set()

    async def read(self, key: str) -> bytes | None:
        """See ``Board``."""
        message = await self._get(self._phases, key)
        return None if message is None else message.data

    async def write(self, key: str, data: bytes) -> None:
        """See ``Board``."""
        await self._put(self._phases, key, data, 0.0)

    async def announce(self, key: str, name: str, data: bytes) -> None:
        """See ``Board``."""
        await self._put(self._said, f"{key}.{_NAME.sub('_', name)}", data, SILENT_S)

    async def retract(self, key: str, name: str) -> None:
        """See ``Board``; an empty entry counts as none."""
        await self._put(self._said, f"{key}.{_NAME.sub('_', name)}", b"", SILENT_S)

    async def announced(self, key: str) -> dict[str, bytes]:
        """See ``Board``."""
        prefix = f"$KV.{self._said}.{key}."
        found: dict[str, bytes] = {}
        reading = read_windows(self._transport, f"KV_{self._said}", subject=f"{prefix}>")
        async with contextlib.aclosing(reading) as windows:
            async for window in windows:
                for item in window:
                    found[item.subject.removeprefix(prefix)] = item.payload
        return {name: data for name, data in found.items() if data}

    async def hold(self, key: str, data: bytes, *, instead_of: bytes | None = None) -> bytes | None:
        """See ``Board``; an empty entry counts as none."""
        for _round in range(_HOLD_ROUNDS):
            found = await self._get(self._operators, key)
            held = None if found is None else found.data
            if held and held != instead_of:
                return held
            over = 0 if found is None else found.seq or 0
            if await self._put(self._operators, key, data, LEASE_S, over=over):
                return None
        raise BrokerUnreachableError(f"bucket {self._operators}: {key} changes all the time")

    async def let_go(self, key: str, data: bytes) -> None:
        """See ``Board``."""
        found = await self._get(self._operators, key)
        if found is not None and found.data == data:
            await self._put(self._operators, key, b"", LEASE_S, over=found.seq or 0)

    async def _get(self, bucket: str, key: str) -> RawStreamMsg | None:
        try:
            return await self._transport.jetstream.get_last_msg(
                f"KV_{bucket}", f"$KV.{bucket}.{key}"
            )
        except nats.js.errors.NotFoundError:
            return None
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise BrokerUnreachableError(f"{key} in {bucket}: {error!r}") from error

    async def _put(
        self, bucket: str, key: str, data: bytes, ttl_s: float, *, over: int | None = None
    ) -> bool:
        """Put something there; ``False`` if ``over`` is not the sequence of what lies there."""
        headers = None if over is None else {_EXPECTED: str(over)}
        try:
            if bucket not in self._made:
                await self._make(bucket, ttl_s)
                self._made.add(bucket)
            if not self._transport.client.is_connected:
                raise BrokerUnreachableError("NATS is not connected (reconnecting)")
            await self._transport.jetstream.publish(f"$KV.{bucket}.{key}", data, headers=headers)
        except nats.js.errors.APIError as error:
            if error.err_code == _WRONG_SEQUENCE:
                return False
            raise BrokerUnreachableError(f"bucket {bucket}: {error!r}") from error
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise BrokerUnreachableError(f"bucket {bucket}: {error!r}") from error
        return True

    async def _make(self, bucket: str, ttl_s: float) -> None:
        try:
            await self._transport.jetstream.stream_info(f"KV_{bucket}")
        except nats.js.errors.NotFoundError:
            await self._transport.jetstream.create_key_value(
                KeyValueConfig(
                    bucket=bucket,
                    history=1,
                    ttl=ttl_s or None,
                    storage=StorageType(self._stream.storage),
                    replicas=self._stream.replicas,
                )
            )


class FileBoard:
    """Phase files; who follows one prints what it is, and says nothing here."""

    def __init__(self) -> None:
        self._locks: dict[str, int] = {}

    async def read(self, key: str) -> bytes | None:
        """See ``Board``."""
        file = PhaseFile(Path(key))
        return encode_step(*file.read()) if file.exists() else None

    async def write(self, key: str, data: bytes) -> None:
        """See ``Board``."""
        index, phase = decode_step(Place(kind=FILE, key=key), data)
        path = Path(key)
        if not path.parent.is_dir():
            raise SettingError(f"file:{key}: there is no folder {path.parent}")
        PhaseFile(path).write(index, phase)

    async def announce(self, key: str, name: str, data: bytes) -> None:
        """Printed by its process."""

    async def retract(self, key: str, name: str) -> None:
        """Printed by its process."""

    async def announced(self, key: str) -> dict[str, bytes]:
        """Nothing: it is in what its followers print."""
        del key
        return {}

    async def hold(self, key: str, data: bytes, *, instead_of: bytes | None = None) -> bytes | None:
        """See ``Board``; nobody is displaced, for the lock of a process ends with it."""
        del instead_of
        if key in self._locks:
            return None
        path = _lock_file(key)
        try:
            for _round in range(_HOLD_ROUNDS):
                found = _lock(path)
                if isinstance(found, bytes):
                    return found
                # Whoever let go in between has removed the file: then it is another one's.
                if path.exists() and os.path.samestat(os.fstat(found), path.stat()):
                    os.ftruncate(found, 0)
                    os.write(found, data)
                    self._locks[key] = found
                    return None
                os.close(found)
        except OSError as error:
            raise SettingError(f"file:{key}: it cannot be held: {path}: {error}") from error
        raise SettingError(f"file:{key}: {path} changes all the time; call it again")

    async def let_go(self, key: str, data: bytes) -> None:
        """See ``Board``; removed before it is unlocked, so that nobody gets a lock on nothing."""
        del data
        descriptor = self._locks.pop(key, None)
        if descriptor is not None:
            _lock_file(key).unlink(missing_ok=True)
            os.close(descriptor)


def _lock_file(key: str) -> Path:
    """Beside the phase file, which is renamed over at each change."""
    path = Path(key)
    return path.with_name(f".{path.name}.operator")


def _lock(path: Path) -> int | bytes:
    """A descriptor with the lock, or what the file of another one's lock says."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        said = os.read(descriptor, _LONGEST_OPERATOR)
        os.close(descriptor)
        return said
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
