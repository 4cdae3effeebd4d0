"""The phases of a run, as the web form takes them: ``redis_only:20,dual_write:20,dual_read``."""

import math

import msgspec

from hookbench.errors import SettingError
from hookbench.migration.phases import Phase, parse_phase

__all__ = ["PlannedPhase", "parse_timeline"]

_MAX_PHASES = 100
_MAX_S = 86_400.0


class PlannedPhase(msgspec.Struct, frozen=True):
    """A phase and its length; ``None`` for as long as the run lasts."""

    phase: Phase
    seconds: float | None = None


def parse_timeline(text: str) -> tuple[PlannedPhase, ...]:
    """The phases in ``text``, each with its seconds but for the last; none for an empty text.

    Raises:
        SettingError: an unknown phase, a length that is missing or none, the same phase twice in
            a row.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if len(parts) > _MAX_PHASES:
        raise SettingError(f"timeline of {len(parts)} phases: use up to {_MAX_PHASES}")
    found: list[PlannedPhase] = []
    for number, part in enumerate(parts, 1):
        name, colon, length = (item.strip() for item in part.partition(":"))
        phase = parse_phase(name)
        if found and found[-1].phase is phase:
            raise SettingError(f"timeline {text!r}: {phase.label} follows itself")
        if not colon and number < len(parts):
            raise SettingError(
                f"timeline {text!r}: say how many seconds {phase.label} lasts, as in"
                f" {phase.label}:20; only the last phase may do without"
            )
        found.append(PlannedPhase(phase, _seconds(text, length) if colon else None))
    return tuple(found)


def _seconds(text: str, length: str) -> float:
    try:
        seconds = float(length)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= _MAX_S:
        raise SettingError(
            f"timeline {text!r}: length {length!r}: use more than 0 and up to {_MAX_S:,.0f} seconds"
        )
    return seconds
