"""An asyncio event loop in virtual time: production code runs in it unchanged.

Time stands still while anything can run, and then jumps to the next timer. There is no selector,
no socket and no thread, so a run depends on nothing but its code and its seed. That asyncio
replays to the byte takes three things more:

* ``set`` and ``WeakSet`` iterate in the order of addresses, which differ from process to process.
  Tasks of this loop hash by their number instead, so ``asyncio.wait`` hands them back in one
  order. (Bare futures do not: code that iterates over a set of futures has to sort it.)
* a task that nobody refers to any more is collected, and what else lies in a cycle is finalised,
  whenever the collector runs. The loop keeps every task until it is done, and the collector waits
  until the run is over.
* an exception that nobody retrieved is reported when its task is collected. Here a failing
  callback ends the run at once, and a task's exception that nobody asked for at its end.

Times are integer nanoseconds inside; ``time()`` has them as seconds.
"""

import asyncio
import contextvars
import functools
import random
import sys
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from heapq import heappop, heappush
from typing import Any, TypeVar

import msgspec

from hookbench.clock import NS_PER_S
from hookbench.sim.errors import (
    DeadlockError,
    SimulationError,
    SpentError,
    UnretrievedError,
)
from hookbench.sim.processes import PROCESS, Processes
from hookbench.sim.refused import refuse_all
from hookbench.sim.waiting import where_it_waits

__all__ = ["EPOCH_NS", "SimulatedLoop", "SimulatedTask"]

Result = TypeVar("Result")

EPOCH_NS = 1_000 * NS_PER_S
"""Virtual time at the start: not 0, so that a time of 0 is seen for the mistake that it is."""
_Future = asyncio.Future
_FIRST_PRUNE = 256
_SET_RESULT = asyncio.futures._set_result_unless_cancelled  # type: ignore[attr-defined]  # noqa: SLF001
"""What ``asyncio.sleep`` has called: known here, it need not pass through the queue."""
_Timer = tuple[int, int, Any]
"""When it is due in ns, a number within a moment, and a ``_Call`` or a future to be done."""


class SimulatedTask(asyncio.Task[Result]):
    """A task that hashes by its number, in the order of creation."""

    __slots__ = ("number", "process")

    def __init__(
        self,
        coro: Any,
        *,
        loop: "SimulatedLoop",
        number: int,
        name: str,
        context: contextvars.Context,
    ) -> None:
        # First of all: the constructor puts the task into a WeakSet.
        self.number = number
        self.process = context.get(PROCESS)
        super().__init__(coro, loop=loop, name=name, context=context)

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return self is other


class _Call(msgspec.Struct, eq=False):
    """A callback that is ready or due, the ``Handle`` of this loop: a struct, for it is made in C.

    Attributes:
        when_ns: when it is due; 0 for at once.
        callback: ``None`` for one that was cancelled.
        arguments: of the callback.
        context: of the code that asked for it.
    """

    when_ns: int
    callback: Callable[..., object] | None
    arguments: tuple[Any, ...]
    context: contextvars.Context | None

    def cancel(self) -> None:
        """Never call it; what it refers to is let go."""
        self.callback = None
        self.arguments = ()

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self.callback is None

    def when(self) -> float:
        """When it is due, in seconds of the loop."""
        return self.when_ns / NS_PER_S


