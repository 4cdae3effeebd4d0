"""What a fitted model says of other conditions: rate, processes, cores, payload, round trips."""

from collections.abc import Sequence

import msgspec

from hookbench.errors import SettingError
from hookbench.model.fitted import LATENCIES, Model, Pair
from hookbench.model.observations import ROLES, Setup
from hookbench.model.queueing import wait_percentile
from hookbench.model.saturation import limits_per_s, most_batch, processes_of, saturated_us
from hookbench.queues.jetstream import ConsumerSettings

__all__ = ["TURNS", "WAITS", "Conditions", "Prediction", "predict", "predict_rates"]

TURNS = {
    "redis_list": (1.0, 1.0),
    "redis_stream": (1.0, 1.0),
    "jetstream": (1.0, 1.0),
    "dual_write": (2.0, 2.0),
    "dual_read": (2.0, 1.0),
    "nats_primary": (1.0, 1.0),
}
"""Round trips of a task until it is accepted, and until it is done, under the guide: half a trip to
the broker and half a trip to the worker, which waits there; where both are written NATS comes
first, so that Redis has its copy after a whole trip more."""
_NATS_READ = ("jetstream", "dual_read", "nats_primary")
WAITS = 0.5
"""Of what there is CPU time for. Where less is reached something else is waited for, as a disk that
syncs each task, and more cores or processes do not help."""
_MS_PER_S = 1e3
_US_PER_S = 1e6


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be predicted.

    Attributes:
        route: a queue, or a phase that uses both brokers.
        durability: class; ``replicated`` where replicas were measured.
        payload_bytes: the mean.
        rate_per_s: tasks offered.
        setup: processes, and cores.
        rtt_ms: round-trip time to the brokers, beyond that of the machine that was measured.
        shared: whether all share the cores; else they are those of the brokers alone, and each
            producer and worker has one of its own.
    """

    route: str
    durability: str = "lazy"
    payload_bytes: float = 256.0
    rate_per_s: float = 500.0
    setup: Setup = Setup()
    rtt_ms: float = 0.0
    shared: bool = True

    def check(self) -> None:
        """Refuse what nothing can be said of.

        Raises:
            SettingError: a value is out of bounds; the text names it.
        """
        setup = self.setup
        for name, value in (
            ("rate", self.rate_per_s),
            ("producers", setup.producers),
            ("workers", setup.workers),
            ("concurrency", setup.concurrency),
            ("cores", setup.cores),
        ):
            if value <= 0:
                raise SettingError(f"{name} {value:g}: use more than 0")
        for name, value in (
            ("payload", self.payload_bytes),
            ("round-trip time", self.rtt_ms),
            ("service time", setup.service_ms),
        ):
            if value < 0:
                raise SettingError(f"{name} {value:g}: use 0 or more")


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """What it comes to.

    Attributes:
        conditions: that it is of.
        limits_per_s: the rate that each thing sustains, by name: ``producer``, ``broker``,
            ``worker``, ``machine`` (the cores of all), ``disk or waiting`` and ``slots``
            (concurrency over the time that a task takes).
        bottleneck: the name of the least.
        capacity_per_s: that least.
        growth_per_s: of the backlog; 0 below capacity.
        cpu_us: of a task at that rate, by role.
        batch: mean, at that rate, by role.
        busy: share of the cores of each role's processes, and of all for ``machine``.
        latency_ms: figures of ``LATENCIES``; ``None`` where there is no steady state.
        notes: what a reader has to know, one text each.
    """

    conditions: Conditions
    limits_per_s: dict[str, float]
    bottleneck: str
    capacity_per_s: float
    growth_per_s: float
    cpu_us: dict[str, float]
    batch: dict[str, float]
    busy: dict[str, float]
    latency_ms: dict[str, float | None]
    notes: tuple[str, ...]


def predict(model: Model, conditions: Conditions) -> Prediction:
    """Throughput with its bottleneck, CPU, and latency below it.

    The latency is its fixed part, the round trips that are given, the service time, and the wait at
    the bottleneck (see ``wait_percentile``, one server that takes ``1 / capacity`` for each task)
    and for a slot of a worker. Each is taken at the same percentile and added: the sum is that of a
    task that is unlucky each time, and so rather too high than too low.

    Raises:
        SettingError: a condition is out of bounds.
        ResultsError: nothing of the route and durability class was measured.
    """
    conditions.check()
    pair = conditions.route, conditions.durability
    setup, payload = conditions.setup, conditions.payload_bytes
    limits = _limits(model, conditions, pair)
    bottleneck = min(limits, key=lambda name: limits[name])
    capacity = limits[bottleneck]
    costs = model.costs(pair)
    rate = min(conditions.rate_per_s, capacity)
    batch = {
        role: costs[role].batch_at(
            rate / processes_of(role, setup), payload, most_batch(role, setup)
        )
        for role in ROLES
    }
    cpu_us = {role: costs[role].of_batch(payload, batch[role]) for role in ROLES}
    busy = {role: rate * cpu_us[role] / processes_of(role, setup) / _US_PER_S for role in ROLES}
    busy["machine"] = rate * sum(cpu_us.values()) / setup.cores / _US_PER_S
    return Prediction(
        conditions=conditions,
        limits_per_s=limits,
        bottleneck=bottleneck,
        capacity_per_s=capacity,
        growth_per_s=max(0.0, conditions.rate_per_s - capacity),
        cpu_us=cpu_us,
        batch=batch,
        busy=busy,
        latency_ms=_ordered(
            {name: _latency_ms(model, conditions, limits, name) for name in LATENCIES}
        ),
        notes=_notes(model, conditions, pair),
    )


def predict_rates(
    model: Model, conditions: Conditions, rates_per_s: Sequence[float]
) -> list[Prediction]:
    """The same at several rates."""
    return [
        predict(model, msgspec.structs.replace(conditions, rate_per_s=rate)) for rate in rates_per_s
    ]


def _limits(model: Model, conditions: Conditions, pair: Pair) -> dict[str, float]:
    setup, payload = conditions.setup, conditions.payload_bytes
    costs_us = saturated_us(model.costs(pair), payload, setup)
    limits = limits_per_s(pair[0], costs_us, setup, shared=conditions.shared)
    share = model.sustained_share(pair)
    if share < WAITS:
        limits["disk or waiting"] = model.measured_limit_per_s(pair, payload, "p50_ms")
    else:
        limits = {name: value * share for name, value in limits.items()}
    if busy_ms := setup.service_ms + conditions.rtt_ms:
        limits["slots"] = _slots(conditions) / busy_ms * _MS_PER_S
    return limits


def _slots(conditions: Conditions) -> float:
    """Tasks that can be under way in workers; of the guide's consumer no more than it allows."""
    slots = conditions.setup.workers * conditions.setup.concurrency
    if conditions.route in _NATS_READ:
        return float(min(slots, ConsumerSettings().max_ack_pending))
    return float(slots)


