"""What a worker does beside its tasks while it reads NATS."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from hookbench.cancellation import cancel
from hookbench.clock import Clock
from hookbench.ledger.events import Recorder
from hookbench.migration.done_store import DoneStore
from hookbench.migration.measures import Measures
from hookbench.queues.jetstream import ConsumerSettings, StreamSettings
from hookbench.queues.sized_pending import SlotBook
from hookbench.queues.transport import AppTransport
from hookbench.worker.rescue import AgeLimits, Rescue

__all__ = ["Chores"]


class Chores:
    """Keeps max-ack-pending, and rescues what ages, as the measures ask; one set per task type.

    Args:
        measures: which of them.
        stream: settings of the hook stream.
        slots: tasks of one type that this process may have in work.
        clock: of all.
        recorder: is told of what is rescued.
        announce: is told what ages.
    """

    def __init__(
        self,
        measures: Measures,
        *,
        stream: StreamSettings,
        slots: int,
        clock: Clock,
        recorder: Recorder,
        announce: Callable[[dict[str, Any]], None],
    ) -> None:
        self._measures = measures
        self._stream = stream
        self._slots = slots
        self._clock = clock
        self._recorder = recorder
        self._announce = announce
        self._running: dict[str, list[asyncio.Task[None]]] = {}

    async def begin(
        self, transport: AppTransport, consumer: ConsumerSettings, done: DoneStore | None
    ) -> None:
        """Begin those of a task type, unless they run; the slots are announced when it returns.

        Raises:
            HookbenchError: max-ack-pending could not be changed, so that others might starve.
        """
        if consumer.task_type in self._running:
            return
        chores: list[Coroutine[Any, Any, None]] = []
        if self._measures.sized_pending:
            book = SlotBook(
                transport,
                consumer,
                self._stream,
                worker=transport.client.new_inbox().rpartition(".")[2],
                slots=self._slots,
                clock=self._clock,
            )
            await book.adjust()
            chores.append(book.keep())
        if self._measures.rescue_aged and self._stream.max_age_s > 0:
            rescue = Rescue(
                transport,
                AgeLimits(max_age_s=self._stream.max_age_s),
                task_type=consumer.task_type,
                done=done,
                clock=self._clock,
                recorder=self._recorder,
                announce=self._announce,
            )
            chores.append(rescue.keep())
        loop = asyncio.get_running_loop()
        self._running[consumer.task_type] = [loop.create_task(chore) for chore in chores]

    async def end(self, task_type: str | None = None) -> None:
        """End those of a task type, or all."""
        for name in [task_type] if task_type is not None else list(self._running):
            await cancel(*self._running.pop(name, []))
