"""What a stream holds, read by sequence: no consumer is made and none moves."""

from collections.abc import AsyncIterator

import msgspec
import nats.errors
import nats.js.errors

from hookbench.cancellation import raise_if_cancelled
from hookbench.errors import BrokerUnreachableError
from hookbench.queues.transport import AppTransport

__all__ = ["StoredTask", "last_sequence", "read_stream", "remove_stored"]

_NO_SUCH_SEQUENCE = (10043, 10057)  # JSSequenceNotFoundErr, JSStreamMsgDeleteFailed of nats-server


class StoredTask(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a stream."""

    sequence: int
    subject: str
    payload: bytes


async def last_sequence(transport: AppTransport, stream: str) -> int:
    """The highest sequence that a stream has given; 0 for none, and for no stream.

    Raises:
        BrokerUnreachableError: no answer.
    """
    try:
        state = (await transport.jetstream.stream_info(stream)).state
    except nats.js.errors.NotFoundError:
        return 0
    except (nats.errors.Error, TimeoutError) as error:
        raise BrokerUnreachableError(f"stream {stream}: no answer ({error!r})") from error
    return state.last_seq


async def read_stream(
    transport: AppTransport, stream: str, *, first_sequence: int = 1, limit: int
) -> AsyncIterator[StoredTask]:
    """Up to ``limit`` entries from a sequence on, as far as the stream went at the beginning.

    Raises:
        BrokerUnreachableError: no answer. A stream that is not there is empty.
    """
    last = await last_sequence(transport, stream)
    sequence = max(1, first_sequence)
    for _ in range(limit):
        if sequence > last:
            return
        try:
            found = await transport.jetstream.get_msg(stream, sequence, subject=">", next=True)
        except nats.js.errors.NotFoundError:
            return
        except (nats.errors.Error, TimeoutError) as error:
            raise BrokerUnreachableError(f"stream {stream}: no answer ({error!r})") from error
        raise_if_cancelled()
        sequence = (found.seq or sequence) + 1
        yield StoredTask(
            sequence=sequence - 1, subject=found.subject or "", payload=found.data or b""
        )


async def remove_stored(transport: AppTransport, stream: str, sequence: int) -> bool:
    """Delete one entry; ``False`` if it was not there any more.

    Raises:
        BrokerUnreachableError: no answer: it may be deleted.
    """
    try:
        return await transport.jetstream.delete_msg(stream, sequence)
    except nats.js.errors.NotFoundError:
        return False
    except nats.js.errors.APIError as error:
        if error.err_code in _NO_SUCH_SEQUENCE:
            return False
        raise BrokerUnreachableError(f"stream {stream}: {error}") from error
    except (nats.errors.Error, TimeoutError) as error:
        raise BrokerUnreachableError(f"stream {stream}: no answer ({error!r})") from error
