"""Acknowledgements that were sent, and whose confirmation is still to come."""

import asyncio
import logging
from functools import partial
from uuid import UUID

from hookbench.clock import Clock
from hookbench.ledger.events import Broker, Event, Recorder

__all__ = ["Confirmations"]

_log = logging.getLogger(__name__)


class Confirmations:
    """Records each confirmation when it comes; no slot of the worker waits for it."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._expected: set[asyncio.Future[None]] = set()
        self.failed = 0

    def __len__(self) -> int:
        """Confirmations that are still to come."""
        return len(self._expected)

    def expect(self, task_id: UUID, broker: Broker, confirmed: "asyncio.Future[None]") -> None:
        """Record ``ACK_CONFIRMED`` of the task, or ``ACK_FAILED``, when the future is done."""
        self._expected.add(confirmed)
        confirmed.add_done_callback(partial(self._ended, task_id, broker))

    def _ended(self, task_id: UUID, broker: Broker, confirmed: "asyncio.Future[None]") -> None:
        self._expected.discard(confirmed)
        if not confirmed.cancelled() and confirmed.exception() is None:
            self._recorder.record(Event.ACK_CONFIRMED, task_id.bytes, broker=broker)
            return
        self.failed += 1
        self._recorder.record(Event.ACK_FAILED, task_id.bytes, broker=broker)
        error = "given up" if confirmed.cancelled() else confirmed.exception()
        _log.warning("task %s is done, and delivered again at its AckWait: %s", task_id, error)

    async def drain(self, clock: Clock, timeout_s: float) -> int:
        """Wait for those that are still to come; how many did not in time."""
        if not self._expected:
            return 0
        waiting = asyncio.ensure_future(asyncio.wait(set(self._expected)))
        timer = asyncio.ensure_future(clock.sleep(timeout_s))
        try:
            await asyncio.wait({waiting, timer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
            waiting.cancel()
        missing = list(self._expected)
        for confirmed in missing:
            confirmed.cancel()
        if missing:
            await asyncio.wait(missing)
            await asyncio.sleep(0)  # their callbacks record
        return len(missing)
