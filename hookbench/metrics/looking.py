"""Looks at the brokers from a thread with an event loop of its own: the process's loop never waits.

A scrape asks; nothing is looked at while nobody scrapes. Several scrapes within a second share one
look, so that however often somebody asks the brokers are asked once a second.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import TimeoutError as FutureTimeoutError

from hookbench.clock import NS_PER_S, Clock
from hookbench.metrics.queues import DOWN, LOOK_TIMEOUT_S, BrokerLook, QueueReader

__all__ = ["Looking"]

EVERY_S = 1.0
PATIENCE_S = LOOK_TIMEOUT_S + 1.0
"""For the thread itself, beyond what a look takes."""


class Looking:
    """What ``reader`` saw within the last second, or sees now.

    Args:
        reader: makes the reader; it is called in the thread's loop.
        clock: for the age of a look.
        every_s: how long a look is good for.
        patience_s: for a look that does not end by itself.
    """

    def __init__(
        self,
        reader: Callable[[], QueueReader],
        *,
        clock: Clock,
        every_s: float = EVERY_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._make = reader
        self._clock = clock
        self._every_ns = int(every_s * NS_PER_S)
        self._patience_s = patience_s
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._reader: QueueReader | None = None
        self._seen: Mapping[str, BrokerLook] = {}
        self._seen_ns: int | None = None

    def __call__(self) -> Mapping[str, BrokerLook]:
        """Each broker; ``DOWN`` where it did not answer."""
        with self._lock:
            seen_ns = self._seen_ns
            if seen_ns is None or self._clock.monotonic_ns() - seen_ns >= self._every_ns:
                self._seen = self._look()
                self._seen_ns = self._clock.monotonic_ns()
            return self._seen

    def close(self) -> None:
        """Disconnect, and end the thread."""
        with self._lock:
            loop, thread, reader = self._loop, self._thread, self._reader
            if loop is None or thread is None or reader is None:
                return
            closing = asyncio.run_coroutine_threadsafe(reader.close(), loop)
            try:
                closing.result(self._patience_s)
            except FutureTimeoutError:
                closing.cancel()
            loop.call_soon_threadsafe(loop.stop)
            thread.join(self._patience_s)
            if not thread.is_alive():
                loop.close()
            self._loop = self._thread = self._reader = None

    def _look(self) -> Mapping[str, BrokerLook]:
        if self._loop is None or self._reader is None:
            self._reader = self._make()
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(
                target=self._loop.run_forever, name="metrics-queues", daemon=True
            )
            self._thread.start()
        looking = asyncio.run_coroutine_threadsafe(self._reader.look(), self._loop)
        try:
            return looking.result(self._patience_s)
        except FutureTimeoutError:
            looking.cancel()
            return dict.fromkeys(self._reader.brokers, DOWN)
