"""A stream that is read again and again: an entry never changes, so only what is new is read.

What was read last is read once more and compared. Another stream of that name, and one that lost
its end and gave the same sequences to other entries, are known by that: whoever keeps the last
entry keeps all before it. Entries that are gone from the middle are known by how many are left.
"""

import contextlib
import uuid
from typing import NamedTuple

from nats.js.api import StreamInfo

from hookbench.queues.stream_windows import Stored, read_windows
from hookbench.queues.transport import AppTransport
from hookbench.queues.watermark import id_of_payload

__all__ = ["SeenEntry", "StreamMemory", "seen_entry"]


class SeenEntry(NamedTuple):
    """An entry of the stream; ``task_id`` is ``None`` for bytes that are no task."""

    sequence: int
    task_type: str
    task_id: uuid.UUID | None
    stored_ns: int


class StreamMemory:
    """What a stream held when it was read last."""

    def __init__(self) -> None:
        self._entries: list[SeenEntry] = []

    async def read(
        self, transport: AppTransport, info: StreamInfo, *, limit: int
    ) -> list[SeenEntry]:
        """The entries of a stream, in order; as many as ``limit``, or a few more.

        Args:
            transport: the connection.
            info: of the stream, asked just before.
            limit: where to stop.

        Raises:
            BrokerUnreachableError: the server does not answer, or not to the end.
        """
        first, last = info.state.first_seq, info.state.last_seq
        if self._entries and first > self._entries[0].sequence:
            self._entries = [item for item in self._entries if item.sequence >= first]
        if self._entries:
            if await self._read_on(transport, info, limit):
                held = sum(item.sequence <= last for item in self._entries)
                if held == info.state.messages or len(self._entries) >= limit:
                    return list(self._entries)
            self._entries = []
        await self._read_on(transport, info, limit)
        return list(self._entries)

    async def _read_on(self, transport: AppTransport, info: StreamInfo, limit: int) -> bool:
        """Read from the last entry on; whether that is still the one that it was."""
        if len(self._entries) >= limit:
            return True
        last = self._entries.pop() if self._entries else None
        stream = str(info.config.name)
        reading = read_windows(
            transport, stream, first_sequence=last.sequence if last is not None else 1
        )
        async with contextlib.aclosing(reading) as windows:
            async for window in windows:
                found = [seen_entry(item) for item in window]
                if last is not None and found[0] != last:
                    return False
                last = None
                self._entries += found
                if len(self._entries) >= limit:
                    break
        return last is None


def seen_entry(item: Stored) -> SeenEntry:
    """What is kept of a message."""
    return SeenEntry(
        sequence=item.sequence,
        task_type=item.subject.rpartition(".")[2],
        task_id=id_of_payload(item.payload),
        stored_ns=item.stored_ns,
    )
