"""The hook queue on NATS JetStream: the guide's stream and consumer, and a queue over them."""

from collections.abc import Mapping
from typing import Any, Self

import msgspec
import nats.errors
import nats.js.errors
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    ConsumerInfo,
    DeliverPolicy,
    RetentionPolicy,
    StorageType,
    StreamConfig,
    StreamInfo,
)

from hookbench.errors import BrokerUnreachableError, BrokerUnsuitableError, ConfigDriftError
from hookbench.ledger.events import Broker
from hookbench.queues.base import Capabilities, Delivery, Depth
from hookbench.queues.transport import AppTransport

__all__ = [
    "ConsumerSettings",
    "JetStreamQueue",
    "StreamSettings",
    "consumer_config",
    "differences_of",
    "ensure_consumer",
    "ensure_dead_stream",
    "ensure_durable",
    "ensure_named_stream",
    "ensure_stream",
]

SEVEN_DAYS_S = 7 * 24 * 3600.0
GUIDE_ACK_WAIT_S = 30.0
GUIDE_DUPLICATE_WINDOW_S = 120.0
_NO_LEADER = 10008
"""A cluster has no leader now (JSClusterNotAvailErr); it may have one a moment later."""


class StreamSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The guide's ``nats stream add HOOK_QUEUE``; replicas and storage as the topology allows.

    The duplicate window is what the ``nats`` tool sets when the guide's command leaves it out.
    """

    max_age_s: float = SEVEN_DAYS_S
    max_msgs: int = -1
    storage: str = "file"
    replicas: int = 1
    duplicate_window_s: float = GUIDE_DUPLICATE_WINDOW_S


class ConsumerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The guide's ``nats consumer add HOOK_QUEUE hook-sync-worker``, with the default AckWait."""

    task_type: str = "sync"
    ack_wait_s: float = GUIDE_ACK_WAIT_S
    max_deliver: int = 3
    max_ack_pending: int = 100


def differences_of(wanted: Mapping[str, Any], found: object) -> list[str]:
    """What a config has otherwise than wanted, a line for each setting."""
    lines = []
    for field, value in wanted.items():
        actual = getattr(found, field)
        if actual != value:
            lines.append(f"{field}: wanted {_plain(value)}, found {_plain(actual)}")
    return lines


def _plain(value: object) -> object:
    return getattr(value, "value", value)


async def ensure_stream(
    transport: AppTransport, settings: StreamSettings | None = None
) -> StreamInfo:
    """Create the hook stream, or check that the existing one is what is wanted.

    Raises:
        ConfigDriftError: the stream exists with other settings; the text lists them.
        BrokerUnsuitableError: the server has no JetStream, or refuses the stream.
    """
    settings = settings or StreamSettings()
    wanted = {
        "subjects": [f"{transport.names.subject_root}.>"],
        "retention": RetentionPolicy.LIMITS,
        "max_msgs": settings.max_msgs,
        "max_age": settings.max_age_s,
        "storage": StorageType(settings.storage),
        "num_replicas": settings.replicas,
        "duplicate_window": settings.duplicate_window_s,
    }
    return await ensure_named_stream(transport, transport.names.stream, wanted)


async def ensure_dead_stream(
    transport: AppTransport, *, storage: str = "file", replicas: int = 1
) -> StreamInfo:
    """Create or check the stream of dead letters, which keeps them without an age limit."""
    wanted = {
        "subjects": [f"dead.{transport.names.subject_root}.>"],
        "retention": RetentionPolicy.LIMITS,
        "max_age": 0.0,
        "storage": StorageType(storage),
        "num_replicas": replicas,
    }
    return await ensure_named_stream(transport, transport.names.dead_stream, wanted)


async def ensure_named_stream(
    transport: AppTransport, name: str, wanted: dict[str, Any]
) -> StreamInfo:
    """Create a stream, or check that the existing one has the wanted settings.

    Raises:
        ConfigDriftError, BrokerUnsuitableError, BrokerUnreachableError: see ``ensure_stream``.
    """
    jetstream = transport.streams
    try:
        try:
            info = await jetstream.stream_info(name)
        except nats.js.errors.NotFoundError:
            config = StreamConfig(name=name, **wanted)
            return await jetstream.add_stream(config)
    except nats.js.errors.ServiceUnavailableError as error:
        if error.err_code == _NO_LEADER:
            raise BrokerUnreachableError(f"stream {name}: {error.description}") from error
        raise BrokerUnsuitableError(
            "this NATS server has no JetStream: start it with -js (or jetstream {} in its file)"
        ) from error
    except nats.js.errors.APIError as error:
        raise BrokerUnsuitableError(f"stream {name}: the server refused it: {error}") from error
    except (nats.errors.Error, TimeoutError) as error:
        raise BrokerUnreachableError(
            f"stream {name}: no answer ({type(error).__name__})"
        ) from error
    differences = differences_of(wanted, info.config)
    if differences:
        raise ConfigDriftError(
            f"stream {name} exists with other settings ({'; '.join(differences)}): change it with"
            f" 'nats stream edit {name}', remove it, or use another name"
        )
    return info


