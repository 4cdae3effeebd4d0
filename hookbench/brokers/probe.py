"""Ask a server who it is, before anything is built on it."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import msgspec
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from hookbench.errors import (
    BrokerInUseError,
    BrokerUnreachableError,
    BrokerUnsuitableError,
    SettingError,
)
from hookbench.queues.access import nats_access, redis_of
from hookbench.queues.addresses import nats_nodes, redis_nodes
from hookbench.queues.dialing import NETWORK, PROBE_TIMEOUT_S, ByteReader, Dialer
from hookbench.secrets import redact, unreadable_url
from hookbench.task import Names

__all__ = [
    "MINIMUM_NATS",
    "MINIMUM_REDIS",
    "BrokerInfo",
    "check_nats_unused",
    "check_redis_unused",
    "probe_nats",
    "probe_redis",
    "read_nats_info",
]

MINIMUM_REDIS = (6, 2)  # BLMOVE and LMOVE: https://redis.io/docs/latest/commands/blmove/
MINIMUM_NATS = (2, 9)  # Nats-Pending-Messages on the end of a pull request (ADR-13 of NATS)
_SCAN_COUNT = 1000
_VERSION = re.compile(r"(\d+)\.(\d+)")
_EXAMPLES = 3


class BrokerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a server says of itself; ``max_payload_bytes`` is 0 where it has no such limit."""

    kind: str
    version: str
    max_payload_bytes: int = 0


def _numbers(version: str) -> tuple[int, ...]:
    """``(2, 15)`` of ``2.15.1-beta``, and nothing of what is no version."""
    found = _VERSION.match(version)
    return () if found is None else tuple(map(int, found.groups()))


def _at_least(version: str, minimum: tuple[int, int]) -> bool:
    return _numbers(version) >= minimum


async def probe_redis(url: str, *, dialer: Dialer = NETWORK) -> BrokerInfo:
    """Version of the Redis at ``url``; of several nodes the oldest, as far as they answer.

    One node that is down must not keep a process from starting, or no process could be started
    again while a rehearsal has a node down.

    Args:
        url: of the nodes.
        dialer: opens the connections.

    Raises:
        SettingError: the URL is no redis URL.
        BrokerUnreachableError: nothing answers, or the password is wrong.
        BrokerUnsuitableError: too old.
    """
    return await _oldest(partial(_probe_redis_node, dialer=dialer), redis_nodes(url))


async def _oldest(probe: Callable[[str], Awaitable[BrokerInfo]], urls: Sequence[str]) -> BrokerInfo:
    """What the node with the oldest version says, of those that answer; all are asked at once."""
    found = await asyncio.gather(*map(probe, urls), return_exceptions=True)
    infos = [item for item in found if isinstance(item, BrokerInfo)]
    errors = [item for item in found if isinstance(item, BaseException)]
    fatal = [item for item in errors if not isinstance(item, BrokerUnreachableError)]
    if fatal or not infos:
        raise (fatal or errors)[0]
    return min(infos, key=lambda info: _numbers(info.version))


async def _probe_redis_node(url: str, *, dialer: Dialer) -> BrokerInfo:
    try:
        client = dialer.probe(url)
    except ValueError as error:
        raise SettingError(unreadable_url("Redis", url)) from error
    try:
        info = await client.info("server")
    except (AuthenticationError, NoPermissionError) as error:
        raise BrokerUnreachableError(
            f"Redis at {redact(url)} refuses the credentials ({error}): see docs/security.md"
        ) from error
    except (RedisError, OSError, TimeoutError) as error:
        raise BrokerUnreachableError(
            f"Redis at {redact(url)} does not answer ({error}): start it, or give another URL with"
            " --redis-url or HOOKBENCH_REDIS_URL"
        ) from error
    finally:
        await client.aclose()
    version = str(info["redis_version"])
    if not _at_least(version, MINIMUM_REDIS):
        raise BrokerUnsuitableError(
            f"Redis {version} at {redact(url)} is too old: BLMOVE needs"
            f" {'.'.join(map(str, MINIMUM_REDIS))} or newer"
        )
    return BrokerInfo(kind="redis", version=version)


