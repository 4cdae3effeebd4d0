"""Reconciliation as it runs: once, or again and again by one process of a fleet."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from hookbench.cancellation import cancel
from hookbench.clock import Clock
from hookbench.errors import HookbenchError
from hookbench.ledger.events import Recorder
from hookbench.migration.done_store import DoneStore
from hookbench.migration.phases import Phase, WriteRoute, write_route
from hookbench.migration.reconciliation import (
    Reconciler,
    ReconcileSettings,
    ReconcileTotals,
    WorkLists,
)
from hookbench.queues.connections import Connections
from hookbench.queues.redis_client import RedisClient
from hookbench.queues.redis_errors import broker_errors
from hookbench.queues.stream_log import StreamLog
from hookbench.queues.transport import make_nats_publish
from hookbench.task import Names

__all__ = ["ReconcileLoop", "open_reconciler", "repeat_rounds", "take_turn"]

_log = logging.getLogger(__name__)

_TURN_S = 60.0
"""A process that dies in a round keeps the others from one for so long."""

_TAKE_TURN = """
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""


async def open_reconciler(
    connections: Connections,
    names: Names,
    *,
    task_type: str = "sync",
    done: DoneStore | None = None,
    work_lists: WorkLists | None = None,
    settings: ReconcileSettings | None = None,
    recorder: Recorder | None = None,
) -> Reconciler:
    """A reconciler over the connections of a process.

    Raises:
        SettingError, BrokerUnreachableError, BrokerUnsuitableError, ConfigDriftError: see
            ``Connections``.
    """
    transport = await connections.nats()
    return Reconciler(
        connections.redis(),
        StreamLog(transport),
        make_nats_publish(transport, message_ids=True),
        names,
        clock=connections.clock,
        task_type=task_type,
        done=done,
        work_lists=work_lists,
        settings=settings,
        recorder=recorder,
    )


async def take_turn(redis: RedisClient, names: Names, task_type: str, owner: str) -> bool:
    """Whether this process reconciles now, and not another one of the fleet.

    Raises:
        BrokerUnreachableError: Redis did not answer.
    """
    key = f"{names.pending_key(task_type)}:reconciler"
    with broker_errors(f"SET {key}"):
        return bool(await redis.eval(_TAKE_TURN, 1, key, owner, str(int(_TURN_S * 1_000))))


async def repeat_rounds(
    reconciler: Reconciler,
    *,
    clock: Clock,
    period_s: float,
    stop: asyncio.Event,
    told: Callable[[ReconcileTotals], None],
) -> None:
    """One round after the other until ``stop`` is set, at least one.

    Raises:
        BrokerUnreachableError: see ``Reconciler.round``.
    """
    stopping = asyncio.ensure_future(stop.wait())
    try:
        while True:
            told(await reconciler.round())
            pause = asyncio.ensure_future(clock.sleep(period_s))
            await asyncio.wait({pause, stopping}, return_when=asyncio.FIRST_COMPLETED)
            await cancel(pause)
            if stop.is_set():
                return
    finally:
        await cancel(stopping)


class ReconcileLoop:
    """Reconciles while both brokers are written.

    Args:
        connections: of the process.
        open_one: makes the reconciler when it is first needed.
        names: of the queue.
        task_type: the one that is reconciled.
        phase: the current one; ``None`` before the first.
        clock: for the pauses.
        owner: a name of this process that no other one has.
        settings: the bounds.
        told: is told what each round did.
    """

    def __init__(
        self,
        connections: Connections,
        open_one: Callable[[], Awaitable[Reconciler]],
        names: Names,
        *,
        task_type: str = "sync",
        phase: Callable[[], Phase | None],
        clock: Clock,
        owner: str,
        settings: ReconcileSettings | None = None,
        told: Callable[[ReconcileTotals], None] = lambda _totals: None,
    ) -> None:
        self._connections = connections
        self._open = open_one
        self._names = names
        self._task_type = task_type
        self._phase = phase
        self._clock = clock
        self._settings = settings or ReconcileSettings()
        self._told = told
        self._owner = owner
        self._reconciler: Reconciler | None = None

    async def run(self) -> None:
        """Until cancelled; a round that does not get through is made up for by the next one."""
        while True:
            await self._clock.sleep(self._settings.period_s)
            phase = self._phase()
            if phase is None or write_route(phase) is not WriteRoute.BOTH:
                continue
            try:
                await self._round()
            except HookbenchError as error:
                _log.warning("reconciliation put off by %.1f s: %s", self._settings.period_s, error)

    async def _round(self) -> None:
        redis = self._connections.redis()
        if not await take_turn(redis, self._names, self._task_type, self._owner):
            return
        if self._reconciler is None:
            self._reconciler = await self._open()
        self._told(await self._reconciler.round())
