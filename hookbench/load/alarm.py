"""Being called at a moment, which is set anew from one call to the next."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from hookbench.clock import NS_PER_S, Clock

__all__ = ["Alarm", "SleepingAlarm"]

_LONGEST_SLEEP_S = 0.5
"""After which a sleeper looks whether it is still to wait."""


class Alarm(Protocol):
    """Calls back once at the moment that was set last, in the event loop that serves it."""

    def set(self, moment_ns: int) -> None:
        """Call back at that monotonic time, and not at one that was set before."""
        ...

    async def serve(self, until: "asyncio.Future[None]") -> None:
        """Return when ``until`` is done, with its result.

        Raises:
            Exception: of the callback, or of ``until``.
        """
        ...

    def close(self) -> None:
        """Call back no more, and give back what it holds."""
        ...


class SleepingAlarm:
    """An alarm of any clock: whoever serves it sleeps until the moment.

    Args:
        clock: that sleeps.
        callback: what is called.
    """

    def __init__(self, clock: Clock, callback: Callable[[], None]) -> None:
        self._clock = clock
        self._callback = callback
        self._moment_ns: int | None = None
        self._changed = asyncio.Event()

    def set(self, moment_ns: int) -> None:
        """As in ``Alarm``."""
        self._moment_ns = moment_ns
        self._changed.set()

    async def serve(self, until: "asyncio.Future[None]") -> None:
        """As in ``Alarm``; a moment that is over already is called at once."""
        until.add_done_callback(lambda _until: self._changed.set())
        while not until.done():
            if self._moment_ns is None:
                self._changed.clear()
                await self._changed.wait()
            elif (left_ns := self._moment_ns - self._clock.monotonic_ns()) > 0:
                await self._clock.sleep(min(left_ns / NS_PER_S, _LONGEST_SLEEP_S))
            else:
                self._moment_ns = None
                self._callback()
        until.result()

    def close(self) -> None:
        """As in ``Alarm``; there is nothing to give back."""
        self._moment_ns = None
