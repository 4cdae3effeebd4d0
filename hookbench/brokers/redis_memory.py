"""What a Redis does when its memory is full, and how near that is (hazard R6)."""

import asyncio
from functools import partial

import msgspec
from redis.exceptions import RedisError

from hookbench.errors import BrokerUnreachableError, BrokerUnsuitableError
from hookbench.queues.addresses import redis_nodes
from hookbench.queues.dialing import NETWORK, Dialer
from hookbench.secrets import redact

__all__ = ["HEADROOM", "RedisMemory", "check_redis_memory", "read_redis_memory"]

KEEPS = "noeviction"
"""The one policy under which Redis removes nothing by itself."""

HEADROOM = 0.1
"""Part of maxmemory that is to be free."""

_SCRIPT_FLAGS_SINCE = 7  # https://redis.io/docs/latest/develop/programmability/lua-api/


class RedisMemory(msgspec.Struct, frozen=True, kw_only=True):
    """One node: ``maxmemory_bytes`` is 0 without a limit."""

    url: str
    version: str
    policy: str
    used_bytes: int
    maxmemory_bytes: int

    @property
    def problem(self) -> str:
        """Why tasks are not safe there, empty if they are."""
        if self.policy != KEEPS:
            return (
                f"Redis at {self.url} evicts keys when it is full (maxmemory-policy {self.policy}),"
                f" and a queue is one key: set maxmemory-policy {KEEPS}"
            )
        return ""

    @property
    def warning(self) -> str:
        """What is going to be a problem, empty if nothing is."""
        if self.problem:
            return self.problem
        free = self.maxmemory_bytes - self.used_bytes
        if self.maxmemory_bytes and free < HEADROOM * self.maxmemory_bytes:
            return (
                f"Redis at {self.url} uses {self.used_bytes} of {self.maxmemory_bytes} bytes"
                " (maxmemory): when it is full it takes no task; raise the limit or add workers"
            )
        return ""


async def read_redis_memory(url: str, *, dialer: Dialer = NETWORK) -> list[RedisMemory]:
    """Of each node at ``url`` that answers.

    Args:
        url: of the nodes.
        dialer: opens the connections.

    Raises:
        SettingError: the URL is none.
        BrokerUnreachableError: no node answers.
    """
    nodes = redis_nodes(url)
    found = await asyncio.gather(
        *map(partial(_read_node, dialer=dialer), nodes), return_exceptions=True
    )
    read = [item for item in found if isinstance(item, RedisMemory)]
    errors = [item for item in found if isinstance(item, BaseException)]
    fatal = [item for item in errors if not isinstance(item, BrokerUnreachableError)]
    if fatal or not read:
        raise (fatal or errors)[0]
    return read


async def check_redis_memory(url: str, *, dialer: Dialer = NETWORK) -> None:
    """Refuse a Redis that evicts, or that is too old for claims at maxmemory.

    Args:
        url: of the nodes.
        dialer: opens the connections.

    Raises:
        BrokerUnsuitableError: the text says which node, and what to set.
        SettingError, BrokerUnreachableError: see ``read_redis_memory``.
    """
    for node in await read_redis_memory(url, dialer=dialer):
        if node.problem:
            raise BrokerUnsuitableError(node.problem)
        if int(node.version.partition(".")[0]) < _SCRIPT_FLAGS_SINCE:
            raise BrokerUnsuitableError(
                f"Redis {node.version} at {node.url} is too old for claims at maxmemory: use"
                f" {_SCRIPT_FLAGS_SINCE}.0 or newer, or switch the measure oom_claims off"
            )


async def _read_node(url: str, *, dialer: Dialer) -> RedisMemory:
    client = dialer.probe(url)
    try:
        memory = await client.info("memory")
        server = await client.info("server")
    except (RedisError, OSError, TimeoutError) as error:
        raise BrokerUnreachableError(
            f"Redis at {redact(url)} does not say how full it is: {error}"
        ) from error
    finally:
        await client.aclose()
    return RedisMemory(
        url=redact(url),
        version=str(server["redis_version"]),
        policy=str(memory["maxmemory_policy"]),
        used_bytes=int(memory["used_memory"]),
        maxmemory_bytes=int(memory["maxmemory"]),
    )
