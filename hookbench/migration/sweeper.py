"""Takes what an outbox holds to one broker, in the order in which it was accepted.

A task that was just accepted is put at once. When one cannot be, or too many are on the way, the
sweeper is behind: what follows stays in the outbox, from where it is taken oldest first, in bounded
batches, with growing pauses while nothing gets through. Either way the tasks of one repository go
one after the other, so that none overtakes an earlier one on this broker.
"""

import asyncio
import enum
import logging
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

import msgspec

from hookbench.cancellation import cancel
from hookbench.clock import Clock
from hookbench.errors import DecodeError, SpoolError
from hookbench.migration.spool import Spooled
from hookbench.task import HookTask, decode_task

__all__ = ["Outgoing", "PutOutcome", "Sweeper", "SweeperSettings", "SweptRows"]

_log = logging.getLogger(__name__)


class PutOutcome(enum.StrEnum):
    """What became of one put: ``too_large`` will not change, ``unknown`` may be stored."""

    OK = "ok"
    FAIL = "fail"
    UNKNOWN = "unknown"
    TOO_LARGE = "too_large"


class Outgoing(NamedTuple):
    """An accepted task on its way.

    Attributes:
        number: of its row in the outbox.
        task: the task.
        data: its bytes.
    """

    number: int
    task: HookTask
    data: bytes


PutFn = Callable[[Outgoing, bool], Awaitable[PutOutcome]]
"""Puts a task on the sweeper's broker; ``True``: an earlier put of it may have been stored."""


class SweptRows(Protocol):
    """The outbox as a sweeper uses it; ``OutboxFile`` is one."""

    def acknowledge(self, number: int, broker: int) -> bool:
        """The broker has the task."""
        ...

    async def lacking(self, broker: int, limit: int, *, after: int = 0) -> list[Spooled]:
        """Tasks that the broker does not have, oldest first."""
        ...

    async def reject(self, number: int, reason: str) -> None:
        """Set a task aside that can never be sent."""
        ...


class SweeperSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of a sweeper.

    Attributes:
        in_flight: tasks that are put at once without being read from the outbox again.
        batch: tasks that are read from the outbox together.
        probe: tasks that are tried after a batch of which none got through.
        pause_s: wait after such a batch, doubled up to ``pause_max_s``.
        pause_max_s: the longest such wait.
    """

    in_flight: int = 1_000
    batch: int = 200
    probe: int = 8
    pause_s: float = 0.05
    pause_max_s: float = 2.0


class Sweeper:
    """One broker's part of an outbox.

    Args:
        broker: its bit in the rows.
        rows: the outbox.
        clock: for the pauses.
        settings: the bounds.
        inherited: whether an earlier process may have put the task of a row.
        introduce: is told of a task that is read from the outbox before it is put first.
    """

    def __init__(
        self,
        broker: int,
        rows: SweptRows,
        *,
        clock: Clock,
        settings: SweeperSettings | None = None,
        inherited: Callable[[int], bool] = lambda _number: False,
        introduce: Callable[[Spooled, HookTask], None] = lambda _row, _task: None,
    ) -> None:
        self._broker = broker
        self._rows = rows
        self._clock = clock
        self._settings = settings or SweeperSettings()
        self._inherited = inherited
        self._introduce = introduce
        self._put: PutFn | None = None
        self._behind = True
        self._dirty = True
        self._floor = 0
        self._doubtful: set[int] = set()
        self._flying: set[asyncio.Task[None]] = set()
        self._lanes: dict[str, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._defect: BaseException | None = None

    @property
    def idle(self) -> bool:
        """Nothing is on the way, and nothing waits as far as this process knows.

        Raises:
            Exception: what a put raised; it is a defect of the put, not an outcome.
        """
        if self._defect is not None:
            raise self._defect
        if self._running is not None and self._running.done():
            self._running.result()
        return not self._behind and not self._flying

    def start(self, put: PutFn) -> None:
        """Sweep from now on with ``put``, from the oldest task on."""
        self._put = put
        self.look(again=True)
        if self._running is None:
            self._running = asyncio.ensure_future(self._run())

    async def stop(self) -> None:
        """Sweep no more; what was offered and is on the way is finished."""
        if self._running is not None:
            await cancel(self._running)
            self._running = None
        self._behind = True
        if self._flying:
            await asyncio.wait(set(self._flying))

    async def abandon(self) -> None:
        """Sweep no more, and cut off what is on the way: it is in doubt, and in the outbox."""
        self._behind = True
        running = [] if self._running is None else [self._running]
        self._running = None
        await cancel(*running, *self._flying)

    def look(self, *, again: bool = False) -> None:
        """There may be something in the outbox that nobody offered; ``again``: anywhere in it."""
        if again:
            self._floor = 0
        self._behind = True
        self._dirty = True
        self._wake.set()

    def offer(self, item: Outgoing) -> None:
        """Put a task that was just accepted, or leave it for the sweep if it cannot be now."""
        if self._behind or len(self._flying) >= self._settings.in_flight:
            self.look()
            return
        lane = item.task.repo_id
        flight = asyncio.ensure_future(self._fly(item, self._lanes.get(lane)))
        self._lanes[lane] = flight
        self._flying.add(flight)
        flight.add_done_callback(lambda done: self._landed(lane, done))

    def _landed(self, lane: str, flight: "asyncio.Task[None]") -> None:
        self._flying.discard(flight)
        if self._lanes.get(lane) is flight:
            del self._lanes[lane]
        if not flight.cancelled() and (error := flight.exception()) is not None:
            self._defect = self._defect or error
            self.look(again=True)

    async def _fly(self, item: Outgoing, before: "asyncio.Task[None] | None") -> None:
        if before is not None:
            await asyncio.wait({before})
            if self._behind:  # the one before may have been left: this one must not overtake it
                self.look()
                return
        if not await self._carry(item):
            self.look()

    async def _carry(self, item: Outgoing) -> bool:
        """Put one task; whether it needs no further put."""
        if self._put is None:
            return False
        doubtful = item.number in self._doubtful or self._inherited(item.number)
        outcome = await self._put(item, doubtful)
        if outcome is PutOutcome.UNKNOWN:
            self._doubtful.add(item.number)
        if outcome is PutOutcome.TOO_LARGE:
            reason = "larger than the broker takes"
            _log.error("task %s is set aside in the outbox: %s", item.task.id, reason)
            await self._rows.reject(item.number, reason)
            return True
        if outcome is not PutOutcome.OK:
            return False
        self._doubtful.discard(item.number)
        self._rows.acknowledge(item.number, self._broker)
        return True

    async def _run(self) -> None:
        settings = self._settings
        limit, pause_s = settings.batch, settings.pause_s
        while True:
            await self._wake.wait()
            while self._flying:
                await asyncio.wait(set(self._flying))
            self._dirty = False
            try:
                rows = await self._rows.lacking(self._broker, limit, after=self._floor)
                if not rows:
                    # What was left since is in the file by now, so it would have been read.
                    if not self._dirty:
                        self._behind = False
                        self._wake.clear()
                    continue
                carried = await self._carry_all(rows)
            except SpoolError as error:
                _log.warning("sweep put off by %.2f s: %s", pause_s, error)
                carried = 0
            if carried:
                limit, pause_s = settings.batch, settings.pause_s
                continue
            await self._clock.sleep(pause_s)
            limit, pause_s = settings.probe, min(2 * pause_s, settings.pause_max_s)

    async def _carry_all(self, rows: list[Spooled]) -> int:
        """Put rows, those of one repository one after the other; how many got through."""
        lanes: dict[str, list[Outgoing]] = {}
        carried: set[int] = set()
        for row in rows:
            try:
                task = decode_task(row.task)
            except DecodeError as error:
                _log.error("row %d of the outbox is set aside: %s", row.number, error)
                await self._rows.reject(row.number, str(error))
                carried.add(row.number)
                continue
            self._introduce(row, task)
            lanes.setdefault(task.repo_id, []).append(Outgoing(row.number, task, row.task))

        async def one_after_the_other(items: list[Outgoing]) -> None:
            for item in items:
                if not await self._carry(item):
                    return
                carried.add(item.number)

        await asyncio.gather(*(one_after_the_other(items) for items in lanes.values()))
        for row in rows:
            if row.number not in carried:
                break
            self._floor = row.number
        return len(carried)
