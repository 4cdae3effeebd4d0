"""A random schedule of faults that follows from the seed alone.

Every fault of it can fire: it is aimed at what exists in the topology, at a broker that the phase
uses and at a link with traffic, and it is healed while the load still runs. What it does to the
tasks is left to the design. Times count from the beginning of the change into a phase, so faults
meet the procedures between the phases as well.
"""

import random
from collections.abc import Collection, Sequence

import msgspec

from hookbench.errors import SettingError
from hookbench.faults.registry import AnyFault, kind_of
from hookbench.rehearsal.chaos_lanes import LANES
from hookbench.rehearsal.chaos_moment import Maker, Moment
from hookbench.rehearsal.settings import RehearsalSettings

__all__ = ["MIN_PHASE_SECONDS", "chaos_schedule"]

MIN_PHASE_SECONDS = 2.0
_MIN_SECONDS = 10.0
_FIRST_S = 2.0
_LAST_S = 4.0
"""So long before the end of the load nothing begins: what waits for a frame has time to meet it."""
_CALM_S = 1.2
"""Between two faults of one lane: a broker that was killed is back, and its clients too."""
_MEAN_GAP_S = 1.0
_MAX_FOR_S = 2.0
_ENTERED_S = 2.0
"""So long after its beginning every worker is in a phase; with a procedure nobody knows."""
_MAX_FAULTS = 1_000


def chaos_schedule(
    settings: RehearsalSettings, *, without: Collection[str] = (), only: Collection[str] = ()
) -> tuple[AnyFault, ...]:
    """The faults of a seed, in the order of their times.

    Several lanes run side by side (Redis, NATS, its consumers, the fleet, the wire, the load), so
    faults of different lanes overlap, and those of one do not.

    Args:
        settings: of the rehearsal.
        without: kinds that are left out; the rest of the schedule stays as it is.
        only: kinds that are drawn, as often as all of their lane would be; empty for all.

    Raises:
        SettingError: the timeline is too short for a fault and its healing, or a broker is
            somebody else's: nothing is done to it.
    """
    if settings.redis_url is not None or settings.nats_url is not None:
        raise SettingError(
            "chaos: faults are aimed at embedded brokers only: leave --redis-url and --nats-url out"
        )
    seconds = settings.phase_seconds * len(settings.phases)
    if seconds < _MIN_SECONDS or settings.phase_seconds < MIN_PHASE_SECONDS:
        raise SettingError(
            f"chaos: a timeline of {seconds:g} s in phases of {settings.phase_seconds:g} s: use"
            f" {_MIN_SECONDS:g} s or more, in phases of {MIN_PHASE_SECONDS:g} s or more"
        )
    faults: list[AnyFault] = []
    for name, makers in LANES.items():
        rng = random.Random(f"chaos:{settings.seed}:{name}")
        faults += _lane(rng, makers, settings, only)
    faults.sort(key=lambda fault: (fault.phase_index or 0, fault.at_s))
    for fault in faults:
        fault.check()
    return tuple(fault for fault in faults if kind_of(fault) not in without)


class _Deck:
    """The makers of a lane in random order, each once before any comes again if it can."""

    def __init__(self, rng: random.Random, makers: Sequence[Maker], only: Collection[str]) -> None:
        self._rng = rng
        self._makers = makers
        self._only = only
        self._left: list[Maker] = []

    def draw(self, now: Moment) -> AnyFault | None:
        """A fault of the first maker that has one for this moment."""
        for _ in range(2):
            for maker in self._left:
                fault = maker(self._rng, now)
                if fault is not None and (not self._only or kind_of(fault) in self._only):
                    self._left.remove(maker)
                    return fault
            again = list(self._makers)
            for maker in self._left:
                again.remove(maker)
            self._rng.shuffle(again)
            self._left += again
        return None


def _lane(
    rng: random.Random,
    makers: tuple[Maker, ...],
    settings: RehearsalSettings,
    only: Collection[str],
) -> list[AnyFault]:
    faults: list[AnyFault] = []
    deck = _Deck(rng, makers, only)
    phase_index, at_s = 0, _FIRST_S
    for _ in range(_MAX_FAULTS):
        at_s = round(at_s + rng.expovariate(1 / _MEAN_GAP_S), 2)
        for_s = round(rng.uniform(0.3, _MAX_FOR_S), 2)
        while at_s >= settings.phase_seconds:  # a phase lasts as long, or longer
            phase_index, at_s = phase_index + 1, round(at_s - settings.phase_seconds, 2)
        left_s = settings.phase_seconds * (len(settings.phases) - phase_index) - at_s
        if left_s < for_s + _LAST_S:
            break
        fault = deck.draw(_moment(phase_index, at_s, for_s, settings))
        if fault is None:
            continue
        faults.append(msgspec.structs.replace(fault, phase_index=phase_index))
        at_s += fault.for_s + _CALM_S
    return faults


def _moment(phase_index: int, at_s: float, for_s: float, settings: RehearsalSettings) -> Moment:
    entered = at_s > _ENTERED_S and not settings.effective_measures.gates
    return Moment(
        at_s=at_s,
        for_s=for_s,
        phase_index=phase_index,
        left_s=settings.phase_seconds - at_s,
        before=settings.phases[: phase_index + entered],
        settings=settings,
    )
