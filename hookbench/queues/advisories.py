"""What JetStream says of deliveries that it gives up, kept in a stream of its own.

An advisory is published once, to whoever listens at that moment; that of the last delivery only
when a later pull arrives. Kept, it is a second witness beside the workers' own account.
See https://docs.nats.io/running-a-nats-service/nats_admin/monitoring/monitoring_jetstream.
"""

import msgspec
from nats.js.api import RetentionPolicy, StorageType, StreamInfo

from hookbench.queues.jetstream import StreamSettings, ensure_named_stream
from hookbench.queues.stream_windows import read_windows
from hookbench.queues.transport import AppTransport

__all__ = ["Advisory", "ensure_advisory_stream", "read_advisories"]

_KINDS = ("MAX_DELIVERIES", "MSG_TERMINATED")


class Advisory(msgspec.Struct, frozen=True, kw_only=True):
    """One of them.

    Attributes:
        kind: ``MAX_DELIVERIES`` or ``MSG_TERMINATED``.
        consumer: of which.
        stream_seq: the task's sequence in the hook stream.
        deliveries: how often it was delivered.
        timestamp: of the server, as it wrote it.
    """

    kind: str = ""
    consumer: str = ""
    stream_seq: int = 0
    deliveries: int = 0
    timestamp: str = ""


_decoder = msgspec.json.Decoder(Advisory)


async def ensure_advisory_stream(transport: AppTransport, settings: StreamSettings) -> StreamInfo:
    """Create or check the stream that captures them; they are kept as long as the tasks.

    Raises:
        ConfigDriftError, BrokerUnsuitableError, BrokerUnreachableError: see ``ensure_stream``.
    """
    names = transport.names
    wanted = {
        "subjects": [f"$JS.EVENT.ADVISORY.CONSUMER.{kind}.{names.stream}.>" for kind in _KINDS],
        "retention": RetentionPolicy.LIMITS,
        "max_age": settings.max_age_s,
        "storage": StorageType(settings.storage),
        "num_replicas": settings.replicas,
    }
    return await ensure_named_stream(transport, names.advisories_stream, wanted)


async def read_advisories(transport: AppTransport) -> dict[int, list[Advisory]]:
    """All that were captured, by the sequence of the task; none if nothing captures them.

    Raises:
        BrokerUnreachableError: the server does not answer.
    """
    found: dict[int, list[Advisory]] = {}
    async for stored in read_windows(transport, transport.names.advisories_stream):
        for item in stored:
            kind = item.subject.split(".")[4]
            advisory = msgspec.structs.replace(_decoder.decode(item.payload), kind=kind)
            found.setdefault(advisory.stream_seq, []).append(advisory)
    return found
