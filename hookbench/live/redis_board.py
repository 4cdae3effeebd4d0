"""Phases in keys of Redis, with those of the queue."""

from collections.abc import AsyncIterator
from typing import Any, Protocol, cast

from hookbench.live.places import LEASE_S, SILENT_S
from hookbench.queues.redis_client import RedisClient
from hookbench.queues.redis_errors import broker_errors
from hookbench.task import Names

__all__ = ["RedisBoard"]


class _Keys(Protocol):
    """What every Redis client has beside the commands of the queues."""

    async def get(self, name: str) -> bytes | None: ...

    async def set(self, name: str, value: bytes, *, px: int | None = None) -> object: ...

    async def delete(self, *names: str) -> int: ...

    async def eval(self, script: str, numkeys: int, *keys_and_args: Any) -> Any: ...

    def scan_iter(self, match: str, count: int) -> AsyncIterator[bytes]: ...


# KEYS: lease, holder. The lease goes by itself; the holder stays and says who took the place last,
# which is how one that was away for longer finds out.
# ARGV: who takes it, who may be displaced, milliseconds.
_TAKE = """
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[2] then return held end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
redis.call('SET', KEYS[2], ARGV[1])
return false
"""
# ARGV: who holds it, milliseconds.
_RENEW = """
local last = redis.call('GET', KEYS[2])
if last ~= ARGV[1] then return last or '' end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return false
"""
# KEYS: phase, holder. ARGV: what is written, who writes.
_WRITE = """
local last = redis.call('GET', KEYS[2])
if last ~= ARGV[2] then return last or '' end
redis.call('SET', KEYS[1], ARGV[1])
return false
"""
# KEYS: lease. ARGV: who holds it.
_LET_GO = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""


class RedisBoard:
    """Keys of Redis, with those of the queue.

    Args:
        client: the commands.
        names: prefix of the keys.
        lease_s: for which an operator holds a place.
    """

    def __init__(self, client: RedisClient, names: Names, *, lease_s: float = LEASE_S) -> None:
        self._client = cast("_Keys", client)
        self._prefix = f"{names.prefix}:phase/"
        self._lease_ms = int(lease_s * 1000)

    async def read(self, key: str) -> bytes | None:
        """See ``Board``."""
        with broker_errors("GET of a phase"):
            return await self._client.get(f"{self._prefix}{key}")

    async def write(self, key: str, data: bytes, *, held_by: bytes | None = None) -> bytes | None:
        """See ``Board``."""
        name = f"{self._prefix}{key}"
        if held_by is None:
            with broker_errors("SET of a phase"):
                await self._client.set(name, data)
            return None
        return await self._run(_WRITE, (name, f"{name}/holder"), data, held_by)

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
        return await self._run(_TAKE, self._held(key), data, instead_of or b"", self._lease_ms)

    async def renew(self, key: str, data: bytes) -> bytes | None:
        """See ``Board``."""
        return await self._run(_RENEW, self._held(key), data, self._lease_ms)

    async def let_go(self, key: str, data: bytes) -> None:
        """See ``Board``."""
        await self._run(_LET_GO, self._held(key)[:1], data)

    def _held(self, key: str) -> tuple[str, ...]:
        return f"{self._prefix}{key}/operator", f"{self._prefix}{key}/holder"

    async def _run(self, script: str, keys: tuple[str, ...], *arguments: Any) -> bytes | None:
        with broker_errors("hold on a phase"):
            return cast(
                "bytes | None", await self._client.eval(script, len(keys), *keys, *arguments)
            )
