"""A fitted model: what a task costs and waits, per pair of route and durability class."""

from dataclasses import dataclass, field

from hookbench.model.observations import ROLES, Setup
from hookbench.model.queueing import wait_percentile
from hookbench.model.saturation import Flood, RoleCost, flood_of, limits_per_s, saturated_us
from hookbench.model.terms import Terms

__all__ = ["LATENCIES", "Model", "Pair", "Residual"]

Pair = tuple[str, str]
"""Route and durability class."""

LATENCIES = {
    "p50_ms": 50.0,
    "p99_ms": 99.0,
    "p999_ms": 99.9,
    "enqueue_p50_ms": 50.0,
    "enqueue_p99_ms": 99.0,
}
"""Figures of latency that are fitted, and their percentiles."""
_MS_PER_S = 1e3
_BYTES_PER_KIB = 1024
_FOR_A_SLOPE = 2
_UNTIL_ACCEPTED = ("producer", "broker")


@dataclass(frozen=True, slots=True)
class Residual:
    """How far the fit is from what it was fitted to: predicted over measured, minus 1."""

    figure: str
    observation: str
    error: float


@dataclass(frozen=True, slots=True)
class Model:
    """What was fitted, per pair of route and durability class.

    Attributes:
        setup: that it was measured with.
        terms: of each figure.
        spread: of arrivals and service, see ``mean_wait``; 1 where no rates tell it.
        headroom: of the sustained rate, where waits would have no end: an objective ends before.
        spread_fitted: whether rates told both.
        knees: sustained over balanced rate, of pairs with an answer of capacity.
        payloads: that were measured, bytes, by pair.
        residuals: of every fitted figure.
    """

    setup: Setup
    terms: dict[str, Terms]
    spread: float = 1.0
    headroom: float = 1.0
    spread_fitted: bool = False
    knees: dict[Pair, float] = field(default_factory=dict)
    payloads: dict[Pair, tuple[float, ...]] = field(default_factory=dict)
    residuals: tuple[Residual, ...] = ()

    @property
    def pairs(self) -> list[Pair]:
        """That can be predicted."""
        return sorted(self.payloads)

    @property
    def borrowed(self) -> list[Pair]:
        """Pairs with one payload: what theirs costs per byte is taken from the others."""
        return [pair for pair in self.pairs if len(self.payloads[pair]) < _FOR_A_SLOPE]

    def costs(self, pair: Pair) -> dict[str, RoleCost]:
        """By role.

        Raises:
            ResultsError: the pair was not measured.
        """
        return {
            role: RoleCost(*(float(value) for value in self.terms[f"{role}_cpu_us"].of(pair)[:3]))
            for role in ROLES
        }

    def start_s(self, role: str) -> float:
        """CPU time of a process of a trial that is not for tasks."""
        return float(next(iter(self.terms[f"{role}_cpu_us"].by_pair.values()))[3])

    def flood(self, pair: Pair, payload_bytes: float, setup: Setup) -> Flood:
        """Rates at saturation, without what the efficiencies take off."""
        return flood_of(pair[0], saturated_us(self.costs(pair), payload_bytes, setup), setup)

    def efficiency(self, pair: Pair, figure: str = "done_per_s") -> float:
        """Measured over computed rate at saturation: what is lost to waiting."""
        return float(self.terms[figure].of(pair)[0])

    def fixed_ms(self, pair: Pair, figure: str, payload_bytes: float) -> float:
        """A percentile of the latency without a wait: round trips, syncs, jitter."""
        base, kib = self.terms[figure].of(pair)
        return float(base + kib * payload_bytes / _BYTES_PER_KIB)

    def sustained_share(self, pair: Pair) -> float:
        """Of what there is CPU time for, that is sustained; by an answer of capacity, if any.

        Else it is as at saturation, where producers take from the workers what they can.
        """
        return min(1.0, self.knees.get(pair, self.efficiency(pair)))

    def measured_limit_per_s(self, pair: Pair, payload_bytes: float, figure: str) -> float:
        """What is sustained with the setup that it was measured with.

        Until a task is accepted only producers and brokers count, until it is done any role.
        """
        costs_us = saturated_us(self.costs(pair), payload_bytes, self.setup)
        limits = limits_per_s(pair[0], costs_us, self.setup)
        if figure.startswith("enqueue"):
            limits = {name: limits[name] for name in _UNTIL_ACCEPTED}
        return min(limits.values()) * self.sustained_share(pair)

    def wait_ms(self, figure: str, rate_per_s: float, limit_per_s: float) -> float:
        """A percentile of the wait before what sustains so much."""
        service_s = 1 / (limit_per_s * self.headroom)
        wait_s = wait_percentile(LATENCIES[figure], rate_per_s, service_s, 1, self.spread)
        return float(wait_s) * _MS_PER_S
