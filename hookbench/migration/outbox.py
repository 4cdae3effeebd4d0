"""The outbox of a producer: a task is accepted when it is on its disk, and put afterwards.

A task leaves the outbox when every broker of the write route has acknowledged it. The route is the
one of the phase that the producer is in now, whatever it was when the task was accepted: a task of
phase 1 that only Redis has is put on NATS when phase 3 is entered, and leaves then; one that only
NATS has leaves at once, for phase 3 writes nothing else. What lies in a queue that a phase reads no
more is the affair of the gates and of the reconciliation, not of the outbox.

A put that had no answer is repeated with the same id. The stream knows it within its duplicate
window; on Redis the lists are searched first. Beyond both, a task that is stored twice is kept from
a second effect by the done-store.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

import msgspec

from hookbench.clock import NS_PER_S, Clock
from hookbench.errors import SendError, SettingError
from hookbench.ledger.events import Broker
from hookbench.migration.outbox_file import OutboxFile
from hookbench.migration.phases import WriteRoute
from hookbench.migration.spool import ON_NATS, ON_REDIS, Spooled
from hookbench.migration.sweeper import Outgoing, PutOutcome, Sweeper, SweeperSettings
from hookbench.task import HookTask

__all__ = ["Outbox", "OutboxSettings", "Putter"]

_BITS = {Broker.REDIS: ON_REDIS, Broker.NATS: ON_NATS}
_BROKERS = {
    WriteRoute.REDIS: (Broker.REDIS,),
    WriteRoute.BOTH: (Broker.NATS, Broker.REDIS),
    WriteRoute.NATS: (Broker.NATS,),
}
_POLL_S = 0.01


class OutboxSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of an outbox.

    Attributes:
        waiting: tasks in it, above which no more are accepted.
        drain_s: how long a stop waits for it to become empty.
        sweeper: of each broker.
    """

    waiting: int = 1_000_000
    drain_s: float = 10.0
    sweeper: SweeperSettings = msgspec.field(default_factory=SweeperSettings)


class Putter(Protocol):
    """Puts one task on one broker; ``ReceiveSyncService`` is one."""

    @property
    def route(self) -> WriteRoute:
        """Where tasks are to be written."""
        ...

    async def put_on(self, broker: Broker, item: Outgoing, *, doubtful: bool) -> PutOutcome:
        """Put a task, which may be there already if ``doubtful``."""
        ...


class Outbox:
    """Accepts tasks, and takes them to the brokers of the route.

    Args:
        file: where they are kept.
        clock: for pauses and deadlines.
        settings: the bounds.
        introduce: is told of a task that this process did not accept, before it is put first.
    """

    def __init__(
        self,
        file: OutboxFile,
        *,
        clock: Clock,
        settings: OutboxSettings | None = None,
        introduce: Callable[[Spooled, HookTask], None] | None = None,
    ) -> None:
        self._file = file
        self._clock = clock
        self._settings = settings or OutboxSettings()
        self._introduce = introduce
        self._introduced: set[int] = set()
        self._active: tuple[Broker, ...] = ()
        self._sweepers = {
            broker: Sweeper(
                bit,
                file,
                clock=clock,
                settings=self._settings.sweeper,
                inherited=file.was_found,
                introduce=self._introduce_once,
            )
            for broker, bit in _BITS.items()
        }

    @property
    def file(self) -> OutboxFile:
        """Where the tasks are kept."""
        return self._file

    @property
    def pause_max_s(self) -> float:
        """The longest time between two sweeps."""
        return self._settings.sweeper.pause_max_s

    async def enter(self, putter: Putter) -> None:
        """Take everything that is in the outbox, and what will be, by another route.

        Raises:
            SettingError: the route falls back: it does not say which brokers a task must be on.
            SpoolError: the file cannot be read.
        """
        if putter.route not in _BROKERS:
            raise SettingError(
                f"route {putter.route} with an outbox: use one of {', '.join(_BROKERS)}"
            )
        self._active = _BROKERS[putter.route]
        self._file.needed = sum(_BITS[broker] for broker in self._active)
        for broker, sweeper in self._sweepers.items():
            if broker not in self._active:
                await sweeper.stop()
        await self._file.settle()
        for broker in self._active:

            async def put(item: Outgoing, doubtful: bool, broker: Broker = broker) -> PutOutcome:
                return await putter.put_on(broker, item, doubtful=doubtful)

            self._sweepers[broker].start(put)

    async def accept(self, task: HookTask, data: bytes, *, intended_ns: int) -> None:
        """Store a task; it is on the disk when this returns, and on its way.

        Raises:
            SendError: the outbox is full (``fail``).
            SpoolError: it could not be stored, or it is not known whether it was.
        """
        waiting, most = self._file.waiting, self._settings.waiting
        if waiting >= most:
            raise SendError(
                f"task {task.id}: the outbox {self._file.path} holds {waiting} tasks, {most} are"
                " allowed: look after the brokers, or allow more",
                outcome="fail",
            )
        stored = self._file.add(str(task.id), data, intended_ns=intended_ns)
        # What is stored is put, also if the caller is cancelled meanwhile; he is told first.
        told = asyncio.shield(stored)
        stored.add_done_callback(lambda done: self._offer(done, task, data))
        await told

    def look(self) -> None:
        """Other processes may have added something."""
        for broker in self._active:
            self._sweepers[broker].look()

    async def drain(self, timeout_s: float | None = None) -> int:
        """Wait until the outbox is empty; how many tasks are left in it.

        Args:
            timeout_s: how long, at most; by default as in the settings.
        """
        wait_s = self._settings.drain_s if timeout_s is None else timeout_s
        deadline_ns = self._clock.monotonic_ns() + int(wait_s * NS_PER_S)
        while not self.idle and self._clock.monotonic_ns() < deadline_ns:
            await self._clock.sleep(_POLL_S)
        return await self._file.left()

    @property
    def idle(self) -> bool:
        """Whether every task that this process knows of is where it must be."""
        return all(self._sweepers[broker].idle for broker in self._active)

    async def close(self) -> None:
        """Stop at once; what is not acknowledged stays in the file."""
        for sweeper in self._sweepers.values():
            await sweeper.abandon()
        await self._file.close()

    def _offer(self, stored: "asyncio.Future[int | None]", task: HookTask, data: bytes) -> None:
        if stored.cancelled() or stored.exception() is not None:
            return
        number = stored.result()
        if number is None:
            return  # the same task once more: its row is on its way
        item = Outgoing(number, task, data)
        for broker in self._active:
            self._sweepers[broker].offer(item)

    def _introduce_once(self, row: Spooled, task: HookTask) -> None:
        if self._introduce is None or row.number in self._introduced:
            return
        self._introduced.add(row.number)
        self._introduce(row, task)
