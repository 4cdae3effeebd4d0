"""The mirror handler: a mirror of each pushed bare repository, by the git command line."""

from pathlib import Path

from hookbench.clock import Clock
from hookbench.effects.classes import Execution
from hookbench.errors import RepositoryError
from hookbench.task import HookTask
from hookbench.worker.handlers.git_command import hold_mirror, resolve_repository, run_git

__all__ = ["GitMirrorHandler"]


class GitMirrorHandler:
    """Makes ``mirrors/<repo_id>`` equal to ``origins/<repo_id>``, ref for ref.

    Idempotent: the mirror's state after any number of runs is the origin's at the last one. One
    task per mirror at a time, over all worker processes, by a lock file.
    """

    def __init__(self, origins: Path, mirrors: Path, clock: Clock) -> None:
        self._origins = origins
        self._mirrors = mirrors
        self._clock = clock

    async def __call__(self, task: HookTask, _execution: Execution) -> None:
        """Mirror the task's repository; its payload is not used.

        Raises:
            RepositoryError: the name is not allowed, there is no such repository, or git failed.
        """
        origin = resolve_repository(self._origins, task.repo_id)
        mirror = resolve_repository(self._mirrors, task.repo_id)
        if not (origin / "HEAD").is_file():
            raise RepositoryError(f"repository {task.repo_id!r}: no bare repository at the origin")
        mirror.parent.mkdir(parents=True, exist_ok=True)
        async with hold_mirror(mirror, self._clock) as lock:
            if not (mirror / "HEAD").is_file():
                await run_git("init", "--quiet", "--bare", "--", str(mirror), lock=lock)
            await run_git(
                "--git-dir",
                str(mirror),
                "fetch",
                "--quiet",
                "--prune",
                "--no-tags",
                "--no-write-fetch-head",
                "--no-recurse-submodules",
                "--",
                str(origin),
                "+refs/*:refs/*",
                lock=lock,
            )
