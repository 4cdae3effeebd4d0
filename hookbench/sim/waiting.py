"""Where a task waits, for a person who reads why a run stands still."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

__all__ = ["where_it_waits"]

_DEPTH_MAX = 100
_ENDS = ("asyncio/", "asyncio\\")


def where_it_waits(task: "asyncio.Task[Any]") -> str:
    """The task and its innermost line outside of asyncio: ``main at sim/loop.py:12 in run``."""
    frames = []
    item: Any = task.get_coro()
    for _ in range(_DEPTH_MAX):
        frame = getattr(item, "cr_frame", None) or getattr(item, "gi_frame", None)
        if frame is None:
            frame = getattr(item, "ag_frame", None)
        if frame is None:
            break
        frames.append(frame)
        item = getattr(item, "cr_await", None) or getattr(item, "gi_yieldfrom", None)
        if item is None:
            break
    ours = [frame for frame in frames if not any(end in _file(frame) for end in _ENDS)]
    if not frames:
        return f"{task.get_name()} ({'done' if task.done() else 'not begun'})"
    frame = (ours or frames)[-1]
    place = "/".join(_file(frame).replace("\\", "/").split("/")[-2:])
    return f"{task.get_name()} at {place}:{frame.f_lineno} in {frame.f_code.co_qualname}"


def _file(frame: Any) -> str:
    return str(frame.f_code.co_filename)
