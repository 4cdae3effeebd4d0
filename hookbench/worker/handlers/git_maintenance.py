"""The handlers of ``fsck`` and ``gc`` tasks: the care of the mirrors.

Both work on the mirror and never on the origin: the worker owns the one and only reads the other.
They hold the lock of the mirror handler, so that no sync, gc or fsck of one mirror meets another.
"""

from pathlib import Path

from hookbench.clock import Clock
from hookbench.effects.classes import Execution
from hookbench.errors import RepositoryError
from hookbench.task import HookTask
from hookbench.worker.handlers.git_command import (
    MAINTENANCE_TIMEOUT_S,
    existing_mirror,
    hold_mirror,
    read_refs,
    run_git,
)

__all__ = ["GitFsckHandler", "GitGcHandler"]


class GitFsckHandler:
    """Checks every object of a mirror; what is wrong with one is the task's failure.

    Idempotent: it changes nothing.
    """

    def __init__(self, mirrors: Path, clock: Clock) -> None:
        self._mirrors = mirrors
        self._clock = clock

    async def __call__(self, task: HookTask, _execution: Execution) -> None:
        """``git fsck --strict`` on the mirror of the task's repository.

        Raises:
            RepositoryError: git found something, in its own words; the name is not allowed; or
                there is no mirror.
        """
        mirror = existing_mirror(self._mirrors, task.repo_id)
        async with hold_mirror(mirror, self._clock) as lock:
            await run_git(
                "--git-dir",
                str(mirror),
                "fsck",
                "--full",
                "--strict",
                "--no-dangling",
                "--no-progress",
                lock=lock,
                timeout_s=MAINTENANCE_TIMEOUT_S,
            )


class GitGcHandler:
    """Packs the objects and refs of a mirror, and removes what has been unreachable for two weeks.

    Idempotent: what the mirror means, its refs and what they reach, stays as it is.
    """

    def __init__(self, mirrors: Path, clock: Clock) -> None:
        self._mirrors = mirrors
        self._clock = clock

    async def __call__(self, task: HookTask, _execution: Execution) -> None:
        """``git gc`` on the mirror of the task's repository.

        Raises:
            RepositoryError: git failed, or its refs are not the same after it; the name is not
                allowed; or there is no mirror.
        """
        mirror = existing_mirror(self._mirrors, task.repo_id)
        async with hold_mirror(mirror, self._clock) as lock:
            before = await read_refs(mirror)
            await run_git(
                "--git-dir",
                str(mirror),
                "gc",
                "--quiet",
                # git's own mark of a running gc: with the lock held, one of a gc that was killed.
                "--force",
                lock=lock,
                timeout_s=MAINTENANCE_TIMEOUT_S,
            )
            after = await read_refs(mirror)
        if after != before:
            changed = sorted(
                name for name in before.keys() | after.keys() if before.get(name) != after.get(name)
            )
            raise RepositoryError(
                f"repository {task.repo_id!r}: gc changed {len(changed)} refs, e.g. {changed[0]}"
            )
