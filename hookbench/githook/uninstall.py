"""Remove the ``post-receive`` hook, its settings, and its spool if nothing is left in it."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from hookbench.clock import NS_PER_S, SystemClock
from hookbench.errors import RepositoryError
from hookbench.githook.config import CONFIG_NAME, read_config
from hookbench.githook.install import MARK, SPOOL_NAME, hook_path
from hookbench.githook.locks import lock_path, try_shared
from hookbench.migration.spool import Spool

__all__ = ["Uninstalled", "uninstall_hook"]

PUSH_TIMEOUT_S = 10.0
"""How long pushes that are being received are waited for; SQLite's own wait is 5 s."""

_POLL_S = 0.01


class Uninstalled(NamedTuple):
    """What an uninstall left behind.

    Attributes:
        repo_id: the repository's name in its tasks.
        spool: path of the spool.
        abandoned: tasks that still wait in it.
        rejected: tasks that a flush had set aside in it.
        spool_kept: whether the file is still there.
    """

    repo_id: str
    spool: Path
    abandoned: int
    rejected: int
    spool_kept: bool


def uninstall_hook(
    repository: Path,
    *,
    abandon: bool = False,
    clock: SystemClock,
    push_timeout_s: float = PUSH_TIMEOUT_S,
) -> Uninstalled:
    """Remove what ``install_hook`` wrote, all of it or nothing.

    The spool goes only if it is empty and where ``hookbench hook install`` puts it by default: one
    that somebody placed elsewhere may be shared with other hooks.

    Raises:
        RepositoryError: no hook is installed, or one that is not hookbench's; a flush runs; a push
            is being received; tasks wait and ``abandon`` is not set; a file cannot be removed.
        SettingError: the settings are damaged or missing, so that the spool is not known.
        SpoolError: the spool cannot be read.
    """
    hook = hook_path(repository)
    config_path = repository / CONFIG_NAME
    _check_installed(repository, hook, config_path)
    config = read_config(config_path)
    spool = Path(config.spool)
    with (
        _no_push(config_path, clock, push_timeout_s),
        _no_flush(spool),
    ):
        waiting, rejected = _count(spool)
        if waiting and not abandon:
            raise RepositoryError(
                f"tasks that wait in the spool {spool}: {waiting}; send them with 'hookbench hook"
                f" flush --config {config_path}', or leave them behind with --abandon"
            )
        _remove(hook, config_path)
        default = spool.resolve() == repository.resolve() / SPOOL_NAME
        if default and not waiting and not rejected:
            _remove_spool(spool)
    return Uninstalled(config.repo_id, spool, waiting, len(rejected), spool.exists())


def _check_installed(repository: Path, hook: Path, config_path: Path) -> None:
    if not os.path.lexists(hook) and not config_path.exists():
        raise RepositoryError(f"no hook of hookbench is installed in {repository}")
    if not os.path.lexists(hook):
        return  # settings without a hook: somebody removed the hook by hand
    try:
        text = hook.read_text(errors="replace")
    except OSError as error:
        raise RepositoryError(f"{hook}: {error.strerror}; it is left alone") from error
    if MARK not in text:
        raise RepositoryError(f"{hook} is not hookbench's: it is left alone, and so is all else")


@contextlib.contextmanager
def _no_push(config_path: Path, clock: SystemClock, timeout_s: float) -> Iterator[None]:
    """Hold the settings alone: pushes under way have spooled their tasks, new ones wait."""
    try:
        descriptor = os.open(config_path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise RepositoryError(f"{config_path}: {error.strerror}; nothing was removed") from error
    deadline_ns = clock.monotonic_ns() + int(timeout_s * NS_PER_S)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if clock.monotonic_ns() > deadline_ns:
                    raise RepositoryError(
                        f"pushes are being received for more than {timeout_s:g} s; try again"
                    ) from None
                clock.block(_POLL_S)
        if not os.fstat(descriptor).st_nlink:
            raise RepositoryError(f"{config_path} was just replaced or removed; try again")
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _no_flush(spool: Path) -> Iterator[None]:
    """Keep a flush from starting; one that runs is not cut off.

    A lock that is merely shared: the hooks of other repositories on the same spool do not take it
    for a flush, and start theirs.
    """
    if not spool.parent.is_dir():
        yield
        return
    path = lock_path(spool)
    descriptor = try_shared(path)
    if descriptor is None:
        pid = path.read_text().strip() or "unknown"
        raise RepositoryError(
            f"a flush (process {pid}) runs on the spool {spool}: wait for its end, or end it with"
            " SIGTERM, which lets it finish the task at hand, and try again"
        )
    try:
        yield
    finally:
        os.close(descriptor)


def _count(spool: Path) -> tuple[int, list[tuple[int, str]]]:
    if not spool.exists():
        return 0, []
    with Spool(spool) as opened:
        return len(opened), opened.rejected()


def _remove(hook: Path, config_path: Path) -> None:
    """Both files or none: the hook is put aside first, and comes back if its settings stay."""
    aside = hook.with_name(".post-receive.hookbench-removed")
    try:
        moved = os.path.lexists(hook)
        if moved:
            hook.rename(aside)
        try:
            config_path.unlink()
        except OSError:
            if moved:
                aside.rename(hook)
            raise
    except OSError as error:
        raise RepositoryError(f"{error.filename}: {error.strerror}; nothing was removed") from error
    with contextlib.suppress(OSError):  # the hook is off already; git runs no file of that name
        aside.unlink(missing_ok=True)


def _remove_spool(spool: Path) -> None:
    """Remove the empty spool with SQLite's files and the lock file, as far as that goes."""
    for path in (*(Path(f"{spool}{end}") for end in ("-wal", "-shm", "")), lock_path(spool)):
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
