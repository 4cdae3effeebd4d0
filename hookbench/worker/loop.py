"""The worker loop: bounded concurrency, retries counted, a stop that loses nothing."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec

from hookbench.clock import NS_PER_S, Clock
from hookbench.effects.classes import Execution
from hookbench.errors import (
    BrokerUnreachableError,
    HookbenchError,
    PublishRefusedError,
    PublishUnknownError,
)
from hookbench.ledger.events import NO_TASK, Event, NullRecorder, Recorder
from hookbench.migration.received import Received
from hookbench.task import HookTask
from hookbench.worker.acks import PendingAcks
from hookbench.worker.confirmations import Confirmations
from hookbench.worker.dead_letters import DeadLetter, DeadLetters

__all__ = ["Handler", "Source", "Worker", "WorkerLimits", "WorkerTotals"]

_log = logging.getLogger(__name__)

_BROKER_TROUBLE = (BrokerUnreachableError, PublishRefusedError, PublishUnknownError)
_SETTLE_RETRIES = 5
_SETTLE_PAUSE_S = 0.2

Handler = Callable[[HookTask, Execution], Awaitable[None]]
"""Does the work of one task; whatever it raises counts as a failed attempt."""


class Source(Protocol):
    """Where deliveries come from; ``RedisConsumer`` is one."""

    async def receive(self, task_type: str, limit: int) -> list[Received]:
        """Up to ``limit`` deliveries, none after the source's own wait."""
        ...

    async def close(self) -> None:
        """Let a blocked read run out."""
        ...


class WorkerLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of a worker.

    Attributes:
        concurrency: tasks in work at a time.
        max_attempts: deliveries of a task, after which a failure makes it a dead letter.
        retry_delay_s: wait before the next delivery, where the queue can wait.
        read_pause_s: wait after a failed read, doubled up to ``read_pause_max_s``.
        read_pause_max_s: the longest such wait.
        drain_timeout_s: how long a stop waits for the tasks in work.
    """

    concurrency: int = 16
    max_attempts: int = 3
    retry_delay_s: float = 0.0
    read_pause_s: float = 0.05
    read_pause_max_s: float = 1.0
    drain_timeout_s: float = 20.0


class WorkerTotals(msgspec.Struct):
    """What a worker did so far."""

    received: int = 0
    done: int = 0
    failed: int = 0
    retried: int = 0
    dead: int = 0
    given_back: int = 0
    lost_after_early_ack: int = 0


class Worker:
    """Takes tasks of one type from a source and runs the handler on each."""

    def __init__(
        self,
        source: Source,
        handler: Handler,
        *,
        task_type: str = "sync",
        dead_letters: DeadLetters,
        clock: Clock,
        limits: WorkerLimits | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self._source = source
        self._handler = handler
        self._task_type = task_type
        self._dead_letters = dead_letters
        self._clock = clock
        self._limits = limits or WorkerLimits()
        self._recorder = recorder or NullRecorder()
        self._acks = PendingAcks()
        self._confirmations = Confirmations(self._recorder)
        self._tasks: dict[asyncio.Task[None], Received] = {}
        self._slot_free = asyncio.Event()
        self._stopping = asyncio.Event()
        self.totals = WorkerTotals()

    def switch(self, source: Source) -> Source:
        """Read from another source from the next read on; the old one is returned.

        Tasks in work keep the acknowledgement of the broker that delivered them.
        """
        old, self._source = self._source, source
        return old

    @property
    def in_work(self) -> int:
        """Tasks in work now."""
        return len(self._tasks)

    def request_stop(self) -> None:
        """Take nothing more; ``run`` returns when the tasks in work are finished."""
        self._stopping.set()
        self._slot_free.set()

    async def run(self) -> WorkerTotals:
        """Work until ``request_stop``; then finish what was taken, and give back the rest."""
        pause_s = self._limits.read_pause_s
        while not self._stopping.is_set():
            free = self._limits.concurrency - len(self._tasks)
            if free <= 0:
                self._slot_free.clear()
                await self._slot_free.wait()
                continue
            try:
                received = await self._source.receive(self._task_type, free)
            except _BROKER_TROUBLE as error:
                _log.warning("read failed, again in %.2f s: %s", pause_s, error)
                await self._pause(pause_s)
                pause_s = min(pause_s * 2, self._limits.read_pause_max_s)
                continue
            pause_s = self._limits.read_pause_s
            for item in received:
                self._start(item)
            if not received:
                await self._clock.sleep(0)  # a source that never waits must not starve the rest
        await self._source.close()
        await self._drain()
        await self._confirmations.drain(self._clock, self._limits.drain_timeout_s)
        return self.totals

    def _start(self, item: Received) -> None:
        self.totals.received += 1
        if item.task is not None and not item.settled:
            self._acks.keep(item.task.id, item.delivery)
        task = asyncio.get_running_loop().create_task(self._process(item))
        self._tasks[task] = item
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        self._slot_free.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("delivery could not be settled: %s", error, exc_info=error)

    async def _pause(self, seconds: float) -> None:
        stop = asyncio.ensure_future(self._stopping.wait())
        timer = asyncio.ensure_future(self._clock.sleep(seconds))
        try:
            await asyncio.wait({stop, timer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
            timer.cancel()

    async def _process(self, item: Received) -> None:
        task = item.task
        if task is None:
            await self._bury(item, item.problem or "bytes that are no task")
            return
        key = task.id.bytes
        delivery = item.delivery
        self._recorder.record(Event.STARTED, key, broker=delivery.broker, attempt=item.attempt)
        try:
            await self._handler(task, Execution(attempt=item.attempt))
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - the worker's boundary: any failure is counted
            await self._failed(item, task, error)
            return
        self._recorder.record(Event.DONE, key, broker=delivery.broker, attempt=item.attempt)
        self.totals.done += 1
        if item.settled:
            return
        self._acks.take(task.id, delivery)
        if await self._send_ack(delivery, task):
            self._recorder.record(Event.ACK_SENT, key, broker=delivery.broker)
        else:
            self._recorder.record(Event.ACK_FAILED, key, broker=delivery.broker)

    async def _send_ack(self, delivery: Any, task: HookTask) -> bool:
        """Whether it went through; the slot does not wait for a confirmation."""
        if not getattr(delivery, "confirms", False):
            return await self._settle(delivery.ack, task, "ack")
        sent: list[asyncio.Future[None]] = []

        async def send() -> None:
            sent.append(await delivery.send_ack())

        if not await self._settle(send, task, "ack"):
            return False
        self._confirmations.expect(task.id, delivery.broker, sent[0])
        return True

    async def _failed(self, item: Received, task: HookTask, error: Exception) -> None:
        key = task.id.bytes
        self.totals.failed += 1
        self._recorder.record(Event.FAILED, key, broker=item.delivery.broker, attempt=item.attempt)
        level = logging.WARNING if isinstance(error, HookbenchError) else logging.ERROR
        _log.log(
            level,
            "task %s failed (attempt %d of %d): %s: %s",
            task.id,
            item.attempt,
            self._limits.max_attempts,
            type(error).__name__,
            error,
        )
        if item.settled:
            # The guide's early ack: no broker has the task any more, nothing can be retried.
            self.totals.lost_after_early_ack += 1
            return
        if item.attempt >= self._limits.max_attempts:
            self._acks.take(task.id, item.delivery)
            reason = f"failed {item.attempt} times, last: {type(error).__name__}: {error}"
            await self._bury(item, reason)
            return
        self._acks.take(task.id, item.delivery)
        delay_s = self._limits.retry_delay_s
        if await self._settle(lambda: item.delivery.nak(delay_s), task, "nak"):
            self.totals.retried += 1
            self._recorder.record(
                Event.NAK, key, broker=item.delivery.broker, value=int(delay_s * NS_PER_S)
            )

    async def _bury(self, item: Received, reason: str) -> None:
        """Dead letter first, then the end of the delivery: a crash between repeats the letter."""
        delivery = item.delivery
        letter = DeadLetter.of(
            delivery.payload,
            task_type=self._task_type,
            reason=reason,
            broker=delivery.broker,
            attempts=item.attempt,
            died_at_ns=self._clock.wall_ns(),
        )
        if not await self._settle(lambda: self._dead_letters.bury(letter), item.task, "bury"):
            return
        key = item.task.id.bytes if item.task is not None else NO_TASK
        self._recorder.record(Event.DEAD, key, broker=delivery.broker, attempt=item.attempt)
        self.totals.dead += 1
        _log.warning("dead letter from %s: %s", delivery.broker.name.lower(), reason)
        if await self._settle(lambda: delivery.term(reason), item.task, "term"):
            self._recorder.record(Event.TERM, key, broker=delivery.broker)

    async def _settle(
        self, call: Callable[[], Awaitable[None]], task: HookTask | None, what: str
    ) -> bool:
        """Call the broker, again a few times if it does not answer; whether it went through."""
        for attempt in range(1, _SETTLE_RETRIES + 1):
            try:
                await call()
            except _BROKER_TROUBLE as error:
                _log.warning(
                    "%s of task %s, try %d of %d: %s",
                    what,
                    task.id if task else "-",
                    attempt,
                    _SETTLE_RETRIES,
                    error,
                )
                await self._clock.sleep(_SETTLE_PAUSE_S * attempt)
            else:
                return True
        return False

    async def _drain(self) -> None:
        """Wait for the tasks in work; after the timeout give their deliveries back."""
        if not self._tasks:
            return
        waiting = asyncio.ensure_future(asyncio.wait(set(self._tasks)))
        timer = asyncio.ensure_future(self._clock.sleep(self._limits.drain_timeout_s))
        await asyncio.wait({waiting, timer}, return_when=asyncio.FIRST_COMPLETED)
        timer.cancel()
        waiting.cancel()
        unfinished = dict(self._tasks)
        for task in unfinished:
            task.cancel()
        if unfinished:
            await asyncio.wait(set(unfinished))
        for item in unfinished.values():
            if item.settled or item.task is None:
                continue
            if await self._settle(item.delivery.nak, item.task, "nak"):
                self.totals.given_back += 1
                self._recorder.record(Event.NAK, item.task.id.bytes, broker=item.delivery.broker)
