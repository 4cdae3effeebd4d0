"""Greenlets call coroutines: one uvloop in a native thread, wake-ups in batches both ways.

Locust is gevent and the clients are asyncio. A call goes into a deque; the loop is woken once for
all calls that lie in it, and so is the gevent hub for all outcomes. A killed greenlet does not
cancel its coroutine, and the outcome is reported all the same: publishes that succeeded while
users are stopped are counted.

Create a bridge after Locust has forked its processes, in ``events.init``. In its loop
``asyncio.to_thread`` hangs, because Locust has patched the threads.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import gevent
import uvloop
from gevent.event import Event
from gevent.hub import Waiter
from gevent.monkey import get_original

from hookbench.clock import NS_PER_S, SystemClock
from hookbench.errors import HookbenchError

__all__ = ["Bridge", "Report"]

_log = logging.getLogger(__name__)

_POLL_S = 0.01
_CLOSE_TIMEOUT_S = 5.0

Report = Callable[[Any, Exception | None], None]
"""Is told the value of a call, or its error, on the gevent side."""


class _Call:
    __slots__ = ("arguments", "error", "function", "report", "value", "waiter")

    def __init__(
        self,
        waiter: Any,
        function: Callable[..., Awaitable[Any]],
        arguments: tuple[Any, ...],
        report: Report | None,
    ) -> None:
        self.waiter = waiter
        self.function = function
        self.arguments = arguments
        self.report = report
        self.value: Any = None
        self.error: Exception | None = None


class Bridge:
    """The asyncio loop of one Locust process."""

    def __init__(self) -> None:
        self._clock = SystemClock()
        self._hub = gevent.get_hub()
        self._calls: deque[_Call] = deque()
        self._outcomes: deque[_Call] = deque()
        self._loop_armed = False
        self._hub_armed = False
        self._closed = False
        self.pending = 0
        """Calls without an outcome yet."""
        self._wake = Event()
        self._watcher = self._hub.loop.async_()
        self._watcher.start(self._wake.set)
        self._ended = get_original("_thread", "allocate_lock")()
        self._ended.acquire()
        self._loop = uvloop.new_event_loop()
        get_original("_thread", "start_new_thread")(self._run_loop, ())
        self._reporter = gevent.spawn(self._report_outcomes)

    # The native thread.

    def _run_loop(self) -> None:
        loop = self._loop
        try:
            asyncio.set_event_loop(loop)
            loop.run_forever()
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            if left:
                loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()
        finally:
            self._ended.release()

    def _start_calls(self) -> None:
        self._loop_armed = False
        while self._calls:
            self._loop.create_task(self._carry_out(self._calls.popleft()))

    async def _carry_out(self, call: _Call) -> None:
        try:
            call.value = await call.function(*call.arguments)
        except asyncio.CancelledError:
            call.error = HookbenchError("the bridge was closed")
            raise
        except Exception as error:  # noqa: BLE001 - it is raised where the call was made
            call.error = error
        finally:
            self._outcomes.append(call)
            if not self._hub_armed:
                self._hub_armed = True
                self._watcher.send()

    # The gevent side.

    def call(
        self,
        function: Callable[..., Awaitable[Any]],
        *arguments: Any,
        report: Report | None = None,
    ) -> Any:
        """Await ``function(*arguments)`` in the loop, and its value.

        Args:
            function: a coroutine function.
            arguments: for it.
            report: is told the outcome, even when the calling greenlet was killed meanwhile.

        Raises:
            HookbenchError: the bridge is closed.
            Exception: what the coroutine raised.
        """
        if self._closed:
            raise HookbenchError("the bridge is closed")
        waiter = Waiter(self._hub)
        self.pending += 1
        self._calls.append(_Call(waiter, function, arguments, report))
        if not self._loop_armed:
            self._loop_armed = True
            self._loop.call_soon_threadsafe(self._start_calls)
        return waiter.get()

    def _report_outcomes(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            self._hub_armed = False
            while self._outcomes:
                self._report_one(self._outcomes.popleft())

    def _report_one(self, call: _Call) -> None:
        self.pending -= 1
        if call.report is not None:
            try:
                call.report(call.value, call.error)
            except Exception:  # noqa: BLE001 - the reporter serves all calls
                _log.exception("an outcome could not be reported")
        # A waiter is switched to from the hub; if its greenlet is gone, nothing happens.
        if call.error is None:
            self._hub.loop.run_callback(call.waiter.switch, call.value)
        else:
            self._hub.loop.run_callback(call.waiter.throw, call.error)

    def settle(self, timeout_s: float) -> bool:
        """Wait until every call has its outcome; whether that came in time."""
        deadline_ns = self._clock.monotonic_ns() + int(timeout_s * NS_PER_S)
        while self.pending and self._clock.monotonic_ns() < deadline_ns:
            gevent.sleep(_POLL_S)
        return self.pending == 0

    def close(self) -> bool:
        """End loop and thread; whether they ended in time."""
        if self._closed:
            return True
        self.settle(_CLOSE_TIMEOUT_S)
        self._closed = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        deadline_ns = self._clock.monotonic_ns() + int(_CLOSE_TIMEOUT_S * NS_PER_S)
        while not self._ended.acquire(False):
            if self._clock.monotonic_ns() > deadline_ns:
                return False
            gevent.sleep(_POLL_S)
        self._reporter.kill()
        self._watcher.stop()
        self._watcher.close()
        return True
