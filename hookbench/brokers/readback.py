"""Read back from a running broker what it really is: version, settings, durability.

Nothing is written, and nothing is guessed: what a broker does not tell stays out, and the report's
``problem`` says why.
"""

import asyncio
import contextlib
import json
import re
from collections.abc import Mapping
from typing import Any

import nats.errors
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from hookbench.brokers.classify import (
    NO_STREAM,
    REDIS_SETTINGS,
    REPLICATION,
    UNKNOWN_VERSION,
    BrokerReport,
    classify_nats,
    classify_redis,
)
from hookbench.brokers.probe import read_nats_info
from hookbench.brokers.resolve import NATS_MONITOR_URL_VARIABLE
from hookbench.cancellation import raise_if_cancelled
from hookbench.errors import BrokerUnreachableError, HookbenchError, SettingError
from hookbench.queues.access import redis_of
from hookbench.queues.addresses import host_and_port
from hookbench.queues.dialing import NETWORK, ByteReader, Dialer
from hookbench.queues.epochs import current_consumer
from hookbench.queues.redis_client import closed_is_never_sent
from hookbench.queues.transport import AppTransport
from hookbench.secrets import redact
from hookbench.task import Names

__all__ = [
    "check_monitor_url",
    "read_back_nats",
    "read_back_redis",
    "read_monitor",
    "sync_settings",
]

READ_TIMEOUT_S = 3.0
_MAX_ANSWER_BYTES = 4 * 1024 * 1024
_CHUNK_BYTES = 64 * 1024
_MONITOR_PORT = 8222
_NOT_FOUND = (10059, 10014)  # JSStreamNotFoundErr, JSConsumerNotFoundErr of nats-server
_REDIS_COUNTERS = ("total_net_input_bytes", "total_net_output_bytes")
_NATS_COUNTERS = ("in_bytes", "out_bytes", "in_msgs", "out_msgs")
_STREAM_FIELDS = {
    "storage": "storage",
    "num_replicas": "replicas",
    "duplicate_window": "duplicate_window_ns",
    "max_age": "max_age_ns",
    "persist_mode": "persist_mode",
}
_CONSUMER_FIELDS = {
    "ack_wait": "ack_wait_ns",
    "max_deliver": "max_deliver",
    "max_ack_pending": "max_ack_pending",
}


async def read_back_redis(url: str, *, origin: str, name: str = "redis") -> BrokerReport:
    """Version, ``CONFIG GET`` of what durability depends on, replication and byte counters.

    A ``CONFIG`` that is forbidden or renamed leaves the settings out.

    Args:
        url: of one node; ``redis_nodes`` has those of several.
        origin: of the report.
        name: of the report.
    """
    client = redis_of(
        url,
        socket_timeout=READ_TIMEOUT_S,
        socket_connect_timeout=READ_TIMEOUT_S,
        decode_responses=True,
        # Each command is bounded by the socket's timeout: the library's retries would multiply it.
        retry=Retry(NoBackoff(), 0),
    )
    closed_is_never_sent(client.connection_pool)
    version = UNKNOWN_VERSION
    configuration: dict[str, str] = {}
    counters: dict[str, int] = {}
    problem = None
    try:
        version = str((await client.info("server"))["redis_version"])
        stats = await client.info("stats")
        counters = {name: int(stats[name]) for name in _REDIS_COUNTERS if name in stats}
        for setting in REDIS_SETTINGS:
            answer = await client.config_get(setting)
            configuration |= {str(key): str(value) for key, value in answer.items()}
        configuration |= _replication(await client.info("replication"))
    except (RedisError, OSError, TimeoutError) as error:
        problem = f"not readable: {error or type(error).__name__}"
    finally:
        await client.aclose()
    raise_if_cancelled()
    missing = [setting for setting in REDIS_SETTINGS if setting not in configuration]
    if missing and problem is None:
        problem = f"not readable: CONFIG GET has no {', '.join(missing)}"
    return BrokerReport(
        name=name,
        version=version,
        origin=origin,
        configuration=configuration,
        durability=classify_redis(configuration),
        problem=problem,
        counters=counters,
    )


def _replication(info: Mapping[str, Any]) -> dict[str, str]:
    """``INFO replication``: of a master the replicas that are online, of a replica its link."""
    if info["role"] != "master":
        return {
            f"{REPLICATION}role": str(info["role"]),
            f"{REPLICATION}link": str(info["master_link_status"]),
        }
    replicas = [value for key, value in info.items() if re.fullmatch(r"slave\d+", key)]
    online = [replica for replica in replicas if replica["state"] == "online"]
    return {f"{REPLICATION}role": "master", f"{REPLICATION}replicas": str(len(online))}


