"""The watermark of a stream: the lowest sequence whose task has not ended.

Bytes that are no task have no id, so nobody can say of them what became of them; they have ended
when a dead letter has them, with their sequence. Else the first of them would hold the watermark
for as long as the stream keeps it, and each new consumer would deliver all that came after.
"""

import base64
import contextlib
import uuid
from collections.abc import Awaitable, Callable, Collection

import msgspec
import nats.errors

from hookbench.errors import BrokerUnreachableError
from hookbench.queues.stream_windows import WINDOW, read_windows
from hookbench.queues.transport import AppTransport

__all__ = ["EndedFn", "Watermark", "find_watermark", "id_of_payload"]

EndedFn = Callable[[Collection[uuid.UUID]], Awaitable[set[uuid.UUID]]]
"""Which of these tasks have ended: they are done, or a dead letter holds them."""


class _IdOnly(msgspec.Struct):
    id: uuid.UUID


class _Letter(msgspec.Struct):
    payload_base64: str
    sequence: int = 0


_decoder = msgspec.json.Decoder(_IdOnly)
_letter_decoder = msgspec.json.Decoder(_Letter)


def id_of_payload(payload: bytes) -> uuid.UUID | None:
    """The id of the task in ``payload``, ``None`` for bytes that are none."""
    try:
        return _decoder.decode(payload).id
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


class Watermark(msgspec.Struct, frozen=True, kw_only=True):
    """Where a new consumer is to start.

    Attributes:
        sequence: the lowest that has not ended; one beyond the last if all have.
        ended: tasks below it, which are not delivered again.
    """

    sequence: int
    ended: int


async def find_watermark(
    transport: AppTransport, task_type: str, ended: EndedFn | None, *, window: int = WINDOW
) -> Watermark:
    """Look for the first task of a type that has not ended.

    Without anybody who knows, it is the first sequence of the stream: to deliver a task again is
    less harm than never to deliver it.

    Raises:
        BrokerUnreachableError: the stream, or whoever knows, does not answer.
    """
    names = transport.names
    try:
        state = (await transport.jetstream.stream_info(names.stream)).state
    except (nats.errors.Error, TimeoutError) as error:
        raise BrokerUnreachableError(f"stream {names.stream}: {error!r}") from error
    if ended is None:
        return Watermark(sequence=max(1, state.first_seq), ended=0)
    last, count = max(state.last_seq, state.first_seq - 1), 0
    buried: dict[int, bytes] | None = None
    subject = names.subject(task_type)
    reading = read_windows(transport, names.stream, subject=subject, window=window)
    async with contextlib.aclosing(reading) as windows:
        async for stored in windows:
            ids = {item.sequence: id_of_payload(item.payload) for item in stored}
            known = await ended([task for task in ids.values() if task is not None])
            for item in stored:
                task = ids[item.sequence]
                if task is None:
                    if buried is None:
                        buried = await _buried(transport, task_type)
                    if not _holds(buried.get(item.sequence), item.payload):
                        return Watermark(sequence=item.sequence, ended=count)
                elif task not in known:
                    return Watermark(sequence=item.sequence, ended=count)
                count += 1
            last = max(last, stored[-1].sequence)
    return Watermark(sequence=last + 1, ended=count)


def _holds(letter: bytes | None, payload: bytes) -> bool:
    """Whether a letter has these bytes, or as much of them as there was room for."""
    return letter is not None and (
        letter == payload or (letter != b"" and payload[: len(letter)] == letter)
    )


async def _buried(transport: AppTransport, task_type: str) -> dict[int, bytes]:
    """What letters about bytes that are no task hold, by the sequence that they had."""
    names = transport.names
    found: dict[int, bytes] = {}
    reading = read_windows(transport, names.dead_stream, subject=names.dead_subject(task_type))
    async with contextlib.aclosing(reading) as windows:
        async for letters in windows:
            for item in letters:
                letter = _letter_decoder.decode(item.payload)
                payload = base64.b64decode(letter.payload_base64)
                if letter.sequence and id_of_payload(payload) is None:
                    found[letter.sequence] = payload
    return found
