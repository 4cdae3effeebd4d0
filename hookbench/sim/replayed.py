"""What became of minimal schedules on real brokers, and the file that keeps it."""

import msgspec

__all__ = ["REPLAYS_NAME", "Clean", "Replay", "Replays"]

REPLAYS_NAME = "replays.json"


class Clean(msgspec.Struct, frozen=True, kw_only=True):
    """How hardened fared over the same seeds."""

    seeds: int
    failing: int


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """One cause, replayed.

    Attributes:
        key: of the cause, see ``Cause``.
        seeds: tried until it was found, that one included.
        faults: of the minimal schedule.
        tries: rehearsals that were run; none is, where no fault of the schedule has a place in one.
        named: how many of them named the same hazard and invariant.
        unknown: how many ended with an unknown verdict and did not name it.
        others: keys that the others named instead.
        notes: what the rehearsal says otherwise than the simulator.
        runs: their ids.
    """

    key: str
    seeds: int
    faults: int
    tries: int
    named: int
    unknown: int
    others: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()

    @property
    def found(self) -> bool:
        """Whether it counts."""
        return self.named > 0


class Replays(msgspec.Struct, frozen=True, kw_only=True):
    """What ``replays.json`` holds.

    Attributes:
        hardened: over the same seeds; ``None`` where it is what was searched.
        causes: one of each cause.
    """

    hardened: Clean | None
    causes: tuple[Replay, ...]
