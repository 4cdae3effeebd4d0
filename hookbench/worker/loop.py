"""The worker loop: bounded concurrency, retries counted, a stop that loses nothing."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from hookbench.cancellation import cancel
from hookbench.clock import NS_PER_S, Clock
from hookbench.effects.classes import Execution
from hookbench.errors import HookbenchError
from hookbench.ledger.events import NO_TASK, Broker, Event, NullRecorder, Recorder
from hookbench.migration.done_store import ClaimOutcome
from hookbench.migration.received import Received
from hookbench.queues.base import Leased
from hookbench.task import HookTask
from hookbench.worker.acks import PendingAcks
from hookbench.worker.claims import Claims, complete, give_back, release
from hookbench.worker.confirmations import Confirmations
from hookbench.worker.dead_letters import DeadLetter, DeadLetters
from hookbench.worker.limits import WorkerLimits, WorkerTotals
from hookbench.worker.protections import NO_PROTECTIONS, Protections
from hookbench.worker.settling import BROKER_TROUBLE, settle

__all__ = ["Around", "Handler", "Source", "Worker", "WorkerLimits", "WorkerTotals"]

_log = logging.getLogger(__name__)
_NO_HEART = contextlib.nullcontext()

Handler = Callable[[HookTask, Execution], Awaitable[None]]
"""Does the work of one task; whatever it raises counts as a failed attempt."""


Around = Callable[[Received], contextlib.AbstractContextManager[None]]
"""Is entered around the handler with what was delivered; what the handler raises passes it."""


class Source(Protocol):
    """Where deliveries come from; ``RedisConsumer`` is one."""

    async def receive(self, task_type: str, limit: int) -> list[Received]:
        """Up to ``limit`` deliveries, none after the source's own wait."""
        ...

    async def close(self) -> None:
        """Let a blocked read run out."""
        ...


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
        protections: Protections = NO_PROTECTIONS,
        around: Around | None = None,
    ) -> None:
        self._source = source
        self._protections = protections
        self._handler = handler
        self._around = around
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

    def switch(self, source: Source, protections: Protections | None = None) -> Source:
        """Read from another source from the next read on; the old one is returned.

        Tasks in work keep the acknowledgement of the broker that delivered them, and their claim.
        """
        old, self._source = self._source, source
        self._protections = protections or self._protections
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
        heart = self._protections.heart
        beating = None if heart is None else asyncio.ensure_future(heart.run())
        try:
            await self._read_until_stopped()
            await self._source.close()
            await self._drain()
            await self._confirmations.drain(self._clock, self._limits.drain_timeout_s)
        finally:
            if beating is not None:
                await cancel(beating)
        return self.totals

    async def _read_until_stopped(self) -> None:
        pause_s = self._limits.read_pause_s
        while not self._stopping.is_set():
            free = self._limits.concurrency - len(self._tasks)
            if free <= 0:
                self._slot_free.clear()
                await self._slot_free.wait()
                continue
            try:
                received = await self._source.receive(self._task_type, free)
            except BROKER_TROUBLE as error:
                _log.warning("read failed, again in %.2f s: %s", pause_s, error)
                await self._pause(pause_s)
                pause_s = min(pause_s * 2, self._limits.read_pause_max_s)
                continue
            pause_s = self._limits.read_pause_s
            for item in received:
                self._start(item)
            if not received:
                await self._clock.sleep(0)  # a source that never waits must not starve the rest

    def _start(self, item: Received) -> None:
        self.totals.received += 1
        if item.task is not None and not item.settled:
            self._acks.keep(item.key, item.delivery)
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
        claims = self._protections.claims
        if claims is not None and not await self._claimed(claims, item, task):
            return
        if self._protections.own_attempts and item.attempt > self._limits.max_attempts:
            if not item.settled:
                self._acks.take(item.key, item.delivery)
            await self._bury(item, f"delivered {item.attempt - 1} times without an outcome")
            return
        key, attempt = item.key, item.attempt
        broker = item.delivery.broker
        self._recorder.record(Event.STARTED, key, broker=broker, attempt=attempt)
        heart = self._protections.heart
        try:
            with heart.beating(item) if heart is not None else _NO_HEART:
                execution = Execution(attempt=attempt, token=item.token)
                if self._around is None:
                    await self._handler(task, execution)
                else:
                    with self._around(item):
                        await self._handler(task, execution)
        except asyncio.CancelledError:
            await release(item.claim)
            raise
        except Exception as error:  # noqa: BLE001 - the worker's boundary: any failure is counted
            await self._failed(item, task, error)
            return
        if not await self._completed(item, task):
            await self._stale(item, task)
            return
        self._recorder.record(Event.DONE, key, broker=broker, attempt=attempt)
        self.totals.done += 1
        await self._acknowledge(item, task)

    async def _acknowledge(self, item: Received, task: HookTask, *, skipped: bool = False) -> None:
        """End the delivery of a task that has ended."""
        delivery = item.delivery
        if not item.settled:
            self._acks.take(item.key, delivery)
            if not await self._send_ack(delivery, task):
                self._recorder.record(Event.ACK_FAILED, item.key, broker=delivery.broker)
                return
            self._recorder.record(Event.ACK_SENT, item.key, broker=delivery.broker)
        if not skipped:
            self._trim(item)

    def _trim(self, item: Received) -> None:
        """Have the Redis copy removed of what has just ended on NATS.

        A task that is skipped has ended before: its copy was executed or is trimmed already, and
        each look for one that is not there goes through the whole list.
        """
        trim = self._protections.trim
        if trim is not None and item.delivery.broker is Broker.NATS:
            trim(item.delivery.payload)

    async def _claimed(self, claims: Claims, item: Received, task: HookTask) -> bool:
        """Whether the task may be started; else its delivery is settled."""
        claim = await claims.take(item, task, most=self._limits.max_attempts)
        if claim is not None and claim.outcome is ClaimOutcome.GRANTED:
            return True
        if claim is not None and claim.outcome is ClaimOutcome.DONE:
            self._recorder.record(
                Event.SKIPPED, task.id.bytes, broker=item.delivery.broker, attempt=item.attempt
            )
            self.totals.skipped += 1
            await self._acknowledge(item, task, skipped=True)
            return False
        if claim is not None and claim.outcome is ClaimOutcome.SUPERSEDED:
            self._recorder.record(
                Event.SUPERSEDED, task.id.bytes, broker=item.delivery.broker, attempt=item.attempt
            )
            self.totals.superseded += 1
            await self._acknowledge(item, task)
            return False
        self.totals.unclaimed += 1
        await self._put_off(item, task, claims.delay_s(claim))
        return False

    async def _completed(self, item: Received, task: HookTask) -> bool:
        """Whether the authority has recorded the end of the task; without claims it is so."""
        if item.claim is None:
            return True
        try:
            return await complete(item.claim, self._clock)
        except asyncio.CancelledError:  # a stop that waits no longer: it may be recorded
            self._recorder.record(
                Event.STALE, task.id.bytes, broker=item.delivery.broker, attempt=item.attempt
            )
            raise

    async def _stale(self, item: Received, task: HookTask) -> None:
        """The handler returned, and another worker has the task by now, or may have it.

        That it is done is said by whoever completes it. The delivery is not acknowledged, which on
        NATS would end the other worker's: it comes once more, and is skipped then.
        """
        self._recorder.record(
            Event.STALE, task.id.bytes, broker=item.delivery.broker, attempt=item.attempt
        )
        self.totals.stale += 1
        _log.warning("task %s: its claim is lost, so it is not done by this worker", task.id)
        claims = self._protections.claims
        if not item.settled:
            await self._put_off(item, task, claims.delay_s(None) if claims is not None else 0.0)

    async def _put_off(self, item: Received, task: HookTask, delay_s: float) -> None:
        """Give a delivery back that does not count as tried."""
        if item.settled:
            self.totals.lost_after_early_ack += 1
            return
        self._acks.take(item.key, item.delivery)
        if await self._settle(give_back(item, delay_s), task, "nak"):
            self._recorder.record(
                Event.NAK,
                task.id.bytes,
                broker=item.delivery.broker,
                value=int(delay_s * NS_PER_S),
            )

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
        last = f"{type(error).__name__}: {error}"
        if item.settled:
            # The guide's early ack: no broker has the task any more, nothing can be retried.
            self.totals.lost_after_early_ack += 1
            await release(item.claim, failure=last)
            return
        if item.attempt >= self._limits.max_attempts:
            self._acks.take(item.key, item.delivery)
            await self._bury(item, f"failed {item.attempt} times, last: {last}", failure=last)
            return
        self._acks.take(item.key, item.delivery)
        await release(item.claim, failure=last)
        delays = self._protections.nak_delays
        delay_s = self._limits.retry_delay_s
        if delays is not None:
            delay_s = delays.after(item.attempt, self._protections.entropy)
        if await self._settle(lambda: item.delivery.nak(delay_s), task, "nak"):
            self.totals.retried += 1
            self._recorder.record(
                Event.NAK, key, broker=item.delivery.broker, value=int(delay_s * NS_PER_S)
            )

    async def _bury(self, item: Received, reason: str, *, failure: str = "") -> None:
        """Dead letter first, then the end of the delivery: a crash between repeats the letter.

        Where there can be none now the task comes again; ``failure`` is counted by then.
        """
        delivery = item.delivery
        if isinstance(delivery, Leased) and not await self._settle(
            delivery.ensure_held, item.task, "hold"
        ):
            await release(item.claim, failure=failure)
            return  # another worker has it, and decides
        letter = DeadLetter.of(
            delivery.payload,
            task_type=self._task_type,
            reason=reason,
            broker=delivery.broker,
            attempts=item.attempt,
            died_at_ns=self._clock.wall_ns(),
            history=self._protections.history_of(item),
            sequence=delivery.sequence if delivery.broker is Broker.NATS else 0,
        )
        if not await self._settle(lambda: self._dead_letters.bury(letter), item.task, "bury"):
            if isinstance(delivery, Leased):  # kept by a living worker it would never come again
                await self._settle(delivery.nak, item.task, "nak")
            await release(item.claim, failure=failure)
            return
        key = item.task.id.bytes if item.task is not None else NO_TASK
        self._recorder.record(Event.DEAD, key, broker=delivery.broker, attempt=item.attempt)
        self.totals.dead += 1
        _log.warning("dead letter from %s: %s", delivery.broker.name.lower(), reason)
        if item.claim is not None:
            await complete(item.claim, self._clock)
        if item.settled:
            return
        if await self._settle(lambda: delivery.term(reason), item.task, "term"):
            self._recorder.record(Event.TERM, key, broker=delivery.broker)
            if item.task is not None:
                self._trim(item)

    async def _settle(
        self, call: Callable[[], Awaitable[None]], task: HookTask | None, what: str
    ) -> bool:
        """Call the broker, again a few times if it does not answer; whether it went through."""
        return await settle(call, what, task, self._clock)

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
