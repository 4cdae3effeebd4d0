"""Signs of life: while a handler runs, its claim and its delivery are prolonged."""

import asyncio
import logging
from types import TracebackType

from hookbench.clock import NS_PER_S, Clock
from hookbench.errors import (
    BrokerUnreachableError,
    PublishRefusedError,
    PublishUnknownError,
    SettingError,
)
from hookbench.migration.received import Received

__all__ = ["Heart"]

_log = logging.getLogger(__name__)

_BEATS_PER_LEASE = 4
_LOOKS_PER_BEAT = 2


class _Beating:
    """Has a delivery among those that are beaten for; a generator would cost each task more."""

    __slots__ = ("_beaten_for", "_entry")

    def __init__(
        self, beaten_for: dict[int, tuple[Received, int]], item: Received, now_ns: int
    ) -> None:
        self._beaten_for = beaten_for
        self._entry = (item, now_ns)

    def __enter__(self) -> None:
        self._beaten_for[id(self._entry[0])] = self._entry

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        del self._beaten_for[id(self._entry[0])]


class Heart:
    """Beats for every task in work that takes long, in one coroutine for all of them.

    It beats only while the event loop runs and only for claims that are held: a worker that stands
    still, and one that has lost its claim, lets the others have the task. What is lost is not
    cancelled; the handler goes on, and its completion is refused.

    Args:
        lease_s: the shorter of the claim's lease and the broker's wait for an acknowledgement.
        clock: between the beats.
    """

    def __init__(self, lease_s: float, clock: Clock) -> None:
        if lease_s <= 0:
            raise SettingError(f"lease of {lease_s} s: use more than 0")
        self._every_s = lease_s / _BEATS_PER_LEASE
        self._clock = clock
        self._last_ns: dict[int, tuple[Received, int]] = {}
        self.beats = 0

    def beating(self, item: Received) -> "_Beating":
        """Beat for a delivery while the block runs."""
        return _Beating(self._last_ns, item, self._clock.monotonic_ns())

    async def run(self) -> None:
        """Beat, until cancelled."""
        every_ns = int(self._every_s * NS_PER_S)
        while True:
            await self._clock.sleep(self._every_s / _LOOKS_PER_BEAT)
            now_ns = self._clock.monotonic_ns()
            due = [item for item, last_ns in self._last_ns.values() if now_ns - last_ns >= every_ns]
            for item in due:
                self._last_ns[id(item)] = (item, now_ns)
            await asyncio.gather(*map(self._beat, due))

    async def _beat(self, item: Received) -> None:
        if item.claim is not None and not await self._renew(item):
            return
        if id(item) not in self._last_ns:
            return  # it ended meanwhile: its acknowledgement is on its way
        self.beats += 1
        if item.settled:
            return
        try:
            await item.delivery.in_progress()
        except (BrokerUnreachableError, PublishRefusedError, PublishUnknownError) as error:
            _log.warning("sign of life for a delivery: %s", error)

    async def _renew(self, item: Received) -> bool:
        claim = item.claim
        if claim is None or claim.lost:
            return False
        try:
            if await claim.renew():
                return True
        except BrokerUnreachableError as error:
            _log.warning("claim on task %s is not renewed: %s", claim.granted.task_id, error)
            return False
        if id(item) in self._last_ns:
            _log.warning(
                "task %s: another worker has claimed it; what is done here will be refused",
                claim.granted.task_id,
            )
        return False
