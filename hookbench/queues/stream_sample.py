"""A part of the stream that tells of certain tasks whether they are in it.

A task's id has the time at which it was made, and the stream has the time at which it took each
entry: so the place of a task is found by halving, and only what lies around it is read.
"""

import uuid
from collections.abc import Collection, Iterable

from nats.js.api import StreamInfo

from hookbench.clock import NS_PER_MS
from hookbench.ids import uuid7_wall_ms
from hookbench.queues.stream_gets import get_from
from hookbench.queues.stream_log import StreamLog
from hookbench.queues.stream_memory import SeenEntry, seen_entry
from hookbench.queues.transport import AppTransport

__all__ = ["LATEST_MS", "sample_stream"]

EARLIEST_MS = 5_000
"""How far the clocks of a producer and of the server may differ."""
LATEST_MS = 120_000
"""How much later than its id says a task may have been published, to be found."""
_AROUND = 1_000
"""Entries that are read for one task, at most."""


async def sample_stream(
    transport: AppTransport,
    info: StreamInfo,
    *,
    count: int,
    beyond: Iterable[int],
    wanted: Collection[uuid.UUID],
) -> list[SeenEntry]:
    """Some entries, in order: of both ends, from some sequences on, and around some tasks.

    Args:
        transport: the connection.
        info: of the stream, asked just before.
        count: entries from each place on.
        beyond: sequences after which entries are read as well.
        wanted: tasks that are looked for, where they should be.

    Raises:
        BrokerUnreachableError: no answer.
    """
    reader = _Reader(transport, info)
    first, last = info.state.first_seq, info.state.last_seq
    for place in {first, last - count + 1, *(floor + 1 for floor in beyond)}:
        await reader.read(max(first, place), count)
    log = StreamLog(transport)
    for task_id in sorted(wanted, key=lambda item: uuid7_wall_ms(item) or 0):
        wall_ms = uuid7_wall_ms(task_id)
        if wall_ms is None or task_id in reader.ids:
            continue
        begin = await log.first_since(wall_ms - EARLIEST_MS)
        await reader.read(begin, _AROUND, task_id=task_id, until_ms=wall_ms + LATEST_MS)
    return [reader.seen[number] for number in sorted(reader.seen)]


class _Reader:
    """Reads entries once, whoever asks for them."""

    def __init__(self, transport: AppTransport, info: StreamInfo) -> None:
        self._transport = transport
        self._stream = str(info.config.name)
        self._last = info.state.last_seq
        self.seen: dict[int, SeenEntry] = {}
        self.ids: set[uuid.UUID | None] = set()

    async def read(
        self,
        sequence: int,
        count: int,
        *,
        task_id: uuid.UUID | None = None,
        until_ms: int | None = None,
    ) -> None:
        """From a sequence on, until a task is found or a time is over."""
        for _ in range(count):
            if sequence > self._last:
                return
            entry = self.seen.get(sequence)
            if entry is None:
                stored = await get_from(self._transport, self._stream, sequence)
                if stored is None:
                    return
                entry = seen_entry(stored)
                self.seen[entry.sequence] = entry
                self.ids.add(entry.task_id)
            sequence = entry.sequence + 1
            if task_id is not None and entry.task_id == task_id:
                return
            if until_ms is not None and entry.stored_ns > until_ms * NS_PER_MS:
                return
