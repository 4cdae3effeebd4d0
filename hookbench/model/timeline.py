"""A day of a phase in steps: backlogs, outages, time to catch up, memory and disk of each broker.

The brokers' queues are fluids that come in and are taken in steps of a second or so. Nothing
happens task by task, so a day of a thousand million tasks takes as long as one of a thousand.
"""

import math
from dataclasses import dataclass

import msgspec
import numpy as np

from hookbench.brokers.durability import Durability
from hookbench.errors import SettingError
from hookbench.migration.phases import Design, Phase, ReadRoute, WriteRoute, read_route, write_route
from hookbench.model.arriving import arrivals_per_step
from hookbench.model.fluid import ages_s, first_at_most, lindley, window_sum
from hookbench.model.stored import Storage, encoded_bytes
from hookbench.model.terms import Floats
from hookbench.queues.jetstream import SEVEN_DAYS_S

__all__ = ["DAY_S", "Day", "Outage", "OutageEffect", "Timeline", "parse_outage", "simulate_day"]

DAY_S = 86_400.0
MAX_STEPS = 10_000_000
TARGETS = ("redis", "nats", "workers")
_BROKERS = ("redis", "nats")


class Outage(msgspec.Struct, frozen=True, kw_only=True):
    """Something is away for a time.

    Attributes:
        target: ``redis``, ``nats`` or ``workers``.
        begin_s: from the beginning of the day on.
        length_s: how long.
    """

    target: str
    begin_s: float
    length_s: float

    @property
    def text(self) -> str:
        """As ``parse_outage`` reads it."""
        return f"{self.target}:{self.length_s:g}@{self.begin_s:g}"


def parse_outage(text: str) -> Outage:
    """The outage in ``nats:60@3600``: what, for how many seconds, from which second on.

    Raises:
        SettingError: another form.
    """
    target, colon, rest = text.partition(":")
    length, at, begin = rest.partition("@")
    try:
        found = Outage(target=target, length_s=float(length), begin_s=float(begin or 0))
    except ValueError:
        found = None
    if found is None or not colon or (at and not begin) or target not in TARGETS:
        raise SettingError(
            f"outage {text!r}: use {', '.join(TARGETS)} with seconds, as in nats:60@3600"
        )
    if not (0 < found.length_s < math.inf and 0 <= found.begin_s < math.inf):
        raise SettingError(f"outage {text!r}: use a length above 0 and a begin from 0 on")
    return found


