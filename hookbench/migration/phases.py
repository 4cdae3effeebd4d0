"""The phases of the migration, each a write route and a read route."""

import enum
import errno
import json
import os
from pathlib import Path

import msgspec

from hookbench.decoding import MAX_CONFIGURATION_BYTES, decode_json
from hookbench.errors import SettingError
from hookbench.queues.redis_kind import RedisKind

__all__ = [
    "AckMode",
    "Design",
    "Phase",
    "PhaseFile",
    "ReadRoute",
    "WriteRoute",
    "check_redis_kind",
    "parse_phase",
    "read_route",
    "write_route",
]


class Phase(enum.IntEnum):
    """A step of the migration, by the guide's numbers."""

    REDIS_ONLY = 0
    DUAL_WRITE = 1
    DUAL_READ = 2
    NATS_PRIMARY = 3
    NATS_ONLY = 4

    @property
    def label(self) -> str:
        """The name as users write it: ``dual_write``."""
        return self.name.lower()


class WriteRoute(enum.StrEnum):
    """Where a producer writes. ``NATS_THEN_REDIS`` falls back; ``BOTH`` writes to both always."""

    REDIS = "redis"
    BOTH = "both"
    NATS = "nats"
    NATS_THEN_REDIS = "nats_then_redis"


class ReadRoute(enum.StrEnum):
    """Where a consumer reads. ``NATS_THEN_REDIS`` reads Redis once after a failed NATS read."""

    REDIS = "redis"
    NATS = "nats"
    NATS_THEN_REDIS = "nats_then_redis"


class AckMode(enum.StrEnum):
    """When a NATS delivery is acknowledged; Redis is always acknowledged after processing."""

    IMMEDIATE = "immediate"
    AFTER_PROCESSING = "after_processing"


class Design(enum.StrEnum):
    """How the reference code behaves: without and with the measures of ``measures.py``."""

    GUIDE = "guide"
    HARDENED = "hardened"


_ROUTES: dict[Phase, tuple[WriteRoute, ReadRoute]] = {
    Phase.REDIS_ONLY: (WriteRoute.REDIS, ReadRoute.REDIS),
    Phase.DUAL_WRITE: (WriteRoute.BOTH, ReadRoute.REDIS),
    Phase.DUAL_READ: (WriteRoute.BOTH, ReadRoute.NATS_THEN_REDIS),
    Phase.NATS_PRIMARY: (WriteRoute.NATS, ReadRoute.NATS),
    Phase.NATS_ONLY: (WriteRoute.NATS, ReadRoute.NATS),
}


def write_route(phase: Phase) -> WriteRoute:
    """Where producers write in this phase."""
    return _ROUTES[phase][0]


def read_route(phase: Phase) -> ReadRoute:
    """Where consumers read in this phase."""
    return _ROUTES[phase][1]


def check_redis_kind(kind: RedisKind, phase: Phase) -> None:
    """Refuse a Redis stream in the phases of the migration, which leads away from lists.

    Raises:
        SettingError: the text names the phase.
    """
    if kind is RedisKind.STREAM and phase is not Phase.REDIS_ONLY:
        raise SettingError(
            f"a Redis stream in phase {phase.label}: only {Phase.REDIS_ONLY.label} has one, for the"
            " migration is from lists: leave --redis-queue out"
        )


def parse_phase(text: str) -> Phase:
    """A phase by its name or its number.

    Raises:
        SettingError: there is no such phase.
    """
    cleaned = text.strip().lower().replace("-", "_")
    for phase in Phase:
        if cleaned in (phase.label, str(int(phase))):
            return phase
    known = ", ".join(f"{phase.label} ({int(phase)})" for phase in Phase)
    raise SettingError(f"phase {text!r}: use one of {known}")


_PART_BYTES = 4096


class _Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    index: int
    phase: str


class PhaseFile:
    """The phase of a running fleet, in a file that its processes watch.

    The file holds one JSON object: ``index`` counts the steps of the timeline, so that a phase
    that is entered twice can be told apart, and ``phase`` is its name. It is replaced, never
    rewritten in place.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._name = os.fspath(path)
        self._seen: tuple[int, int, int] | None = None
        self._step = (0, Phase.REDIS_ONLY)
        """What ``_seen`` says: a file is looked at 20 times a second, and seldom another one."""

    def exists(self) -> bool:
        """Whether there is a phase already."""
        return self.path.exists()

    def write(self, index: int, phase: Phase) -> None:
        """Make ``phase`` the current one."""
        aside = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        aside.write_text(json.dumps({"index": index, "phase": phase.label}) + "\n")
        _make_later(aside, self.path)
        aside.replace(self.path)

    def read(self) -> tuple[int, Phase]:
        """Index and phase.

        Raises:
            SettingError: the file is missing or holds something else.
        """
        try:
            status = os.stat(self._name)  # noqa: PTH116 - a path makes its name anew each time
            version = status.st_mtime_ns, status.st_ino, status.st_size
            if version == self._seen:
                return self._step
            step = decode_json(_content(self.path), _Step)
        except OSError as error:
            raise SettingError(f"phase file {self.path}: {error.strerror}") from error
        except msgspec.MsgspecError as error:
            raise SettingError(
                f'phase file {self.path}: {error}; it holds {{"index": 0, "phase": "dual_write"}}'
            ) from error
        self._step = step.index, parse_phase(step.phase)
        self._seen = version  # of before it was read: what is newer is read once more
        return self._step


def _make_later(new: Path, old: Path) -> None:
    """Have a file be younger than the one that it replaces.

    The clock of a file system stands still for some milliseconds, and the number of a file that is
    gone is given to the next one: two that were written in that time would look the same.
    """
    try:
        old_ns = old.stat().st_mtime_ns
    except FileNotFoundError:
        return
    status = new.stat()
    if status.st_mtime_ns <= old_ns:
        os.utime(new, ns=(status.st_atime_ns, old_ns + 1))


def _content(path: Path) -> bytes:
    """The whole of a small file, without the file object, which costs more than its bytes."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        content = part = os.read(descriptor, _PART_BYTES)
        while len(part) == _PART_BYTES:  # a part that is shorter ends a file
            part = os.read(descriptor, _PART_BYTES)
            content += part
            if len(content) > MAX_CONFIGURATION_BYTES:
                raise OSError(errno.EFBIG, f"more than {MAX_CONFIGURATION_BYTES:,} bytes", path)
        return content
    finally:
        os.close(descriptor)
