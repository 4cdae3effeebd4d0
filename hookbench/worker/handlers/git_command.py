"""git as the handlers run it: which repository, one at a time on it, and the command itself.

The task names a repository by a path relative to the root of the origins. No name, ref or URL in
a task can become an option, another protocol, or a path outside of that root:

- every component of ``repo_id`` begins with a letter, digit or ``_`` and holds none but
  letters, digits, ``.``, ``_``, ``+`` and ``-``, so neither an option, nor ``..``, nor a URL;
- the resolved path, symlinks followed, must lie inside of the root;
- git is given absolute paths after ``--`` or ``--git-dir``, only the ``file`` protocol is allowed,
  and neither system nor user configuration is read;
- refs in a payload are not used at all.
"""

import asyncio
import contextlib
import fcntl
import os
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path

from hookbench.clock import NS_PER_S, Clock
from hookbench.errors import RepositoryError

__all__ = [
    "GIT_TIMEOUT_S",
    "LOCK_TIMEOUT_S",
    "MAINTENANCE_TIMEOUT_S",
    "existing_mirror",
    "git_environment",
    "hold_mirror",
    "read_refs",
    "resolve_repository",
    "run_git",
]

GIT_TIMEOUT_S = 120.0
MAINTENANCE_TIMEOUT_S = 600.0
LOCK_TIMEOUT_S = MAINTENANCE_TIMEOUT_S + GIT_TIMEOUT_S
"""A sync waits out a gc or fsck that takes as long as one may."""

_COMPONENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*")
_MAX_COMPONENTS = 8
_MAX_COMPONENT_CHARACTERS = 200
"""Of 255 that file systems take: the name of the lock of a mirror is longer."""
_LOCK_POLL_S = 0.01
_TERMINATE_S = 5.0
_ERROR_CHARACTERS = 1000
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
    "maintenance.auto=false",
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
        # Of a repository that names a place for objects it lacks, git would ask that place, by a
        # command that the repository's own configuration says.
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_TERMINAL_PROMPT": "0",
    }


def resolve_repository(root: Path, repo_id: str) -> Path:
    """The folder of a repository below ``root``.

    Raises:
        RepositoryError: the name is not allowed, or leads out of the root.
    """
    components = repo_id.split("/")
    if len(components) > _MAX_COMPONENTS or not all(map(_is_name, components)):
        raise RepositoryError(
            f"repository {repo_id!r}: use a relative path of up to {_MAX_COMPONENTS} names, each"
            f" of up to {_MAX_COMPONENT_CHARACTERS} letters, digits, '.', '_', '+' and '-' that"
            " begins with a letter, digit or '_'"
        )
    try:
        base = root.resolve()
        path = base.joinpath(*components).resolve()
    except (OSError, RuntimeError) as error:  # links in a circle
        raise RepositoryError(f"repository {repo_id!r}: {error}") from error
    if not path.is_relative_to(base) or path == base:
        raise RepositoryError(f"repository {repo_id!r} leads out of the root of the origins")
    return path


def _is_name(component: str) -> bool:
    return len(component) <= _MAX_COMPONENT_CHARACTERS and bool(_COMPONENT.fullmatch(component))


def existing_mirror(mirrors: Path, repo_id: str) -> Path:
    """The mirror of a repository.

    Raises:
        RepositoryError: the name is not allowed, or there is no mirror yet.
    """
    mirror = resolve_repository(mirrors, repo_id)
    if not (mirror / "HEAD").is_file():
        raise RepositoryError(f"repository {repo_id!r}: no mirror yet, the first sync makes it")
    return mirror


@contextlib.asynccontextmanager
async def hold_mirror(mirror: Path, clock: Clock) -> AsyncIterator[int]:
    """Work on a mirror alone, over all worker processes; gives the lock file's descriptor.

    A git command that inherits it (``run_git(..., lock=...)``) holds the lock for as long as it
    runs, also when its worker is killed: the next one waits for that command's end. Polled, so
    that a cancelled wait leaves nothing behind.

    Raises:
        RepositoryError: the lock was not free within ``LOCK_TIMEOUT_S``.
    """
    path = mirror.parent / f".{mirror.name}.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        deadline_ns = clock.monotonic_ns() + int(LOCK_TIMEOUT_S * NS_PER_S)
        while not _try_lock(descriptor):
            if clock.monotonic_ns() > deadline_ns:
                raise RepositoryError(f"{path}: locked for more than {LOCK_TIMEOUT_S:g} s")
            await clock.sleep(_LOCK_POLL_S)
        yield descriptor
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def run_git(
    *arguments: str, lock: int | None = None, timeout_s: float = GIT_TIMEOUT_S
) -> bytes:
    """What git writes on stdout; ended with all of its children when the caller is cancelled.

    Args:
        arguments: of git; nothing in them comes from a task but what ``resolve_repository`` gave.
        lock: a descriptor that git inherits, see ``hold_mirror``.
        timeout_s: the longest that it may take.

    Raises:
        RepositoryError: git failed, in its own words (the end of them), or took too long.
    """
    process = await asyncio.create_subprocess_exec(
        *_GIT,
        *arguments,
        env=git_environment(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        pass_fds=() if lock is None else (lock,),
    )
    try:
        async with asyncio.timeout(timeout_s):
            out, err = await process.communicate()
    except TimeoutError:
        raise RepositoryError(f"git {' '.join(arguments)}: more than {timeout_s:g} s") from None
    finally:
        await _end(process)
    if process.returncode != 0:
        # fsck names a missing object on stdout and a damaged one on stderr.
        words = b"\n".join(part.strip() for part in (out, err) if part.strip())
        text = words.decode(errors="replace")[-_ERROR_CHARACTERS:]
        raise RepositoryError(f"git {' '.join(arguments)}: exit {process.returncode}: {text}")
    return out


async def _end(process: asyncio.subprocess.Process) -> None:
    """End git and what it started: asked first, for then it removes its own lock files."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_TERMINATE_S):
                await process.wait()


async def read_refs(repository: Path) -> dict[str, str]:
    """All refs of a bare repository: name to object id."""
    out = await run_git(
        "--git-dir", str(repository), "for-each-ref", "--format=%(objectname) %(refname)"
    )
    # A name may be any bytes, and have characters that Python takes for the end of a line.
    pairs = (line.split(b" ", 1) for line in out.split(b"\n") if line)
    return {name.decode(errors="surrogateescape"): object_id.decode() for object_id, name in pairs}
