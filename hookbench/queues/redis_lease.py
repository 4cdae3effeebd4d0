"""The lease of a worker on its work list: a name that ends with it, and the reaper beside it."""

import asyncio
import logging
from typing import TYPE_CHECKING

from hookbench.clock import NS_PER_S, Clock, SystemClock
from hookbench.errors import SettingError
from hookbench.ledger.events import Broker, Event, NullRecorder, Recorder
from hookbench.queues.redis_client import RedisClient
from hookbench.queues.redis_errors import broker_errors
from hookbench.queues.redis_reaper import RedisReaper
from hookbench.queues.redis_scripts import LOST, MAY_REAP, TEND, at_maxmemory
from hookbench.task import Names

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["DEFAULT_LEASE_S", "RedisLease"]

_log = logging.getLogger(__name__)

DEFAULT_LEASE_S = 10.0
MINIMUM_LEASE_S = 0.1
_TENDED_PER_LEASE = 3
_MS_PER_S = 1000
_MAX_OWNERS = 100


class RedisLease:
    """Registered when it is first tended, and due again three times in its length.

    Once it was reaped its name is never used again: the worker goes on under the next one, so that
    what it still has in hand concerns a list that nobody fills any more.

    Args:
        client: the commands.
        owner: the part of the name that no other worker has.
        names: prefix of the keys.
        task_type: which lists.
        lease_s: how long the worker may be silent.
        adopt_after_s: see ``RedisReaper``.
        allow_oom: also at maxmemory, see ``at_maxmemory``.
        recorder: is told what is put back.
        clock: for when it is due.

    Attributes:
        on_lost: called when the lease has ended, before the next one begins.
        on_tended: called with the length of the work list when the lease was renewed.

    Raises:
        SettingError: the lease is too short for the resolution of its renewals.
    """

    def __init__(
        self,
        client: RedisClient,
        *,
        owner: str,
        names: Names | None = None,
        task_type: str = "sync",
        lease_s: float = DEFAULT_LEASE_S,
        adopt_after_s: float | None = None,
        allow_oom: bool = False,
        recorder: Recorder | None = None,
        clock: Clock | None = None,
    ) -> None:
        if lease_s < MINIMUM_LEASE_S:
            raise SettingError(f"lease of {lease_s} s: use {MINIMUM_LEASE_S} s or more")
        self._client = client
        self._names = names or Names()
        self._task_type = task_type
        self.key = self._names.leases_key(task_type)
        self._base_owner = owner
        self._generation = 0
        self._lease_ms = round(lease_s * _MS_PER_S)
        self.every_s = lease_s / _TENDED_PER_LEASE
        self._allow_oom = allow_oom
        self._recorder = recorder or NullRecorder()
        self._clock = clock or SystemClock()
        self.reaper = RedisReaper(
            client,
            names=self._names,
            task_type=task_type,
            adopt_after_s=lease_s if adopt_after_s is None else adopt_after_s,
            allow_oom=allow_oom,
            requeued=self.record,
        )
        self._registered = False
        self._due_ns = 0
        self._tending = asyncio.Lock()
        self.on_lost: Callable[[], None] = lambda: None
        self.on_tended: Callable[[int], Awaitable[None]] | None = None

    @property
    def owner(self) -> str:
        """The present name."""
        return f"{self._base_owner}.{self._generation}"

    @property
    def work_key(self) -> str:
        """The list of the present name."""
        return self._names.own_work_key(self._task_type, self.owner)

    @property
    def arguments(self) -> tuple[str, int, str]:
        """What ``TEND`` is told of the lease."""
        return self.owner, self._lease_ms, "0" if self._registered else "1"

    def make_due(self) -> None:
        """Let the next ``tend`` renew it, whenever that is."""
        self._due_ns = 0

    def script(self, text: str) -> str:
        """The script as it is to be sent."""
        return at_maxmemory(text) if self._allow_oom else text

    async def tend(self) -> None:
        """If it is due: renew the lease, and put back what workers that are gone had in hand.

        Raises:
            BrokerUnreachableError: no answer. A lease that was not renewed stays due; what else was
                left undone is due when the lease is.
        """
        async with self._tending:
            begun_ns = self._clock.monotonic_ns()
            if begun_ns < self._due_ns:
                return
            with broker_errors(f"renewal of {self.key}"):
                status, length, *ended = await self._client.eval(
                    self.script(TEND), 2, self.key, self.work_key, *self.arguments, _MAX_OWNERS
                )
            if status == LOST:
                self.on_lost()
                self._generation += 1
                self._registered = False
                self._due_ns = 0
                return
            self._registered = True
            self._due_ns = begun_ns + int(self.every_s * NS_PER_S)
            if self.on_tended is not None:
                await self.on_tended(length)
            if status == MAY_REAP:
                await self.reaper.reap(ended)

    async def release(self, *, forget: bool) -> None:
        """Put back what the work list still holds, and end the lease; see ``RedisReaper``."""
        if self._registered:
            await self.reaper.release(self.owner, forget=forget)
            self._registered = False

    def record(self, tasks: list[bytes]) -> None:
        """Say which tasks were put back."""
        for task in tasks:
            self._recorder.record(Event.REQUEUED, task, broker=Broker.REDIS)
        if tasks:
            _log.warning("%d tasks that no worker had in hand are put back", len(tasks))