async def ensure_consumer(
    transport: AppTransport, settings: ConsumerSettings | None = None
) -> ConsumerInfo:
    """Create the guide's consumer, or check that the existing one is what is wanted.

    Created late, it starts at the first task of the stream: ``deliver all`` (hazard P5).

    Raises:
        ConfigDriftError: the consumer exists with other settings; the text lists them.
        BrokerUnsuitableError: the server refuses the consumer, or the stream is missing.
    """
    settings = settings or ConsumerSettings()
    names = transport.names
    wanted = consumer_config(transport, settings) | {"deliver_policy": DeliverPolicy.ALL}
    return await ensure_durable(transport, names.consumer, wanted)


def consumer_config(transport: AppTransport, settings: ConsumerSettings) -> dict[str, Any]:
    """What the guide's consumer has, but for where it starts."""
    return {
        "filter_subject": transport.names.subject(settings.task_type),
        "ack_policy": AckPolicy.EXPLICIT,
        "max_deliver": settings.max_deliver,
        "max_ack_pending": settings.max_ack_pending,
        "ack_wait": settings.ack_wait_s,
    }


async def ensure_durable(
    transport: AppTransport,
    name: str,
    wanted: Mapping[str, Any],
    *,
    at_first: Mapping[str, Any] | None = None,
) -> ConsumerInfo:
    """Create a durable consumer, or check that the existing one is what is wanted.

    Args:
        transport: the connection.
        name: of the consumer.
        wanted: its settings, in the words of ``ConsumerConfig``.
        at_first: further ones that it is created with, and that may differ later.

    Raises:
        ConfigDriftError, BrokerUnsuitableError, BrokerUnreachableError: see ``ensure_consumer``.
    """
    stream = transport.names.stream
    jetstream = transport.streams
    info: ConsumerInfo
    try:
        try:
            info = await jetstream.consumer_info(stream, name)
        except nats.js.errors.NotFoundError:
            config = ConsumerConfig(durable_name=name, **wanted, **(at_first or {}))
            info = await jetstream.add_consumer(stream, config)
    except nats.js.errors.APIError as error:
        if error.err_code == _NO_LEADER:
            raise BrokerUnreachableError(f"consumer {name}: {error.description}") from error
        raise BrokerUnsuitableError(f"consumer {name} of {stream}: {error}") from error
    except (nats.errors.Error, TimeoutError) as error:
        raise BrokerUnreachableError(
            f"consumer {name}: no answer ({type(error).__name__})"
        ) from error
    differences = differences_of(wanted, info.config)
    if differences:
        raise ConfigDriftError(
            f"consumer {name} of {stream} exists with other settings"
            f" ({'; '.join(differences)}): edit or remove it, or use another name"
        )
    return info


class JetStreamQueue:
    """One task type of the hook queue on JetStream; stream and consumer must exist."""

    name = "jetstream"
    capabilities = Capabilities(
        redelivery=True, delayed_nak=True, in_progress=True, attempts=True, ordered=True
    )
    broker = Broker.NATS

    def __init__(self, transport: AppTransport, *, task_type: str = "sync") -> None:
        self._transport = transport
        self._subject = transport.names.subject(task_type)
        self._closed = False

    async def put(self, payload: bytes) -> int:
        """Publish and wait; the stream sequence."""
        return (await self._transport.publish(self._subject, payload)).sequence

    async def receive(self, limit: int, wait_s: float) -> list[Delivery]:
        """Pull up to ``limit`` tasks."""
        if self._closed:
            return []
        return [*await self._transport.pull(self._subject, limit, wait_s)]

    async def depth(self) -> Depth:
        """What the consumer has not delivered, and what it waits for an acknowledgement of.

        Raises:
            BrokerUnreachableError: no answer, or there is no such consumer.
        """
        names = self._transport.names
        durable = self._transport.consumer_of(self._subject) or names.consumer
        try:
            info = await self._transport.streams.consumer_info(names.stream, durable)
        except (nats.errors.Error, TimeoutError) as error:
            raise BrokerUnreachableError(f"consumer {durable}: {error!r}") from error
        return Depth(pending=info.num_pending or 0, in_flight=info.num_ack_pending or 0)

    async def close(self) -> None:
        """Give back what was fetched but not handed out."""
        self._closed = True
        await self._transport.release()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()
