"""Reads a stream by single gets: slower than by a consumer, and the server keeps nothing of it."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import nats.errors
import nats.js.errors

from hookbench.cancellation import raise_if_cancelled
from hookbench.clock import NS_PER_S
from hookbench.errors import BrokerUnreachableError

if TYPE_CHECKING:
    from hookbench.queues.transport import AppTransport

__all__ = ["Stored", "get_from", "read_by_gets"]

AT_ONCE = 64
"""Requests that are on the way together."""
_DENSE = 0.5
"""Share of the sequences that are there, from which on each is asked for by its number."""
_TIMEOUT_S = 5.0
_NOT_FOUND = 404


class Stored(NamedTuple):
    """One message of a stream.

    Attributes:
        sequence: in the stream.
        subject: that it was published to.
        stored_ns: when the stream took it, by the server's wall clock.
        payload: the bytes.
    """

    sequence: int
    subject: str
    stored_ns: int
    payload: bytes


class _Message(msgspec.Struct):
    seq: int
    time: datetime
    subject: str = ""
    data: bytes = b""  # msgspec decodes the base64


class _Refusal(msgspec.Struct, frozen=True):
    code: int = 0
    description: str = "an answer without a message"


class _Answer(msgspec.Struct):
    message: _Message | None = None
    error: _Refusal = _Refusal()


_decoder = msgspec.json.Decoder(_Answer)
_encode = msgspec.json.Encoder().encode


async def get_from(
    transport: "AppTransport", stream: str, sequence: int, subject: str | None = None
) -> Stored | None:
    """The first message from a sequence on, of a subject; ``None`` if there is none.

    Raises:
        BrokerUnreachableError: no answer.
    """
    return await _ask(transport, stream, {"seq": sequence, "next_by_subj": subject or ">"})


async def read_by_gets(
    transport: "AppTransport", stream: str, *, subject: str | None, first: int, window: int
) -> AsyncGenerator[list[Stored], None]:
    """What ``stream_windows.read_windows`` gives, without its consumer; nothing for no stream.

    Raises:
        BrokerUnreachableError: no answer.
    """
    try:
        state = (await transport.jetstream.stream_info(stream)).state
    except nats.js.errors.NotFoundError:
        return
    except (nats.errors.Error, TimeoutError, OSError) as error:
        raise _unreadable(stream, repr(error)) from error
    sequence, last = max(1, first, state.first_seq), state.last_seq
    held = state.messages / max(1, state.last_seq - state.first_seq + 1)
    while sequence <= last:
        found: list[Stored] = []
        if subject is None and held >= _DENSE:
            end = min(sequence + window, last + 1)
            for begin in range(sequence, end, AT_ONCE):
                numbers = range(begin, min(begin + AT_ONCE, end))
                answers = await asyncio.gather(
                    *(_ask(transport, stream, {"seq": number}) for number in numbers)
                )
                found += [item for item in answers if item is not None]
            sequence = end
        else:
            while len(found) < window:
                item = await get_from(transport, stream, sequence, subject)
                if item is None or item.sequence > last:
                    sequence = last + 1
                    break
                found.append(item)
                sequence = item.sequence + 1
        raise_if_cancelled()
        if found:
            yield found


async def _ask(transport: "AppTransport", stream: str, wanted: dict[str, Any]) -> Stored | None:
    subject = f"$JS.API.STREAM.MSG.GET.{stream}"
    if not transport.client.is_connected:
        raise BrokerUnreachableError("NATS is not connected (reconnecting)")
    try:
        answer = await transport.client.request(subject, _encode(wanted), timeout=_TIMEOUT_S)
        found = _decoder.decode(answer.data)
    except (nats.errors.Error, TimeoutError, OSError, msgspec.MsgspecError) as error:
        raise _unreadable(stream, type(error).__name__) from error
    if found.message is None:
        if found.error.code == _NOT_FOUND:
            return None
        raise _unreadable(stream, found.error.description)
    message = found.message
    return Stored(
        sequence=message.seq,
        subject=message.subject,
        stored_ns=int(message.time.timestamp() * NS_PER_S),
        payload=message.data,
    )


def _unreadable(stream: str, why: str) -> BrokerUnreachableError:
    return BrokerUnreachableError(f"stream {stream}: not read to its end: {why}")
