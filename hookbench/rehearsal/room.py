"""Room on the disk of a run: asked for before it starts, watched while it lasts.

A disk that is full fails everything at once: ledgers, samples, spool, logs, and the data of brokers
that were started in the run's folder. The run is cut off when a writer's next segment would not
fit any more, which is before that, and is then still able to say so. Where the room goes faster
than it is looked at, what failed is told as what it is: a full disk.
"""

import asyncio
import contextlib
import errno
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

from hookbench.cancellation import cancel
from hookbench.clock import Clock
from hookbench.errors import ResultsError
from hookbench.ledger.events import SEGMENT_BYTES

__all__ = ["RESERVE_BYTES", "check_room", "free_bytes", "hold_reserve", "watch_room"]

LOW_BYTES = SEGMENT_BYTES
"""Less than this, and the next process whose segment is full ends with an error."""
RESERVE_BYTES = 256 * 1024
"""Held back for the manifest of a run that is cut off; the largest one (100 steps, 64 producers and
64 workers that died) takes 131 KiB."""
_POLL_S = 0.1
_MIB = 1024 * 1024
_FULL = (errno.ENOSPC, errno.EDQUOT)
_ADVICE = "free some room or choose another folder with --out"


def free_bytes(folder: Path) -> int:
    """What may still be written to the disk of ``folder``."""
    return shutil.disk_usage(folder).free


def check_room(results: Path, *, processes: int) -> None:
    """Refuse to begin a run that has no room for the first segment of each of its ledgers.

    Args:
        results: the results folder; it need not exist yet.
        processes: how many of them write a ledger.

    Raises:
        ResultsError: the text says how much is there and how much is wanted.
    """
    there = next((path for path in (results, *results.absolute().parents) if path.exists()), None)
    if there is None:
        return  # whoever makes the folder says what is wrong with it
    free, wanted = free_bytes(there), processes * SEGMENT_BYTES + LOW_BYTES + RESERVE_BYTES
    if free < wanted:
        raise ResultsError(
            f"results folder {results}: its disk is full ({free / _MIB:.1f} MiB free, the ledgers"
            f" of {processes} processes begin with {wanted / _MIB:.1f} MiB); {_ADVICE}"
        )


def hold_reserve(path: Path) -> None:
    """Allocate ``RESERVE_BYTES``; whoever needs the room removes the file.

    Raises:
        OSError: there is no room.
    """
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)
        else:
            file.write(bytes(RESERVE_BYTES))


@contextlib.asynccontextmanager
async def watch_room(folder: Path, clock: Clock) -> AsyncIterator[None]:
    """Cancel the body when the disk of ``folder`` is nearly full; tell its errors from that.

    Raises:
        ResultsError: the disk is full. What the body raised because of it is its cause.
    """
    body = asyncio.current_task()
    short: list[int] = []

    async def watch() -> None:
        while (free := free_bytes(folder)) >= LOW_BYTES:
            await clock.sleep(_POLL_S)
        short.append(free)
        if body is not None:
            body.cancel()

    watching = asyncio.ensure_future(watch())
    try:
        yield
        await cancel(watching)
    except (Exception, asyncio.CancelledError) as error:
        free = short[0] if short else free_bytes(folder)
        if isinstance(error, asyncio.CancelledError):
            # Somebody else's (Ctrl-C) stays a cancellation, however full the disk is.
            full = bool(short) and body is not None and body.uncancel() == 0
        else:
            full = free < LOW_BYTES or _is_full(error)
        if full:
            raise ResultsError(
                f"results folder {folder.parent}: its disk is full ({free / _MIB:.1f} MiB free, a"
                f" ledger segment takes {SEGMENT_BYTES / _MIB:.1f} MiB), the run was cut off;"
                f" {_ADVICE}"
            ) from error
        raise
    finally:
        if not watching.done():
            await cancel(watching)


def _is_full(error: BaseException | None) -> bool:
    """Whether it, or what it came of, is the system's word for a full disk or a used-up quota."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        error = error.__cause__ or error.__context__
    return False
