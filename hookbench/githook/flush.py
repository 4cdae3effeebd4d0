"""The flush: hands spooled tasks to the brokers, one flush per spool at a time."""

import logging
import os
from pathlib import Path

import msgspec
import psutil

from hookbench.clock import NS_PER_S, Clock
from hookbench.errors import (
    BrokerUnreachableError,
    DecodeError,
    OversizeError,
    SendError,
)
from hookbench.githook.config import HookConfig
from hookbench.githook.locks import lock_path, try_exclusive
from hookbench.ledger.boot import boot_id
from hookbench.ledger.events import Event, LedgerWriter, repository_number
from hookbench.migration.measures import parse_measures
from hookbench.migration.outbox import Outbox
from hookbench.migration.outbox_file import OutboxFile
from hookbench.migration.phase_source import PhaseSource
from hookbench.migration.phases import Phase, parse_phase
from hookbench.migration.producer import ReceiveSyncService
from hookbench.migration.service import open_service
from hookbench.migration.spool import Spool, Spooled
from hookbench.queues.connections import Connections
from hookbench.queues.dialing import NETWORK, Dialer
from hookbench.queues.jetstream import StreamSettings
from hookbench.queues.redis_kind import parse_redis_kind
from hookbench.task import HookTask, Names, decode_task

__all__ = ["Flush", "FlushTotals"]

_log = logging.getLogger(__name__)

_BATCH = 100
_IDLE_POLL_S = 0.05
_RETRY_S = 0.2
_RETRY_MAX_S = 5.0
_LOCK_TRIES = 5
_LOCK_PAUSE_S = 0.02
_LEDGER_CAPACITY = 4096


class FlushTotals(msgspec.Struct):
    """What a flush did: tasks handed over, set aside as unsendable, and still in the spool."""

    sent: int = 0
    rejected: int = 0
    left: int = 0


