"""Reads a stream from outside, window by window, and leaves its consumers alone.

It is read through a consumer of its own that acknowledges nothing and that the server removes by
itself when nobody asks it any more; over a connection that only reads, by single gets.
"""

import contextlib
from collections.abc import AsyncGenerator

import nats.errors
import nats.js.errors
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from hookbench.cancellation import raise_if_cancelled
from hookbench.clock import NS_PER_S
from hookbench.errors import BrokerUnreachableError
from hookbench.queues.stream_gets import Stored, read_by_gets
from hookbench.queues.transport import AppTransport

__all__ = ["WINDOW", "Stored", "read_windows"]

WINDOW = 256
"""Tasks that are read, and held in memory, at a time."""
_INACTIVE_S = 30.0
_FETCH_S = 5.0
_SILENT = 3
"""Fetches without an answer, one after the other, after which the rest is out of reach."""


async def read_windows(
    transport: AppTransport,
    stream: str,
    *,
    subject: str | None = None,
    first_sequence: int = 1,
    window: int = WINDOW,
) -> AsyncGenerator[list[Stored], None]:
    """What the stream holds now, from ``first_sequence`` on, in order; nothing for no stream.

    Whoever does not read to the end closes it, with ``contextlib.aclosing``.

    Args:
        transport: the connection.
        stream: its name.
        subject: a filter.
        first_sequence: of the first message that is wanted.
        window: messages per list, at most.

    Raises:
        BrokerUnreachableError: the server does not answer, or not to the end.
    """
    if transport.reads_only:
        gets = read_by_gets(transport, stream, subject=subject, first=first_sequence, window=window)
        async with contextlib.aclosing(gets):
            async for found in gets:
                yield found
        return
    name = f"hook-look-{transport.client.new_inbox().rpartition('.')[2]}"
    config = ConsumerConfig(
        name=name,
        deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
        opt_start_seq=max(1, first_sequence),
        filter_subject=subject,
        ack_policy=AckPolicy.NONE,
        inactive_threshold=_INACTIVE_S,
        mem_storage=True,
        num_replicas=1,
    )
    jetstream = transport.jetstream
    try:
        try:
            info = await jetstream.add_consumer(stream, config)
        except nats.js.errors.NotFoundError:
            return
        pull = await jetstream.pull_subscribe_bind(consumer=name, stream=stream)
        try:
            left, seen, silent = info.num_pending or 0, 0, 0
            while left > 0:
                messages = await _fetch(pull, min(window, left))
                if messages:
                    # Nothing is acknowledged, so what was lost on its way is not sent again.
                    first, last = (messages[at].metadata.sequence.consumer for at in (0, -1))
                    _check_whole(stream, seen, first - 1)
                    _check_whole(stream, seen + len(messages), last)
                    seen, silent = last, 0
                    left = min(left - len(messages), messages[-1].metadata.num_pending)
                    yield [_stored(message) for message in messages]
                    continue
                info = await jetstream.consumer_info(stream, name)
                _check_whole(stream, seen, info.delivered.consumer_seq if info.delivered else 0)
                if not info.num_pending:  # the rest was removed meanwhile
                    break
                silent += 1
                if silent == _SILENT:
                    raise BrokerUnreachableError(
                        f"stream {stream}: not read to its end: no answer to {silent} fetches"
                    )
        finally:
            await pull.unsubscribe()
            with contextlib.suppress(nats.js.errors.NotFoundError):
                await jetstream.delete_consumer(stream, name)
    except (nats.errors.Error, TimeoutError, OSError) as error:
        raise BrokerUnreachableError(f"stream {stream}: not read to its end: {error!r}") from error
    raise_if_cancelled()


def _check_whole(stream: str, received: int, delivered: int) -> None:
    if received != delivered:
        raise BrokerUnreachableError(
            f"stream {stream}: not read to its end: of {delivered} messages {received} arrived"
        )


async def _fetch(pull: "nats.js.JetStreamContext.PullSubscription", count: int) -> list[Msg]:
    try:
        messages: list[Msg] = await pull.fetch(count, timeout=_FETCH_S)
    except nats.errors.TimeoutError:
        return []
    return messages


def _stored(message: Msg) -> Stored:
    metadata = message.metadata
    return Stored(
        sequence=metadata.sequence.stream,
        subject=message.subject,
        stored_ns=int(metadata.timestamp.timestamp() * NS_PER_S),
        payload=message.data,
    )