async def read_nats_info(url: str, *, dialer: Dialer = NETWORK) -> dict[str, Any]:
    """The INFO line that a NATS server sends first.

    Args:
        url: of the server.
        dialer: opens the connection.

    Raises:
        SettingError: the URL is no NATS URL.
        BrokerUnreachableError: nothing answers, or what answers is no NATS server.
    """
    try:
        parts = urlsplit(url if "//" in url else f"nats://{url}")
        host, port = parts.hostname, parts.port or 4222
    except ValueError as error:
        raise SettingError(unreadable_url("NATS", url)) from error
    if parts.scheme not in ("nats", "tls") or not host:
        raise SettingError(f"NATS URL {redact(url)!r}: use nats://host:port")
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            reader, writer = await dialer.stream(host, port)
            try:
                line = await _read_line(reader)
            finally:
                writer.close()
    except (OSError, TimeoutError) as error:
        raise BrokerUnreachableError(
            f"NATS at {redact(url)} does not answer ({error or type(error).__name__}): start it, or"
            " give another URL with --nats-url or HOOKBENCH_NATS_URL"
        ) from error
    if not line.startswith(b"INFO "):
        raise BrokerUnreachableError(f"{redact(url)} is no NATS server (it says {line[:40]!r})")
    try:
        info = json.loads(line[5:])
    except (ValueError, RecursionError) as error:
        raise BrokerUnreachableError(f"{redact(url)}: its INFO is no JSON ({error})") from error
    if not isinstance(info, dict):
        raise BrokerUnreachableError(f"{redact(url)}: its INFO is no object")
    return info


async def _read_line(reader: ByteReader) -> bytes:
    try:
        return await reader.readline()
    except ValueError:  # more than asyncio holds of a line: 64 KiB
        return b""


async def probe_nats(url: str, *, dialer: Dialer = NETWORK) -> BrokerInfo:
    """Version and limits of the NATS server at ``url``; of several nodes as of ``probe_redis``.

    Args:
        url: of the nodes.
        dialer: opens the connections.

    Raises:
        SettingError, BrokerUnreachableError: see ``read_nats_info``.
        BrokerUnsuitableError: too old, or without JetStream.
    """
    return await _oldest(partial(_probe_nats_node, dialer=dialer), nats_nodes(url))


async def _probe_nats_node(url: str, *, dialer: Dialer) -> BrokerInfo:
    info = await read_nats_info(url, dialer=dialer)
    version = str(info.get("version", "?"))
    if not _at_least(version, MINIMUM_NATS):
        raise BrokerUnsuitableError(
            f"NATS {version} at {redact(url)} is too old: use"
            f" {'.'.join(map(str, MINIMUM_NATS))} or newer"
        )
    if not info.get("jetstream"):
        raise BrokerUnsuitableError(
            f"NATS {version} at {redact(url)} has no JetStream: start it with -js, or with a"
            " jetstream block in its configuration"
        )
    return BrokerInfo(
        kind="nats", version=version, max_payload_bytes=int(info.get("max_payload", 0))
    )


async def check_redis_unused(url: str, names: Names) -> None:
    """Refuse a Redis of which a node holds keys of the hook queue; nothing is written.

    Raises:
        BrokerInUseError: the text names some of the keys.
        BrokerUnreachableError: a node does not answer.
    """
    for node in redis_nodes(url):
        await _check_redis_node_unused(node, names)


async def _check_redis_node_unused(url: str, names: Names) -> None:
    client = redis_of(url, socket_timeout=PROBE_TIMEOUT_S)
    found: list[str] = []
    try:
        for prefix in {Names().prefix, names.prefix}:
            async for key in client.scan_iter(match=f"{_glob(prefix)}*", count=_SCAN_COUNT):
                found.append(key.decode(errors="replace"))
                if len(found) >= _EXAMPLES:
                    break
    except (RedisError, OSError) as error:
        raise BrokerUnreachableError(f"Redis at {redact(url)}: {error}") from error
    finally:
        await client.aclose()
    if found:
        raise BrokerInUseError(
            f"Redis at {redact(url)} already holds hook queue keys ({', '.join(sorted(found))}):"
            " use another server or database, remove them, or say --allow-existing"
        )


def _glob(text: str) -> str:
    return "".join(f"\\{char}" if char in "*?[]\\" else char for char in text)


async def check_nats_unused(url: str, names: Names) -> None:
    """Refuse a NATS server or cluster that holds a hook stream; nothing is written.

    Raises:
        BrokerInUseError: the text names the stream.
    """
    import nats.errors  # noqa: PLC0415 - 0.1 s that only somebody else's server costs
    import nats.js.errors  # noqa: PLC0415

    from hookbench.queues.reconnecting import connect_client  # noqa: PLC0415

    servers, access = nats_access(url)
    client = await connect_client(servers, connect_timeout=3, max_reconnect_attempts=1, **access)
    try:
        for stream in {Names().stream, names.stream}:
            try:
                info = await client.jetstream().stream_info(stream)
            except nats.js.errors.NotFoundError:
                continue
            raise BrokerInUseError(
                f"NATS at {redact(url)} already holds stream {stream} with"
                f" {info.state.messages} tasks: use another server, remove it, or say"
                " --allow-existing"
            )
    except (nats.errors.Error, TimeoutError) as error:
        raise BrokerUnreachableError(f"NATS at {redact(url)}: {error!r}") from error
    finally:
        await client.close()