async def read_back_nats(
    url: str, *, origin: str, monitor_url: str | None, names: Names, name: str = "nats"
) -> BrokerReport:
    """Version, limits, sync settings, the hook stream and its consumer on one NATS server.

    JetStream's sync settings are told by the monitoring endpoint ``/varz`` alone
    (https://docs.nats.io/running-a-nats-service/nats_admin/monitoring), so that without its URL
    the class of a stream on disk cannot be had.
    """
    configuration: dict[str, str] = {}
    counters: dict[str, int] = {}
    problems: list[str] = []
    info: dict[str, Any] = {}
    try:
        info = await read_nats_info(url)
        configuration["max_payload_bytes"] = str(info.get("max_payload", 0))
        configuration["cluster"] = str(info.get("cluster") or "none")
        configuration.update(await _ask_jetstream(url, names))
    except (HookbenchError, nats.errors.Error, OSError, TimeoutError) as error:
        problems.append(f"not readable: {error or type(error).__name__}")
    raise_if_cancelled()
    if monitor_url is None:
        problems.append(
            "sync settings not readable: no monitoring URL is known, give one with"
            f" --nats-monitor-url or {NATS_MONITOR_URL_VARIABLE}"
        )
    else:
        try:
            varz = await read_monitor(monitor_url, "/varz")
            if info and varz.get("server_id") != info.get("server_id"):
                raise BrokerUnreachableError(
                    f"{redact(monitor_url)} is the monitoring of another server"
                )
            configuration.update(sync_settings(varz))
            counters = {name: int(varz[name]) for name in _NATS_COUNTERS if name in varz}
        except HookbenchError as error:
            problems.append(f"sync settings not readable: {error}")
    return BrokerReport(
        name=name,
        version=str(info.get("version", UNKNOWN_VERSION)),
        origin=origin,
        configuration=configuration,
        durability=classify_nats(configuration),
        problem="; ".join(problems) or None,
        counters=counters,
    )


async def _ask_jetstream(url: str, names: Names) -> dict[str, str]:
    """Settings of the hook stream and its consumer; ``none`` for one that is not there.

    The answers are read as JSON, so that no setting is lost that the client does not know.
    """
    async with await AppTransport.connect(url, names=names) as transport:
        told: dict[str, str] = {}
        consumer = await current_consumer(transport)
        for kind, subject, fields in (
            ("stream", f"STREAM.INFO.{names.stream}", _STREAM_FIELDS),
            ("consumer", f"CONSUMER.INFO.{names.stream}.{consumer}", _CONSUMER_FIELDS),
        ):
            answer = await transport.client.request(f"$JS.API.{subject}", timeout=READ_TIMEOUT_S)
            data = json.loads(answer.data)
            if error := data.get("error"):
                if error.get("err_code") not in _NOT_FOUND:
                    raise BrokerUnreachableError(f"{kind}: {error.get('description', error)}")
                told[kind] = NO_STREAM
                continue
            told |= {
                f"{kind}.{shown}": str(data["config"][name])
                for name, shown in fields.items()
                if name in data["config"]
            }
        return told


def sync_settings(varz: Mapping[str, Any]) -> dict[str, str]:
    """``sync_interval_ns`` and ``sync_always``, which the server leaves out where it is false."""
    jetstream = varz.get("jetstream") or {}
    config = jetstream.get("config") or {}
    if "sync_interval" not in config:
        raise BrokerUnreachableError(
            "/varz has no jetstream.config.sync_interval (since NATS 2.10)"
        )
    return {
        "sync_interval_ns": str(config["sync_interval"]),
        "sync_always": "yes" if config.get("sync_always") else "no",
    }


def check_monitor_url(url: str) -> tuple[str, int]:
    """Host and port of a monitoring URL.

    Raises:
        SettingError: it is none.
    """
    found = host_and_port(url, "NATS monitoring", "http", _MONITOR_PORT)
    if found is None:
        raise SettingError(f"NATS monitoring URL {redact(url)!r}: use http://host:port")
    return found


async def read_monitor(url: str, path: str, *, dialer: Dialer = NETWORK) -> dict[str, Any]:
    """One endpoint of a NATS server's monitoring, within ``READ_TIMEOUT_S``.

    Args:
        url: of the monitoring.
        path: of the endpoint.
        dialer: opens the connection.

    Raises:
        SettingError: ``url`` is no monitoring URL.
        BrokerUnreachableError: no answer in time, or none that NATS would give.
    """
    host, port = check_monitor_url(url)
    # HTTP/1.0: the server closes after one answer, so that its end is the end of the answer.
    request = f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n"
    try:
        async with asyncio.timeout(READ_TIMEOUT_S):
            reader, writer = await dialer.stream(host, port)
            try:
                writer.write(request.encode())
                answer = await _read_to_end(reader)
            finally:
                writer.close()
                with contextlib.suppress(OSError):  # the other side may have closed it first
                    await writer.wait_closed()
        head, _, body = answer.partition(b"\r\n\r\n")
        status = head.split(b"\r\n", 1)[0].split(b" ")
        if len(status) < 2 or status[1] != b"200":  # noqa: PLR2004 - version, code
            raise BrokerUnreachableError(
                f"{redact(url)}{path} answers {head[:40]!r}: give the monitoring URL of the server"
            )
        value = json.loads(body)
    except (OSError, TimeoutError) as error:
        raise BrokerUnreachableError(
            f"{redact(url)} does not answer ({error or type(error).__name__}): is monitoring on?"
        ) from error
    except (ValueError, RecursionError) as error:
        raise BrokerUnreachableError(f"{redact(url)}{path} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise BrokerUnreachableError(f"{redact(url)}{path} is no object: {body[:40]!r}")
    return value


async def _read_to_end(reader: ByteReader) -> bytes:
    parts = bytearray()
    while chunk := await reader.read(_CHUNK_BYTES):
        parts += chunk
        if len(parts) > _MAX_ANSWER_BYTES:
            raise BrokerUnreachableError(f"an answer of more than {_MAX_ANSWER_BYTES} bytes")
    return bytes(parts)