class Flush:
    """Empties a spool, and waits ``linger_s`` for more, within ``flush_for_s``.

    Args:
        config: what the hook knows.
        clock: of its waits and its ledger.
        dialer: opens its connections.
    """

    def __init__(self, config: HookConfig, *, clock: Clock, dialer: Dialer = NETWORK) -> None:
        self._config = config
        self._clock = clock
        self._phases = PhaseSource(
            parse_phase(config.phase) if config.phase is not None else None,
            Path(config.phase_file) if config.phase_file is not None else None,
        )
        self._measures = parse_measures(config.measures)
        self._names = Names(
            prefix=config.prefix, subject_root=config.subject_root, stream=config.stream
        )
        self._connections = Connections(
            redis_url=config.redis_url,
            nats_url=config.nats_url,
            names=self._names,
            clock=clock,
            stream=StreamSettings(storage=config.storage, replicas=config.replicas),
            measures=self._measures.nats,
            redis_kind=parse_redis_kind(config.redis_kind),
            dialer=dialer,
        )
        self._service: tuple[tuple[int, Phase], ReceiveSyncService] | None = None
        self._ledger: LedgerWriter | None = None
        self._stopping = False
        self.totals = FlushTotals()

    def request_stop(self) -> None:
        """End after the task at hand."""
        self._stopping = True

    async def run(self) -> FlushTotals:
        """Flush until the spool stays empty, the time is up, or another flush is at it.

        A hook adds its task before it looks at the lock, and a flush looks at the spool once
        more after it gave the lock back: no task waits for the next push.
        """
        deadline_ns = self._clock.monotonic_ns() + int(self._config.flush_for_s * NS_PER_S)
        path = Path(self._config.spool)
        try:
            with Spool(path) as spool:
                while True:
                    descriptor = await self._lock(lock_path(path))
                    if descriptor is None:
                        break
                    try:
                        await self._empty(spool, deadline_ns)
                    finally:
                        os.close(descriptor)
                    if self._over(deadline_ns) or len(spool) == 0:
                        break
                self.totals.left = len(spool)
        finally:
            await self._connections.close()
            if self._ledger is not None:
                self._ledger.close()
        return self.totals

    async def _lock(self, path: Path) -> int | None:
        """The locked descriptor with this process's id in the file, ``None`` if a flush has it.

        Tried a few times, for who asks whether a flush runs holds the lock for a moment as well.
        """
        for _ in range(_LOCK_TRIES):
            descriptor = try_exclusive(path)
            if descriptor is not None:
                os.truncate(descriptor, 0)
                os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
                return descriptor
            await self._clock.sleep(_LOCK_PAUSE_S)
        return None

    def _over(self, deadline_ns: int) -> bool:
        owner = self._config.owner_pid
        return (
            self._stopping
            or self._clock.monotonic_ns() > deadline_ns
            or (owner != 0 and not psutil.pid_exists(owner))
        )

    async def _empty(self, spool: Spool, deadline_ns: int) -> None:
        if self._measures.outbox:
            await self._sweep(spool.path, deadline_ns)
            return
        linger_ns = int(self._config.linger_s * NS_PER_S)
        idle_since_ns = self._clock.monotonic_ns()
        pause_s = _RETRY_S
        while not self._over(deadline_ns):
            batch = spool.oldest(_BATCH)
            if not batch:
                if self._clock.monotonic_ns() - idle_since_ns >= linger_ns:
                    return
                await self._clock.sleep(_IDLE_POLL_S)
                continue
            try:
                for row in batch:
                    await self._hand_over(spool, row)
            except (SendError, BrokerUnreachableError) as error:
                _log.warning("flush of %s, again in %.1f s: %s", spool.path, pause_s, error)
                await self._clock.sleep(pause_s)
                pause_s = min(pause_s * 2, _RETRY_MAX_S)
            else:
                pause_s = _RETRY_S
            idle_since_ns = self._clock.monotonic_ns()

    async def _hand_over(self, spool: Spool, row: Spooled) -> None:
        """Send one task. It leaves the spool once it is acknowledged, or set aside for good."""
        try:
            task = decode_task(row.task)
            service = await self._open()
            intended_ns = row.intended_ns if row.boot_id == boot_id() else 0
            await service.send(task, intended_ns=intended_ns)
        except (DecodeError, OversizeError) as error:
            spool.reject(row.number, str(error))
            self.totals.rejected += 1
            _log.error("spooled task %d set aside: %s", row.number, error)
            return
        spool.remove(row.number)
        self.totals.sent += 1

    async def _sweep(self, path: Path, deadline_ns: int) -> None:
        """As ``_empty``, each task until every broker of the route has it."""
        linger_ns = int(self._config.linger_s * NS_PER_S)
        file = OutboxFile(path, boot_id=boot_id(), clock=self._clock)
        outbox = Outbox(file, clock=self._clock, introduce=self._introduce)
        idle_since_ns = self._clock.monotonic_ns()
        pause_s = _RETRY_S
        try:
            while not self._over(deadline_ns):
                try:
                    await self._open(outbox)
                except BrokerUnreachableError as error:
                    _log.warning("flush of %s, again in %.1f s: %s", path, pause_s, error)
                    await self._clock.sleep(pause_s)
                    pause_s = min(pause_s * 2, _RETRY_MAX_S)
                    continue
                pause_s = _RETRY_S
                outbox.look()
                await self._clock.sleep(_IDLE_POLL_S)
                now_ns = self._clock.monotonic_ns()
                if await file.left():
                    idle_since_ns = now_ns
                elif now_ns - idle_since_ns >= linger_ns:
                    return
        finally:
            self._service = None
            await outbox.close()
            self.totals.sent += file.cleared
            self.totals.rejected += file.rejected

    def _introduce(self, row: Spooled, task: HookTask) -> None:
        """A push was accepted when it was spooled; the ledger is told before its first put."""
        ledger = self._open_ledger()
        if ledger is None:
            return
        intended_ns = row.intended_ns if row.boot_id == boot_id() else 0
        repository = repository_number(task.repo_id)
        key = task.id.bytes
        ledger.record(Event.PUT_INVOKED, key, value=intended_ns, repository=repository)
        ledger.record(Event.ACCEPTED, key)

    async def _open(self, outbox: Outbox | None = None) -> ReceiveSyncService:
        wanted = self._phases.read()
        if self._service is None or self._service[0] != wanted:
            index, phase = wanted
            ledger = self._open_ledger()
            if ledger is not None:
                ledger.phase = index
            service = await open_service(
                phase,
                self._connections,
                self._names,
                measures=self._measures,
                recorder=ledger,
                outbox=outbox,
            )
            self._service = (wanted, service)
        return self._service[1]

    def _open_ledger(self) -> LedgerWriter | None:
        if self._config.ledger is not None and self._ledger is None:
            pid = os.getpid()
            self._ledger = LedgerWriter(
                Path(self._config.ledger),
                role=f"hook-{pid}",
                writer=pid & 0xFFFF,
                clock=self._clock,
                capacity=_LEDGER_CAPACITY,
            )
        return self._ledger
