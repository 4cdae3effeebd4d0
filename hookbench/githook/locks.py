"""The two locks of an installed hook: its flush, and its settings. Standard library.

A flush holds the spool's lock file exclusively; who only asks whether one runs takes it shared, so
that two who ask do not take each other for a flush. A push holds the settings shared while it
spools its task; an uninstall takes them exclusively, so that no task is spooled into a spool that
is just removed.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hookbench.clock import SystemClock
from hookbench.errors import HookbenchError, SettingError

__all__ = ["flush_is_running", "hold_settings", "lock_path", "try_exclusive", "try_shared"]

_SETTINGS_POLL_S = 0.01
_SETTINGS_TRIES = 500
"""A push waits 5 s at the most for an uninstall, which takes milliseconds."""


def lock_path(spool: Path) -> Path:
    """The file that a running flush holds locked."""
    return spool.with_name(f"{spool.name}.lock")


def try_exclusive(path: Path) -> int | None:
    """The descriptor of the file, locked for this process alone, or ``None`` if others hold it.

    Raises:
        HookbenchError: the file cannot be opened.
    """
    return _try(path, fcntl.LOCK_EX)


def try_shared(path: Path) -> int | None:
    """The descriptor of the file, locked against an exclusive holder, or ``None`` if there is one.

    Raises:
        HookbenchError: the file cannot be opened.
    """
    return _try(path, fcntl.LOCK_SH)


def flush_is_running(spool: Path) -> bool:
    """Whether a flush holds the lock now."""
    descriptor = try_shared(lock_path(spool))
    if descriptor is None:
        return True
    os.close(descriptor)
    return False


def _try(path: Path, kind: int) -> int | None:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise HookbenchError(f"lock file {path}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


@contextmanager
def hold_settings(path: Path, clock: SystemClock) -> Iterator[None]:
    """Keep an uninstall from removing the settings and the spool that they name.

    Raises:
        SettingError: there are no settings, no longer, or an uninstall holds them for too long.
    """
    for _ in range(_SETTINGS_TRIES):
        descriptor = _try_settings(path)
        if descriptor is not None:
            break
        clock.block(_SETTINGS_POLL_S)
    else:
        raise SettingError(f"hook settings {path}: an uninstall holds them")
    try:
        yield
    finally:
        os.close(descriptor)


def _try_settings(path: Path) -> int | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise SettingError(
            f"hook settings {path}: {error.strerror}; run hookbench hook install"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_nlink:  # else replaced or removed since it was opened
            return descriptor
    except BlockingIOError:
        pass
    os.close(descriptor)
    return None
