"""The watermark of a stream: the lowest sequence whose task has not ended.

Bytes that are no task have no id, so nobody can say of them what became of them; they have ended
when a dead letter has them, with their sequence. Else the first of them would hold the watermark
for as long as the stream keeps it, and each new consumer would deliver all that came after.

A stream keeps its tasks for days, and what was below a watermark once had ended. So a search goes
on where the one before it ended, if the stream is still the one that it was: a message of it, the
last below that watermark, is known again by its bytes. One that was restored from an older state
after a power cut gives other tasks the same sequences.
"""

import base64
import contextlib
import hashlib
import logging
import uuid
from collections.abc import Awaitable, Callable, Collection

import msgspec
import nats.errors
import nats.js.errors

from hookbench.clock import NS_PER_S
from hookbench.errors import BrokerUnreachableError
from hookbench.queues.stream_windows import WINDOW, Stored, read_windows
from hookbench.queues.transport import AppTransport

__all__ = ["NO_ANCHOR", "Anchor", "EndedFn", "Watermark", "find_watermark", "id_of_payload"]

_log = logging.getLogger(__name__)

PATIENCE_S = 10.0
"""A search that has come no further for so long is given up."""
_PAUSE_S = 0.2

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


class Anchor(msgspec.Struct, frozen=True):
    """The last task below a watermark: everything up to it had ended.

    Attributes:
        sequence: of its message; 0 for none.
        digest: of its bytes.
    """

    sequence: int = 0
    digest: str = ""


NO_ANCHOR = Anchor()


class Watermark(msgspec.Struct, frozen=True, kw_only=True):
    """Where a new consumer is to start.

    Attributes:
        sequence: the lowest that has not ended; one beyond the last if all have.
        ended: tasks below it, which are not delivered again; from the anchor of the search on.
        anchor: for the next search.
    """

    sequence: int
    ended: int
    anchor: Anchor = NO_ANCHOR


async def find_watermark(
    transport: AppTransport,
    task_type: str,
    ended: EndedFn | None,
    *,
    anchor: Anchor = NO_ANCHOR,
    window: int = WINDOW,
) -> Watermark:
    """Look for the first task of a type that has not ended.

    Without anybody who knows, it is the first sequence of the stream: to deliver a task again is
    less harm than never to deliver it. Where a broker does not answer, the search goes on at the
    first task that was not judged, until it has come no further for a while.

    Args:
        transport: the connection.
        task_type: whose tasks.
        ended: who knows which have ended.
        anchor: of the search before this one, behind which this one begins if the stream is the
            same.
        window: messages that are read at once.

    Raises:
        BrokerUnreachableError: the stream, or whoever knows, does not answer.
    """
    search = _Search(transport, task_type, anchor, window)
    clock = transport.clock
    failing_since_ns, judged = clock.monotonic_ns(), 0
    while True:
        try:
            return await search.go_on(ended)
        except BrokerUnreachableError as error:
            now_ns = clock.monotonic_ns()
            if search.judged > judged:
                failing_since_ns, judged = now_ns, search.judged
            elif now_ns - failing_since_ns > PATIENCE_S * NS_PER_S:
                raise
            _log.warning(
                "the watermark is looked for on from %d: %s", search.anchor.sequence, error
            )
        await clock.sleep(_PAUSE_S)


class _Search:
    """How far one search has come.

    Attributes:
        anchor: the last task that was judged.
        judged: tasks that have ended, since the anchor that it began with.
    """

    def __init__(
        self, transport: AppTransport, task_type: str, anchor: Anchor, window: int
    ) -> None:
        self._transport = transport
        self._task_type = task_type
        self._window = window
        self._last = 0
        self._buried: dict[int, bytes] | None = None
        self.anchor = anchor
        self.judged = 0

    async def go_on(self, ended: EndedFn | None) -> Watermark:
        """Judge what comes after the anchor."""
        names = self._transport.names
        try:
            state = (await self._transport.jetstream.stream_info(names.stream)).state
        except (nats.errors.Error, TimeoutError) as error:
            raise BrokerUnreachableError(f"stream {names.stream}: {error!r}") from error
        if ended is None:
            return Watermark(sequence=max(1, state.first_seq), ended=0)
        if not await _is_there(self._transport, self.anchor):
            self.anchor, self.judged, self._last = NO_ANCHOR, 0, 0
        self._last = max(self._last, state.last_seq, state.first_seq - 1)
        reading = read_windows(
            self._transport,
            names.stream,
            subject=names.subject(self._task_type),
            first_sequence=self.anchor.sequence + 1,
            window=self._window,
        )
        async with contextlib.aclosing(reading) as windows:
            async for stored in windows:
                sequence = await self._judge(stored, ended)
                if sequence is not None:
                    return self._found(sequence)
                self._last = max(self._last, stored[-1].sequence)
        return self._found(self._last + 1)

    def _found(self, sequence: int) -> Watermark:
        return Watermark(sequence=sequence, ended=self.judged, anchor=self.anchor)

    async def _judge(self, stored: list[Stored], ended: EndedFn) -> int | None:
        """The sequence of the first that has not ended, ``None`` if all have."""
        ids = {item.sequence: id_of_payload(item.payload) for item in stored}
        known = await ended([task for task in ids.values() if task is not None])
        for item in stored:
            task = ids[item.sequence]
            if task is None:
                if self._buried is None:
                    self._buried = await _buried(self._transport, self._task_type)
                if not _holds(self._buried.get(item.sequence), item.payload):
                    return item.sequence
            elif task not in known:
                return item.sequence
            self.judged += 1
            self.anchor = Anchor(item.sequence, _digest(item.payload))
        return None


async def _is_there(transport: AppTransport, anchor: Anchor) -> bool:
    """Whether the stream is the one of the anchor, as far as that: it has its message still."""
    if anchor.sequence == 0:
        return False
    try:
        message = await transport.jetstream.get_msg(transport.names.stream, anchor.sequence)
    except nats.js.errors.NotFoundError:
        return False
    except (nats.errors.Error, TimeoutError) as error:
        raise BrokerUnreachableError(f"stream {transport.names.stream}: {error!r}") from error
    return _digest(message.data or b"") == anchor.digest


def _digest(payload: bytes) -> str:
    return hashlib.blake2b(payload, digest_size=8).hexdigest()


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
