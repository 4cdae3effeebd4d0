"""A phase that a process follows in a key, as worker and produce take it."""

import contextlib
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hookbench.live.follow import Follower

__all__ = ["followed", "following"]


@contextlib.contextmanager
def followed(
    phase_at: str | None,
    phase_file: Path | None,
    *,
    urls: tuple[str | None, str | None],
    names: Any,
    stream: Any,
    clock: Any,
) -> Iterator[tuple[Path | None, "Follower | None"]]:
    """The phase file to watch, and who keeps it; without ``phase_at`` the one that was given.

    Raises:
        SettingError: both are given, or the place is none.
    """
    if phase_at is None:
        yield phase_file, None
        return
    from hookbench.errors import SettingError
    from hookbench.live.boards import Boards
    from hookbench.live.follow import Follower, process_name
    from hookbench.live.places import FILE, parse_place
    from hookbench.migration.phases import PhaseFile

    if phase_file is not None:
        raise SettingError("give either --phase-at or --phase-file, not both")
    place = parse_place(phase_at)
    boards = Boards(*urls, names, stream=stream, clock=clock)
    boards.check([place])
    with tempfile.TemporaryDirectory(prefix="hookbench-phase-") as folder:
        path = Path(place.key) if place.kind == FILE else Path(folder) / "phase.json"
        file = PhaseFile(path)
        yield path, Follower(place, boards, file, name=process_name(), clock=clock)


@contextlib.asynccontextmanager
async def following(follower: "Follower | None") -> AsyncIterator[None]:
    """Follow as long as the process runs."""
    if follower is None:
        yield
        return
    import asyncio

    from hookbench.cancellation import cancel

    try:
        await follower.start()
        task = asyncio.ensure_future(follower.run())
        try:
            yield
        finally:
            await cancel(task)
    finally:
        await follower.close()