class SimulatedLoop(asyncio.BaseEventLoop):
    """Runs what is ready in the order in which it became so, then jumps to the next timer.

    Args:
        interleave: where given, each turn runs what was ready at its beginning in an order drawn
            from it. asyncio promises first come, first served, so what fails only under this is
            code that depends on that promise.
        limit_ns: virtual time after which the run has failed: a search needs an end.
        limit_calls: callbacks after which the run has failed, for what never lets time pass.

    Attributes:
        now_ns: virtual time.
        calls: callbacks that ran so far.
        processes: who was killed or stopped.
    """

    def __init__(
        self,
        *,
        interleave: random.Random | None = None,
        limit_ns: int = 7 * 24 * 3600 * NS_PER_S,
        limit_calls: int = 100_000_000,
    ) -> None:
        super().__init__()
        self.now_ns = EPOCH_NS
        self.calls = 0
        self.processes = Processes(self._resume)
        self._interleave = interleave
        self._limit_ns = EPOCH_NS + limit_ns
        self._limit_calls = limit_calls
        self._queue: deque[_Call] = deque()
        self._timers: list[_Timer] = []
        self._numbers = 0
        self._living: list[SimulatedTask[Any]] = []
        self._prune_at = _FIRST_PRUNE
        self._failed: list[tuple[str, BaseException | None]] = []
        self._ending = False
        self.create_future = functools.partial(_Future, loop=self)  # type: ignore[method-assign]

    # Asked for each future and task that is made: this one says no without a frame of Python.
    get_debug = staticmethod(bool)

    def time(self) -> float:
        """Virtual seconds."""
        return self.now_ns / NS_PER_S

    def call_soon(  # type: ignore[override]  # the handle is one of ours
        self,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> _Call:
        """Call it in this turn or the next, after what is ready already."""
        # Not ``context or``: a context without variables, as the harness has it, is false.
        context = contextvars.copy_context() if context is None else context
        call = _Call(0, callback, args, context)
        self._queue.append(call)
        return call

    call_soon_threadsafe = call_soon  # type: ignore[assignment]  # there is one thread

    def call_later(  # type: ignore[override]  # as above
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> _Call:
        """Call it after so many virtual seconds."""
        if delay <= 0:
            return self.call_soon(callback, *args, context=context)
        self._numbers += 1
        # Time passes at least: who looks at it again and again until it is late would never end.
        when_ns = self.now_ns + (int(delay * NS_PER_S + 0.5) or 1)
        if callback is _SET_RESULT and args[1] is None:
            # Who cancels this has a future that is done.
            heappush(self._timers, (when_ns, self._numbers, args[0]))
            return _Call(when_ns, callback, args, context)
        context = contextvars.copy_context() if context is None else context
        call = _Call(when_ns, callback, args, context)
        heappush(self._timers, (when_ns, self._numbers, call))
        return call

    def call_at(  # type: ignore[override]  # as above
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> _Call:
        """Call it at a time of this loop."""
        when_ns = int(when * NS_PER_S + 0.5)
        if when_ns / NS_PER_S < when:  # as ``time()`` has it: never before it
            when_ns += 1
        if when_ns <= self.now_ns:
            return self.call_soon(callback, *args, context=context)
        self._numbers += 1
        context = contextvars.copy_context() if context is None else context
        call = _Call(when_ns, callback, args, context)
        heappush(self._timers, (when_ns, self._numbers, call))
        return call

    def call_at_ns(
        self, when_ns: int, callback: Callable[..., object], *, context: contextvars.Context
    ) -> _Call:
        """As ``call_at``, in nanoseconds, and in a context that belongs to no process."""
        self._numbers = number = self._numbers + 1
        when_ns = when_ns if when_ns > self.now_ns else self.now_ns  # noqa: FURB136 - max() is slow
        call = _Call(when_ns, callback, (), context)
        heappush(self._timers, (when_ns, number, call))
        return call

    def after(self, seconds: float) -> "asyncio.Future[None]":
        """A future that is done after so many virtual seconds; cancel it, or let it be."""
        future: asyncio.Future[None] = _Future(loop=self)
        self._numbers = number = self._numbers + 1
        when_ns = self.now_ns + int(seconds * NS_PER_S + 0.5)
        heappush(self._timers, (when_ns, number, future))
        return future

    def create_task(
        self,
        coro: Generator[Any, None, Result] | Coroutine[Any, Any, Result],
        *,
        name: object = None,
        context: contextvars.Context | None = None,
    ) -> SimulatedTask[Result]:
        """A task of the caller's process."""
        self._numbers += 1
        number = self._numbers
        text = f"task-{number}" if name is None else str(name)
        context = contextvars.copy_context() if context is None else context
        task: SimulatedTask[Result] = SimulatedTask(
            coro, loop=self, number=number, name=text, context=context
        )
        self._living.append(task)
        if len(self._living) >= self._prune_at:
            self._living = [item for item in self._living if not item.done() or _failed(item)]
            self._prune_at = max(_FIRST_PRUNE, 2 * len(self._living))
        return task

    @property
    def tasks(self) -> list[SimulatedTask[Any]]:
        """Tasks that are not done, in the order of creation."""
        return [task for task in self._living if not task.done()]

    def run_forever(self) -> None:
        """Run until ``stop``; see ``simulate`` for the rules of an end.

        Raises:
            DeadlockError: nothing is ready and no timer is there.
            SpentError: a limit was reached.
            UnretrievedError: a callback failed.
        """
        self._check_closed()  # type: ignore[attr-defined]  # of BaseEventLoop
        asyncio.events._set_running_loop(self)  # noqa: SLF001 - as every loop does
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(firstiter=None, finalizer=self._close_generator)
        try:
            self._run()
            if self._failed:
                message, error = self._failed.pop(0)
                raise UnretrievedError(message) from error
        finally:
            self._ending = False
            asyncio.events._set_running_loop(None)  # noqa: SLF001 - as above
            sys.set_asyncgen_hooks(*hooks)

    def stop(self) -> None:
        """Let ``run_forever`` return after this turn."""
        self._ending = True

    def is_running(self) -> bool:
        """Whether it is this loop that runs now."""
        return asyncio._get_running_loop() is self  # noqa: SLF001 - public name of events

    def close(self) -> None:
        """Forget what is left."""
        self._queue.clear()
        self._timers.clear()
        self._living.clear()
        super().close()

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """What asyncio would only log ends the run."""
        error = context.get("exception")
        self._failed.append((str(context.get("message")), error))
        self.stop()

    def _run(self) -> None:
        """Run what is ready and what becomes so, then jump: most of the time is spent here."""
        queue, processes, limit = self._queue, self.processes, self._limit_calls
        pop, jump, calls, interleave = queue.popleft, self._jump, self.calls, self._interleave
        turn = 0
        callback: Any = None
        context: Any
        try:
            while not self._ending:
                if not queue:
                    jump()
                    continue
                if interleave is not None and not turn:
                    turn = self._shuffle(interleave)
                turn -= 1
                call = pop()
                callback, context = call.callback, call.context
                if callback is None:
                    continue
                if processes.any_halted:
                    process = context.get(PROCESS)
                    if process is not None and (process.stopped or not process.alive):
                        process.withhold(call)
                        continue
                calls += 1
                context.run(callback, *call.arguments)
                if calls > limit:
                    raise SpentError(f"{limit} callbacks ran without an end", self.tasks)
        except (SystemExit, KeyboardInterrupt, SimulationError):
            raise
        except BaseException as error:
            raise UnretrievedError(f"callback {callback!r} failed") from error
        finally:
            self.calls = calls

    def _shuffle(self, interleave: random.Random) -> int:
        """Draw the order of what is ready now; how many that are."""
        ready = list(self._queue)
        interleave.shuffle(ready)
        self._queue.clear()
        self._queue.extend(ready)
        return len(ready)

    def _jump(self) -> None:
        """Let time pass until the next timer, and make all of that moment ready."""
        timers, append = self._timers, self._queue.append
        while True:
            if not timers:
                raise DeadlockError(
                    "nothing is ready and nothing is due, so these would wait for ever", self.tasks
                )
            when_ns, _number, due = heappop(timers)
            # Of what nobody waits for any more no time passes.
            if due.callback is not None if due.__class__ is _Call else not due.done():
                break
        now_ns = self.now_ns
        if when_ns > now_ns:
            now_ns = self.now_ns = when_ns
            if now_ns > self._limit_ns:
                limit_s = (self._limit_ns - EPOCH_NS) / NS_PER_S
                raise SpentError(f"no end after {limit_s:g} s of virtual time", self.tasks)
        while True:
            if due.__class__ is _Call:
                append(due)
            elif not due.done():
                due.set_result(None)
            if not timers or timers[0][0] > now_ns:
                return
            _when_ns, _number, due = heappop(timers)

    def _resume(self, calls: list[Any]) -> None:
        """What a process that goes on again was not let do meanwhile."""
        self._queue.extend(calls)

    def _close_generator(self, generator: Any) -> None:
        self.create_task(generator.aclose())

    def ask_all(self) -> None:
        """Raise the first exception that nobody has retrieved; the dead are asked for none."""
        for task in self._living:
            if _failed(task) and (task.process is None or task.process.alive):
                error = task.exception()
                raise UnretrievedError(f"nobody asked {where_it_waits(task)} for this") from error


def _failed(task: "asyncio.Task[Any]") -> bool:
    """Whether it ended with an exception that nobody has retrieved."""
    return bool(getattr(task, "_log_traceback", False))


refuse_all(SimulatedLoop)
