"""Phases in keys of buckets of JetStream."""

import contextlib
import re
from urllib.parse import quote, unquote

import nats.errors
import nats.js.errors
from nats.js.api import KeyValueConfig, RawStreamMsg, StorageType

from hookbench.errors import BrokerUnreachableError
from hookbench.live.places import LEASE_S, SILENT_S
from hookbench.queues.jetstream import StreamSettings
from hookbench.queues.stream_windows import read_windows
from hookbench.queues.transport import AppTransport

__all__ = ["NatsBoard"]

_ROUNDS = 3
_NAME = re.compile(r"[^A-Za-z0-9_-]+")
_EXPECTED = "Nats-Expected-Last-Subject-Sequence"
_WRONG_SEQUENCE = 10071
_HOLDER = "Hookbench-Operator"
"""Header of a phase: who took its place last, which is how one that was away finds out."""


class NatsBoard:
    """Keys of buckets of JetStream: one for phases, one for announcements, one for operators.

    Whoever takes a place writes its phase over as it is, in its own name: from then on nobody who
    expects an earlier sequence of it can write.

    Args:
        transport: the connection.
        stream: whose storage and replicas the buckets get.
        lease_s: for which an operator holds a place.
    """

    def __init__(
        self, transport: AppTransport, stream: StreamSettings, *, lease_s: float = LEASE_S
    ) -> None:
        self._transport = transport
        self._stream = stream
        self._lease_s = lease_s
        self._phases = f"{transport.names.stream}_phases"
        self._said = f"{transport.names.stream}_fleet"
        self._operators = f"{transport.names.stream}_operators"
        self._made: set[str] = set()

    async def read(self, key: str) -> bytes | None:
        """See ``Board``."""
        message = await self._get(self._phases, key)
        return None if message is None else message.data

    async def write(self, key: str, data: bytes, *, held_by: bytes | None = None) -> bytes | None:
        """See ``Board``."""
        if held_by is None:
            await self._put(self._phases, key, data, 0.0)
            return None
        for _round in range(_ROUNDS):
            found = await self._get(self._phases, key)
            if found is not None and _holder(found) != held_by:
                return _holder(found)
            if await self._put(self._phases, key, data, 0.0, over=_sequence(found), by=held_by):
                return None
        raise BrokerUnreachableError(f"bucket {self._phases}: {key} changes all the time")

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
        held = await self._lease(key, data, instead_of)
        if held is None:
            await self._sign(key, data)
        return held

    async def renew(self, key: str, data: bytes) -> bytes | None:
        """See ``Board``."""
        found = await self._get(self._phases, key)
        if found is not None and _holder(found) != data:
            return _holder(found)
        return await self._lease(key, data, data)

    async def _lease(self, key: str, data: bytes, instead_of: bytes | None) -> bytes | None:
        """Who else has the lease; ``None`` if it is had now."""
        for _round in range(_ROUNDS):
            found = await self._get(self._operators, key)
            held = None if found is None else found.data
            if held and held != instead_of:
                return held
            over = _sequence(found)
            if await self._put(self._operators, key, data, self._lease_s, over=over):
                return None
        raise BrokerUnreachableError(f"bucket {self._operators}: {key} changes all the time")

    async def _sign(self, key: str, data: bytes) -> None:
        """Write the phase over as it is, if there is one."""
        for _round in range(_ROUNDS):
            found = await self._get(self._phases, key)
            if found is None:
                return
            said, over = found.data or b"", _sequence(found)
            if await self._put(self._phases, key, said, 0.0, over=over, by=data):
                return
        raise BrokerUnreachableError(f"bucket {self._phases}: {key} changes all the time")

    async def let_go(self, key: str, data: bytes) -> None:
        """See ``Board``."""
        found = await self._get(self._operators, key)
        if found is not None and found.data == data:
            await self._put(self._operators, key, b"", self._lease_s, over=_sequence(found))

    async def _get(self, bucket: str, key: str) -> RawStreamMsg | None:
        try:
            return await self._transport.jetstream.get_last_msg(
                f"KV_{bucket}", f"$KV.{bucket}.{key}"
            )
        except nats.js.errors.NotFoundError:
            return None
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise BrokerUnreachableError(_unanswered(bucket, key, error)) from error

    async def _put(
        self,
        bucket: str,
        key: str,
        data: bytes,
        ttl_s: float,
        *,
        over: int | None = None,
        by: bytes | None = None,
    ) -> bool:
        """Put something there; ``False`` if ``over`` is not the sequence of what lies there."""
        headers = {} if over is None else {_EXPECTED: str(over)}
        if by is not None:
            headers[_HOLDER] = quote(by)
        try:
            if bucket not in self._made:
                await self._make(bucket, ttl_s)
                self._made.add(bucket)
            if not self._transport.client.is_connected:
                raise BrokerUnreachableError("NATS is not connected (reconnecting)")
            await self._transport.jetstream.publish(
                f"$KV.{bucket}.{key}", data, headers=headers or None
            )
        except nats.js.errors.APIError as error:
            if error.err_code == _WRONG_SEQUENCE:
                return False
            raise BrokerUnreachableError(f"bucket {bucket}: {error!r}") from error
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise BrokerUnreachableError(_unanswered(bucket, key, error)) from error
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


def _unanswered(bucket: str, key: str, error: Exception) -> str:
    """NATS does not answer what a user may not do."""
    return (
        f"NATS did not answer for {key} in the bucket {bucket} ({error!r}): it has no leader at the"
        " moment, or this user may not do that, see hookbench acl"
    )


def _sequence(found: RawStreamMsg | None) -> int:
    """What a put over it has to expect; 0 for nothing."""
    return 0 if found is None else found.seq or 0


def _holder(found: RawStreamMsg) -> bytes:
    """Who took the place last, empty if nobody says so."""
    return unquote((found.headers or {}).get(_HOLDER, "")).encode()
