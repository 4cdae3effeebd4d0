"""One run in virtual time, from its first task to its last."""

import asyncio
import contextlib
import gc
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

from hookbench.sim.errors import RefusedError
from hookbench.sim.loop import SimulatedLoop, SimulatedTask

__all__ = ["simulate"]

Result = TypeVar("Result")


def simulate(
    main: Callable[[SimulatedLoop], Coroutine[Any, Any, Result]],
    *,
    loop: SimulatedLoop | None = None,
) -> Result:
    """Run ``main(loop)`` to its end in virtual time.

    Args:
        main: makes the coroutine; it runs outside of any process.
        loop: with its limits and its choice of interleaving; by default a plain one.

    Raises:
        DeadlockError: everything waits for something that cannot come.
        SpentError: a limit of the loop was reached.
        UnretrievedError: a callback failed, or a task failed and nobody asked it.
        BaseException: what ``main`` raised.
    """
    if asyncio._get_running_loop() is not None:  # noqa: SLF001 - asks without raising
        raise RefusedError("simulate: another event loop runs in this thread")
    loop = loop or SimulatedLoop()
    collects = gc.isenabled()
    gc.disable()
    try:
        task = loop.create_task(main(loop), name="main")
        task.add_done_callback(lambda _task: loop.stop())
        try:
            loop.run_forever()
            result = task.result()
            _end(loop)
        finally:
            _bury(loop)
    finally:
        loop.close()
        if collects:
            gc.enable()
    return result


def _end(loop: SimulatedLoop) -> None:
    """Cancel what is left in the order of creation, let it end, and ask for all exceptions."""
    left = [task for task in loop.tasks if _runs(task)]
    for task in left:
        task.cancel()

    async def ended() -> None:
        if left:
            await asyncio.wait(left)

    last = loop.create_task(ended(), name="end")
    last.add_done_callback(lambda _task: loop.stop())
    loop.run_forever()
    loop.ask_all()


def _runs(task: SimulatedTask[Any]) -> bool:
    return task.process is None or (task.process.alive and not task.process.stopped)


def _bury(loop: SimulatedLoop) -> None:
    """Close what will never run again, now and in order: the collector would do it at any time.

    That runs the ``finally`` of killed coroutines. Their connections are gone, and what they make
    ready is forgotten with the loop.
    """
    with _without_a_loop():
        for task in loop.tasks:
            # As asyncio.gather does where it answers for a task itself.
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001
            with contextlib.suppress(BaseException):
                task.get_coro().close()


class _NoLoop(asyncio.DefaultEventLoopPolicy):
    """Gives nobody a loop: asyncio makes one for who asks first, and nobody would close it."""

    def get_event_loop(self) -> asyncio.AbstractEventLoop:
        """Refuse.

        Raises:
            RuntimeError: always, as where no loop is set.
        """
        raise RuntimeError("there is no loop here any more")


@contextlib.contextmanager
def _without_a_loop() -> Iterator[None]:
    """Who asks for a loop outside of one is refused meanwhile."""
    before = asyncio.get_event_loop_policy()
    asyncio.set_event_loop_policy(_NoLoop())
    try:
        yield
    finally:
        asyncio.set_event_loop_policy(before)
