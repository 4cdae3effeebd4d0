"""The git handler: a mirror of each pushed bare repository, by the git command line.

The task names a repository by a path relative to the root of the origins. No name, ref or URL in
a task can become an option, another protocol, or a path outside of that root:

- every component of ``repo_id`` begins with a letter, digit or ``_`` and holds none but
  letters, digits, ``.``, ``_``, ``+`` and ``-``, so neither an option, nor ``..``, nor a URL;
- the resolved path, symlinks followed, must lie inside of the root;
- git is given absolute paths after ``--``, only the ``file`` protocol is allowed, and neither
  system nor user configuration is read;
- refs in a payload are not used at all: the mirror takes what the origin has.
"""

import asyncio
import contextlib
import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path

from hookbench.clock import NS_PER_S, Clock
from hookbench.errors import RepositoryError
from hookbench.task import HookTask

__all__ = ["GitMirrorHandler", "git_environment", "read_refs", "resolve_repository"]

_COMPONENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*")
_MAX_COMPONENTS = 8
GIT_TIMEOUT_S = 120.0
_LOCK_POLL_S = 0.01
_GIT = (
    "git",
    "-c",
    "protocol.allow=never",
    "-c",
    "protocol.file.allow=always",
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "gc.auto=0",
    "-c",
    "safe.directory=*",
)


def git_environment() -> dict[str, str]:
    """An environment in which git asks nothing, reads no configuration but the repository's own."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": os.devnull,
        "LC_ALL": "C",
        "GIT_ALLOW_PROTOCOL": "file",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
    }


def resolve_repository(root: Path, repo_id: str) -> Path:
    """The folder of a repository below ``root``.

    Raises:
        RepositoryError: the name is not allowed, or leads out of the root.
    """
    components = repo_id.split("/")
    if len(components) > _MAX_COMPONENTS or not all(
        _COMPONENT.fullmatch(part) for part in components
    ):
        raise RepositoryError(
            f"repository {repo_id!r}: use a relative path of up to {_MAX_COMPONENTS} names, each"
            " of letters, digits, '.', '_', '+' and '-' that begins with a letter, digit or '_'"
        )
    base = root.resolve()
    path = base.joinpath(*components).resolve()
    if not path.is_relative_to(base) or path == base:
        raise RepositoryError(f"repository {repo_id!r} leads out of the root of the origins")
    return path


class GitMirrorHandler:
    """Makes ``mirrors/<repo_id>`` equal to ``origins/<repo_id>``, ref for ref.

    Idempotent: the mirror's state after any number of runs is the origin's at the last one. One
    task per mirror at a time, over all worker processes, by a lock file.
    """

    def __init__(self, origins: Path, mirrors: Path, clock: Clock) -> None:
        self._origins = origins
        self._mirrors = mirrors
        self._clock = clock

    async def __call__(self, task: HookTask) -> None:
        """Mirror the task's repository.

        Raises:
            RepositoryError: the name is not allowed, there is no such repository, or git failed.
        """
        origin = resolve_repository(self._origins, task.repo_id)
        mirror = resolve_repository(self._mirrors, task.repo_id)
        if not (origin / "HEAD").is_file():
            raise RepositoryError(f"repository {task.repo_id!r}: no bare repository at the origin")
        mirror.parent.mkdir(parents=True, exist_ok=True)
        lock = mirror.parent / f".{mirror.name}.lock"
        descriptor = await self._lock(lock)
        try:
            if not (mirror / "HEAD").is_file():
                await _git("init", "--quiet", "--bare", "--", str(mirror))
            await _git(
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
            )
        finally:
            os.close(descriptor)

    async def _lock(self, path: Path) -> int:
        """Hold the lock file; polled, so that a cancelled wait leaves nothing behind."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        deadline_ns = self._clock.monotonic_ns() + int(GIT_TIMEOUT_S * NS_PER_S)
        try:
            while not _try_lock(descriptor):
                if self._clock.monotonic_ns() > deadline_ns:
                    raise RepositoryError(f"{path}: locked for more than {GIT_TIMEOUT_S} s")
                await self._clock.sleep(_LOCK_POLL_S)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def _git(*arguments: str) -> bytes:
    process = await asyncio.create_subprocess_exec(
        *_GIT,
        *arguments,
        env=git_environment(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    with _killed_on_the_way_out(process):
        try:
            async with asyncio.timeout(GIT_TIMEOUT_S):
                out, err = await process.communicate()
        except TimeoutError:
            raise RepositoryError(f"git {arguments[0]} took more than {GIT_TIMEOUT_S} s") from None
    if process.returncode != 0:
        text = err.decode(errors="replace").strip()[-500:]
        raise RepositoryError(f"git {' '.join(arguments)}: exit {process.returncode}: {text}")
    return out


@contextlib.contextmanager
def _killed_on_the_way_out(process: asyncio.subprocess.Process) -> Iterator[None]:
    try:
        yield
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()


async def read_refs(repository: Path) -> dict[str, str]:
    """All refs of a bare repository: name to object id."""
    out = await _git(
        "--git-dir", str(repository), "for-each-ref", "--format=%(objectname) %(refname)"
    )
    pairs = (line.split(" ", 1) for line in out.decode().splitlines())
    return {name: object_id for object_id, name in pairs}
