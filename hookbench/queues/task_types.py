"""One consumer per task type, and the types that have tasks and no consumer (hazard T1)."""

import re

import nats.errors
import nats.js.errors
from nats.js.api import ConsumerInfo, DeliverPolicy

from hookbench.errors import BrokerUnreachableError
from hookbench.queues.access import redis_of
from hookbench.queues.addresses import redis_nodes
from hookbench.queues.jetstream import ConsumerSettings, consumer_config, ensure_durable
from hookbench.queues.redis_errors import broker_errors
from hookbench.queues.transport import AppTransport
from hookbench.task import Names

__all__ = ["ensure_typed_consumer", "types_in_redis", "types_in_stream", "types_without_consumer"]

_SCAN_COUNT = 1000
_TIMEOUT_S = 3.0
_TYPE = re.compile(r"[a-z][a-z0-9_-]{0,31}")
"""Last part of a key of tasks not yet read; ``sync:work`` and ``sync:dead`` are others."""


async def ensure_typed_consumer(
    transport: AppTransport, settings: ConsumerSettings, *, sized: bool = False
) -> ConsumerInfo:
    """Create or check the consumer of one task type: ``hook-fsck-worker``.

    With ``sized`` its max-ack-pending may differ: that is changed in place.

    Raises:
        ConfigDriftError, BrokerUnsuitableError, BrokerUnreachableError: see ``ensure_consumer``.
    """
    wanted = consumer_config(transport, settings) | {"deliver_policy": DeliverPolicy.ALL}
    at_first = {"max_ack_pending": wanted.pop("max_ack_pending")} if sized else None
    name = transport.names.consumer_of(settings.task_type)
    return await ensure_durable(transport, name, wanted, at_first=at_first)


async def types_in_stream(transport: AppTransport) -> dict[str, int]:
    """How many tasks of each type the hook stream holds.

    Raises:
        BrokerUnreachableError: the server does not answer.
    """
    names = transport.names
    front = names.subject("")
    try:
        info = await transport.jetstream.stream_info(names.stream, subjects_filter=f"{front}>")
    except nats.js.errors.NotFoundError:
        return {}
    except (nats.errors.Error, TimeoutError) as error:
        raise BrokerUnreachableError(f"stream {names.stream}: {error!r}") from error
    return {
        subject.removeprefix(front): count for subject, count in (info.state.subjects or {}).items()
    }


async def types_in_redis(url: str, names: Names) -> dict[str, int]:
    """How many tasks of each type wait in Redis, by the keys ``{hook}:{task_type}`` of all nodes.

    Raises:
        BrokerUnreachableError: a node does not answer.
    """
    found: dict[str, int] = {}
    front = f"{names.prefix}:"
    for node in redis_nodes(url):
        client = redis_of(node, socket_timeout=_TIMEOUT_S)
        try:
            with broker_errors(f"SCAN {front}*"):
                async for key in client.scan_iter(match=f"{front}*", count=_SCAN_COUNT):
                    task_type = key.decode().removeprefix(front)
                    if _TYPE.fullmatch(task_type) and await client.type(key) == b"list":
                        # A replica has the keys of its master.
                        count = int(await client.llen(key))
                        found[task_type] = max(found.get(task_type, 0), count)
        finally:
            await client.aclose()
    return found


async def types_without_consumer(
    transport: AppTransport, redis_url: str | None = None
) -> dict[str, int]:
    """Task types that have tasks on a broker and no consumer in the stream, with their tasks.

    A consumer that filters ``queue.hook.>`` serves every type.

    Raises:
        BrokerUnreachableError: a server does not answer.
    """
    names = transport.names
    tasks = await types_in_stream(transport)
    if redis_url is not None:
        for task_type, count in (await types_in_redis(redis_url, names)).items():
            tasks[task_type] = tasks.get(task_type, 0) + count
    try:
        consumers = await transport.jetstream.consumers_info(names.stream)
    except nats.js.errors.NotFoundError:
        consumers = []
    except (nats.errors.Error, TimeoutError) as error:
        raise BrokerUnreachableError(f"consumers of {names.stream}: {error!r}") from error
    filters = {info.config.filter_subject for info in consumers if info.config.durable_name}
    if filters & {None, "", names.subject(">")}:
        return {}
    return {
        task_type: count
        for task_type, count in sorted(tasks.items())
        if count and names.subject(task_type) not in filters
    }
