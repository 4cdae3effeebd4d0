"""Phases in files; an operator holds one by a lock on a file beside it."""

import fcntl
import os
from pathlib import Path

from hookbench.errors import SettingError
from hookbench.live.places import FILE, Place, decode_step, encode_step
from hookbench.migration.phases import PhaseFile

__all__ = ["FileBoard"]

_ROUNDS = 3
_LONGEST_OPERATOR = 4096


class FileBoard:
    """Phase files; who follows one prints what it is, and says nothing here."""

    def __init__(self) -> None:
        self._locks: dict[str, int] = {}

    async def read(self, key: str) -> bytes | None:
        """See ``Board``."""
        file = PhaseFile(Path(key))
        return encode_step(*file.read()) if file.exists() else None

    async def write(self, key: str, data: bytes, *, held_by: bytes | None = None) -> bytes | None:
        """See ``Board``."""
        if held_by is not None and not self._holds(key):
            return _said(_lock_file(key))
        index, phase = decode_step(Place(kind=FILE, key=key), data)
        PhaseFile(_in_a_folder(key)).write(index, phase)
        return None

    async def announce(self, key: str, name: str, data: bytes) -> None:
        """Printed by its process."""

    async def retract(self, key: str, name: str) -> None:
        """Printed by its process."""

    async def announced(self, key: str) -> dict[str, bytes]:
        """Nothing: it is in what its followers print."""
        del key
        return {}

    async def hold(self, key: str, data: bytes, *, instead_of: bytes | None = None) -> bytes | None:
        """See ``Board``; a lock has no lease, and ends with its process."""
        if self._holds(key):
            return None
        await self.let_go(key, data)  # of a file that is not there any more
        path = _lock_file(_in_a_folder(key))
        try:
            for _round in range(_ROUNDS):
                found = _lock(path)
                if isinstance(found, bytes):
                    if found != instead_of:
                        return found
                    path.unlink(missing_ok=True)  # whoever has the lock finds another file there
                    continue
                # Whoever let go in between has removed the file: then it is another one's.
                if _is_at(found, path):
                    os.ftruncate(found, 0)
                    os.write(found, data)
                    self._locks[key] = found
                    return None
                os.close(found)
        except OSError as error:
            raise SettingError(f"file:{key}: it cannot be held: {path}: {error}") from error
        raise SettingError(f"file:{key}: {path} changes all the time; call it again")

    async def renew(self, key: str, data: bytes) -> bytes | None:
        """See ``Board``."""
        del data
        return None if self._holds(key) else _said(_lock_file(key))

    async def let_go(self, key: str, data: bytes) -> None:
        """See ``Board``; removed before it is unlocked, so that nobody gets a lock on nothing."""
        del data
        holds = self._holds(key)
        descriptor = self._locks.pop(key, None)
        if descriptor is not None:
            if holds:
                _lock_file(key).unlink(missing_ok=True)
            os.close(descriptor)

    def _holds(self, key: str) -> bool:
        descriptor = self._locks.get(key)
        return descriptor is not None and _is_at(descriptor, _lock_file(key))


def _in_a_folder(key: str) -> Path:
    path = Path(key)
    if not path.parent.is_dir():
        raise SettingError(f"file:{key}: there is no folder {path.parent}")
    return path


def _lock_file(key: str | Path) -> Path:
    """Beside the phase file, which is renamed over at each change."""
    path = Path(key)
    return path.with_name(f".{path.name}.operator")


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is the one that lies there."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _said(path: Path) -> bytes:
    """What the file of a lock says, nothing if there is none."""
    try:
        with path.open("rb") as file:
            return file.read(_LONGEST_OPERATOR)
    except FileNotFoundError:
        return b""


def _lock(path: Path) -> int | bytes:
    """A descriptor with the lock, or what the file of another one's lock says."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        said = os.read(descriptor, _LONGEST_OPERATOR)
        os.close(descriptor)
        return said
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