class Day(msgspec.Struct, frozen=True, kw_only=True):
    """What is simulated.

    Attributes:
        phase: of the migration.
        design: ``hardened`` has an outbox, so what a broker that is away does not get waits for
            it; it trims what is done from Redis, and reads both in ``dual_read``.
        rate_per_s: mean of the arrivals.
        arrivals: see ``parse_arrivals``.
        seconds: length.
        step_s: of a step.
        capacity_per_s: tasks that workers can do.
        put_per_s: tasks that producers can put on a broker out of their outboxes.
        outages: that happen.
        payload_bytes: the mean.
        durability: class of both brokers.
        max_age_s: of the stream.
        maxmemory_bytes: of Redis; 0 for no limit.
        storage: bytes per task.
        seed: of what is drawn.
    """

    phase: Phase = Phase.DUAL_WRITE
    design: Design = Design.GUIDE
    rate_per_s: float
    arrivals: str = "constant"
    seconds: float = DAY_S
    step_s: float = 1.0
    capacity_per_s: float
    put_per_s: float
    outages: tuple[Outage, ...] = ()
    payload_bytes: float = 256.0
    durability: Durability = Durability.LAZY
    max_age_s: float = SEVEN_DAYS_S
    maxmemory_bytes: float = 0.0
    storage: Storage = Storage()
    seed: int = 7

    @property
    def steps(self) -> int:
        """How many steps it has."""
        return max(1, round(self.seconds / self.step_s))

    def check(self) -> None:
        """Refuse what cannot be simulated.

        Raises:
            SettingError: a value is out of bounds; the text names it.
        """
        for name in ("rate_per_s", "seconds", "step_s", "capacity_per_s", "put_per_s", "max_age_s"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise SettingError(f"day: {name} {value:g}: use more than 0")
        if self.maxmemory_bytes < 0:
            raise SettingError(f"day: maxmemory_bytes {self.maxmemory_bytes:g}: use 0 or more")
        if self.steps > MAX_STEPS:
            raise SettingError(
                f"day: {self.steps:,} steps of {self.step_s:g} s: at most {MAX_STEPS:,}; use"
                " longer ones"
            )
        for outage in self.outages:
            if outage.begin_s + outage.length_s > self.seconds:
                raise SettingError(
                    f"outage {outage.text}: it ends after the day, which has {self.seconds:g} s"
                )


class OutageEffect(msgspec.Struct, frozen=True, kw_only=True):
    """What an outage comes to.

    Attributes:
        outage: that it is of.
        peak_waiting: the most tasks that wait for a worker between its begin and the catch-up, in
            the outboxes as well.
        catch_up_s: from its end until no more wait than at its begin; ``None`` for not on that
            day.
        refused: tasks that no broker took, of a design without an outbox.
        one_broker_only: tasks that only the other broker took, of a design without an outbox.
        outbox_peak_bytes: the most that lay in the outboxes for that broker.
        outbox_empty_s: from its end until the outboxes for that broker are as before.
    """

    outage: Outage
    peak_waiting: float
    catch_up_s: float | None
    refused: float
    one_broker_only: float
    outbox_peak_bytes: float
    outbox_empty_s: float | None


@dataclass(frozen=True, slots=True)
class Timeline:
    """A simulated day; arrays have a value for the end of each step.

    Attributes:
        day: that it is of.
        time_s: the ends of the steps.
        offered, done: tasks of each step.
        waiting: tasks that a worker has yet to do, in outboxes as well.
        outbox: tasks that wait for each broker in the outboxes.
        stored: tasks that each broker holds, done ones that it keeps as well.
        memory_bytes, disk_bytes: of each broker.
        oldest_s: how long the oldest task has waited.
        effects: of the outages, in their order.
        max_age_at_s: when a task that waits in the stream first grows too old; ``None`` for never.
        aged_out: tasks that do, at the most.
        maxmemory_at_s: when Redis is full first; ``None`` for never.
    """

    day: Day
    time_s: Floats
    offered: Floats
    done: Floats
    waiting: Floats
    outbox: dict[str, Floats]
    stored: dict[str, Floats]
    memory_bytes: dict[str, Floats]
    disk_bytes: dict[str, Floats]
    oldest_s: Floats
    effects: tuple[OutageEffect, ...]
    max_age_at_s: float | None
    aged_out: float
    maxmemory_at_s: float | None


def simulate_day(day: Day) -> Timeline:
    """Simulate one day of one phase.

    Raises:
        SettingError: see ``Day.check``.
    """
    day.check()
    rng = np.random.default_rng(day.seed)
    offered = arrivals_per_step(
        day.arrivals, day.rate_per_s, steps=day.steps, step_s=day.step_s, rng=rng
    )
    up = {target: _up(day, target) for target in TARGETS}
    outbox, put = _puts(day, offered, up)
    readable, coming = _reads(day, offered, put, up)
    service = day.capacity_per_s * day.step_s * readable * up["workers"]
    queued = lindley(coming, service)
    done = coming - np.diff(queued, prepend=0.0)
    waiting = queued + _not_put(day, outbox)
    stored = _stored(day, put, queued)
    time_s = np.arange(1, day.steps + 1, dtype=np.float64) * day.step_s
    redis_memory = day.storage.redis_memory(stored["redis"], day.payload_bytes)
    oldest_s = ages_s(offered, np.minimum(waiting, np.cumsum(offered)), day.step_s)
    max_age_at_s, aged_out = _aged_out(day, coming, queued, time_s)
    return Timeline(
        day=day,
        time_s=time_s,
        offered=offered,
        done=done,
        waiting=waiting,
        outbox=outbox,
        stored=stored,
        memory_bytes={
            "redis": redis_memory,
            "nats": day.storage.nats_memory(stored["nats"], day.payload_bytes, day.durability),
        },
        disk_bytes={
            "redis": day.storage.redis_disk(
                stored["redis"], np.cumsum(put["redis"]), day.payload_bytes, day.durability
            ),
            "nats": day.storage.nats_disk(stored["nats"], day.payload_bytes, day.durability),
        },
        oldest_s=oldest_s,
        effects=tuple(_effect(day, item, offered, waiting, outbox) for item in day.outages),
        max_age_at_s=max_age_at_s,
        aged_out=aged_out,
        maxmemory_at_s=_full_at_s(day, redis_memory, time_s),
    )


def _up(day: Day, target: str) -> Floats:
    """The share of each step in which it is there."""
    ends_s = np.arange(1, day.steps + 1, dtype=np.float64) * day.step_s
    up = np.ones(day.steps)
    for outage in day.outages:
        if outage.target == target:
            begin_s = np.maximum(ends_s - day.step_s, outage.begin_s)
            away_s = np.minimum(ends_s, outage.begin_s + outage.length_s) - begin_s
            up -= np.clip(away_s, 0.0, day.step_s) / day.step_s
    return np.clip(up, 0.0, 1.0)


def _written(phase: Phase) -> tuple[str, ...]:
    route = write_route(phase)
    if route is WriteRoute.REDIS:
        return ("redis",)
    return ("nats", "redis") if route is WriteRoute.BOTH else ("nats",)


def _read_broker(phase: Phase) -> str:
    return "redis" if read_route(phase) is ReadRoute.REDIS else "nats"


def _puts(
    day: Day, offered: Floats, up: dict[str, Floats]
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """What waits in the outboxes for each broker, and what is put on it in each step."""
    outbox, put = {}, {}
    for broker in _BROKERS:
        wanted = offered if broker in _written(day.phase) else np.zeros_like(offered)
        if day.design is Design.HARDENED:
            outbox[broker] = lindley(wanted, day.put_per_s * day.step_s * up[broker])
            put[broker] = wanted - np.diff(outbox[broker], prepend=0.0)
        else:
            outbox[broker] = np.zeros_like(offered)
            put[broker] = wanted * up[broker]
    return outbox, put


def _reads(
    day: Day, offered: Floats, put: dict[str, Floats], up: dict[str, Floats]
) -> tuple[Floats, Floats]:
    """The share of each step in which tasks can be taken, and those that come to where they are."""
    broker = _read_broker(day.phase)
    if day.phase is not Phase.DUAL_READ:
        return up[broker], put[broker]
    # Redis takes the place of a NATS that is away: a task is there as soon as one of them has it.
    either = np.maximum(up["redis"], up["nats"])
    if day.design is Design.HARDENED:
        first = np.maximum(np.cumsum(put["redis"]), np.cumsum(put["nats"]))
        return either, np.diff(first, prepend=0.0)
    return either, offered * either


def _not_put(day: Day, outbox: dict[str, Floats]) -> Floats:
    """Tasks in outboxes that no reader can have yet."""
    if day.phase is Phase.DUAL_READ:
        return np.minimum(outbox["redis"], outbox["nats"])
    return outbox[_read_broker(day.phase)]


def _stored(day: Day, put: dict[str, Floats], queued: Floats) -> dict[str, Floats]:
    """Tasks on each broker.

    The stream keeps what is done until its max-age (its retention is by limits). Redis has what
    waits; in ``dual_read`` a guide's copies stay there for good (P8), hardened ones are trimmed.
    """
    keep = max(1, round(min(day.max_age_s / day.step_s, 2.0 * day.steps)))
    nats = window_sum(put["nats"], keep)
    if "redis" not in _written(day.phase):
        redis = np.zeros_like(queued)
    elif day.phase is Phase.DUAL_READ and day.design is Design.GUIDE:
        redis = np.cumsum(put["redis"])
    else:
        redis = np.minimum(queued, np.cumsum(put["redis"]))
    return {"redis": redis, "nats": nats}


def _aged_out(
    day: Day, coming: Floats, queued: Floats, time_s: Floats
) -> tuple[float | None, float]:
    """When the first task in the stream that nobody has done is too old, and how many are."""
    if "nats" not in _written(day.phase):
        return None, 0.0
    come = np.cumsum(coming)
    keep = max(1, round(min(day.max_age_s / day.step_s, 2.0 * day.steps)))
    old = come - window_sum(coming, keep)
    too_old = old - (come - queued)
    struck = too_old > 1e-9 * max(1.0, float(come[-1]))
    if not struck.any():
        return None, 0.0
    return float(time_s[int(np.argmax(struck))]), float(too_old.max())


def _full_at_s(day: Day, redis_memory: Floats, time_s: Floats) -> float | None:
    if not day.maxmemory_bytes:
        return None
    full = redis_memory >= day.maxmemory_bytes
    return float(time_s[int(np.argmax(full))]) if full.any() else None


def _effect(
    day: Day, outage: Outage, offered: Floats, waiting: Floats, outbox: dict[str, Floats]
) -> OutageEffect:
    begin = min(int(outage.begin_s / day.step_s), day.steps - 1)
    end_s = outage.begin_s + outage.length_s
    last = min(max(begin, math.ceil(end_s / day.step_s) - 1), day.steps - 1)
    a_task = 1e-9 * max(1.0, float(offered.sum()))

    def back(values: Floats) -> tuple[int | None, float | None]:
        before = float(values[begin - 1]) if begin else 0.0
        found = first_at_most(values, before + a_task, last)
        return found, None if found is None else max(0.0, (found + 1) * day.step_s - end_s)

    caught_up, catch_up_s = back(waiting)
    until = day.steps if caught_up is None else caught_up + 1
    share = 1 - _up(msgspec.structs.replace(day, outages=(outage,)), outage.target)
    missed = float((offered * share).sum())
    written = _written(day.phase)
    has_outbox = day.design is Design.HARDENED
    alone = outage.target in written and not has_outbox
    lost = outbox.get(outage.target, np.zeros(day.steps))
    return OutageEffect(
        outage=outage,
        peak_waiting=float(waiting[begin:until].max()),
        catch_up_s=catch_up_s,
        refused=missed if alone and len(written) == 1 else 0.0,
        one_broker_only=missed if alone and len(written) > 1 else 0.0,
        outbox_peak_bytes=float(lost[begin:].max()) * encoded_bytes(day.payload_bytes),
        outbox_empty_s=back(lost)[1],
    )