def _latency_ms(
    model: Model, conditions: Conditions, limits: dict[str, float], figure: str
) -> float | None:
    accepted = figure.startswith("enqueue")
    rate, setup = conditions.rate_per_s, conditions.setup
    names = ("producer", "broker", "disk or waiting") if accepted else tuple(limits)
    limit = min(value for name, value in limits.items() if name in names and name != "slots")
    pair = conditions.route, conditions.durability
    if rate >= min(limits.values()) or pair not in model.terms[figure].by_pair:
        return None
    until_accepted, until_done = TURNS[conditions.route]
    total = model.fixed_ms(pair, figure, conditions.payload_bytes)
    total += model.wait_ms(figure, rate, limit)
    total += conditions.rtt_ms * (until_accepted if accepted else until_done)
    if accepted or "slots" not in limits:
        return total
    busy_s = (setup.service_ms + conditions.rtt_ms) / _MS_PER_S
    slot_s = wait_percentile(LATENCIES[figure], rate, busy_s, _slots(conditions))
    # What was measured had its own service time in it.
    service_ms = setup.service_ms - model.setup.service_ms
    return max(0.0, total + service_ms) + float(slot_s) * _MS_PER_S


def _ordered(latency_ms: dict[str, float | None]) -> dict[str, float | None]:
    """No higher percentile is below a lower one: each is fitted for itself."""
    found = dict(latency_ms)
    for lower, higher in (
        ("p50_ms", "p99_ms"),
        ("p99_ms", "p999_ms"),
        ("enqueue_p50_ms", "enqueue_p99_ms"),
    ):
        low, high = found[lower], found[higher]
        if low is not None and high is not None:
            found[higher] = max(low, high)
    return found


def _notes(model: Model, conditions: Conditions, pair: Pair) -> tuple[str, ...]:
    notes = []
    payloads = model.payloads.get(pair, ())
    if payloads and not payloads[0] <= conditions.payload_bytes <= payloads[-1]:
        notes.append(
            f"payload {conditions.payload_bytes:,.0f} B is beyond what was measured"
            f" ({payloads[0]:,.0f} to {payloads[-1]:,.0f} B)"
        )
    if pair not in model.terms["p50_ms"].by_pair:
        notes.append("no latency: in every trial that was measured the backlog grew")
    if pair in model.borrowed:
        notes.append("one payload was measured: what a byte costs is taken from the other cells")
    if not model.spread_fitted:
        notes.append("waits are those of Poisson arrivals and exponential service: no rates fitted")
    if model.sustained_share(pair) < WAITS:
        notes.append("limited by what it waits for: more processes or cores do not raise that")
    if not conditions.shared or conditions.setup != model.setup:
        notes.append("other processes, cores or times than measured: costs per task stay the same")
    return tuple(notes)
