"""Schedules of faults that follow from a seed alone: what the search tries.

A fault is aimed at a place (``worker-0`` is whoever has that place of the fleet at the moment), at
a broker, or at the link between the two. A schedule is a proposal: one of its faults may meet
nothing, such as a step that nobody takes any more, and then it has not fired.
"""

import enum
import random
from collections.abc import Sequence

import msgspec

from hookbench.faults.poison import QUEUE
from hookbench.faults.step import STEPS
from hookbench.migration.phases import Phase, ReadRoute, WriteRoute, read_route, write_route

__all__ = [
    "BROKERS",
    "OPERATOR",
    "PRODUCER",
    "SCHEDULE_VERSION",
    "FaultKind",
    "SimFault",
    "Span",
    "draw_schedule",
    "worker_place",
]

SCHEDULE_VERSION = 3
"""Of what a seed means. Whatever changes the draws of a seed is a new version, and the versions
before it stay as they are: seeds are kept in files and documents. 1: processes, brokers and links.
2: those of 1, and up to two more of brokers, handlers and the load from a stream of their own.
3: those of 2, and up to two more, of processes that are asked to stop, the operator and the disk of
the outbox."""
BROKERS = ("redis", "nats")
PRODUCER, PRODUCERS, OPERATOR = "producer", "producers", "operator"
_NOT_BEFORE_S = 0.3
_AROUND_S = 1.0
"""So far from a transition half of the faults lie, where one is searched."""
_MAX_FOR_S = 4.0
_MAX_TURNS = 6
_MAX_NTH = 12
_MAX_STEP_NTH = 6
_MAX_POISON = 5
_LAG_MS = 1_000.0
_HANG_MS = 12_000.0
"""Of a handler: more than twice AckWait."""


class FaultKind(enum.StrEnum):
    """What is done."""

    KILL = "kill"
    """SIGKILL at a time; a broker starts again after ``for_s``, a place is filled again."""
    KILL_AT_STEP = "kill_at_step"
    """SIGKILL of a worker after its ``nth`` record of a step, ``turns`` awaits later."""
    KILL_AT_MESSAGE = "kill_at_message"
    """SIGKILL of a process when its ``nth`` message has left, or is answered."""
    RESTART = "restart"
    """SIGTERM: a process ends what it has in hand, and its place is filled ``for_s`` later."""
    POWER_CUT = "power_cut"
    """A broker is gone, and nobody is told; what was not synced is gone, too. Of a producer: it is
    killed, and its outbox goes back to what was synced."""
    PAUSE = "pause"
    """SIGSTOP, and SIGCONT after ``for_s``."""
    CUT = "cut"
    """Nothing passes a link, one way or both, for ``for_s``."""
    LOSE = "lose"
    """A message never arrives."""
    REPEAT = "repeat"
    """A publish arrives twice."""
    HOLD = "hold"
    """A message, and what is behind it, arrives ``delay_ms`` later."""
    RESET = "reset"
    """A message never arrives, and the connection is reset."""
    LATENCY = "latency"
    """All messages of a link take up to ``delay_ms`` longer for ``for_s``."""
    PROMOTE = "promote"
    """The master of Redis dies, and its replica takes its place; it follows after ``for_s``."""
    MAXMEMORY = "maxmemory"
    """Redis has no room for more for ``for_s``."""
    STREAM_LIMITS = "stream_limits"
    """The stream forgets within half a second which ids it has, for ``for_s``."""
    DELETE_CONSUMER = "delete_consumer"
    """The workers' consumer is gone for ``for_s``; the next one delivers all again."""
    RECREATE_CONSUMER = "recreate_consumer"
    """Likewise, and it is there again at once."""
    FAILING_HANDLER = "failing_handler"
    """A share of the executions fails for ``for_s``, before any effect."""
    SLOW_HANDLER = "slow_handler"
    """Each execution takes ``delay_ms`` longer for ``for_s``: it hangs beyond its lease."""
    POISON = "poison"
    """Payloads that are no task, in the queue that is read."""
    OVERSIZE = "oversize"
    """A producer offers tasks that are larger than any limit."""


class SimFault(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """One fault of a schedule.

    Attributes:
        target: ``worker-0``, ``producer``, ``operator``, ``redis``, ``nats``.
        at_s: when, from the start of the run; what waits for a message or step waits from then on.
        for_s: until it is healed, or until a place is filled again.
        broker: of the link that it is done to.
        way: ``request``, ``reply``, or empty for both.
        command: which messages, see ``frame_name``; empty for any.
        step: of ``kill_at_step``, one of ``STEPS``.
        nth: which of the messages or steps.
        turns: of ``kill_at_step``: so many turns of the loop later.
        delay_ms: of ``hold``, ``latency`` and ``slow_handler``; of ``promote`` for how long before
            it the replica gets nothing.
        probability: of ``failing_handler``.
        count: of ``poison`` and ``oversize``.
    """

    kind: FaultKind
    target: str
    at_s: float
    for_s: float = 0.0
    broker: str = ""
    way: str = ""
    command: str = ""
    step: str = ""
    nth: int = 1
    turns: int = 0
    delay_ms: float = 0.0
    probability: float = 0.0
    count: int = 0

    @property
    def subject(self) -> str:
        """At what kind of thing it is aimed, for counting: ``worker``, ``worker-nats``."""
        role = self.target.partition("-")[0]
        return f"{role}-{self.broker}" if self.broker else role

    @property
    def name(self) -> str:
        """For people: ``lose reply EVALSHA worker-0 redis``."""
        nth = f"number {self.nth}" if self.step or self._on_a_message else ""
        turns = f"and {self.turns} turns" if self.turns else ""
        more = f"{self.probability:g}" if self.probability else str(self.count or "")
        what = (self.kind, self.way, self.command, self.step, nth, turns, more)
        words = (*what, self.target, self.broker)
        return " ".join(word for word in words if word)

    @property
    def _on_a_message(self) -> bool:
        return self.kind in _ON_A_MESSAGE


_ON_A_MESSAGE = (
    FaultKind.KILL_AT_MESSAGE,
    FaultKind.LOSE,
    FaultKind.REPEAT,
    FaultKind.HOLD,
    FaultKind.RESET,
)


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """Where faults may lie.

    Attributes:
        phases: of the timeline.
        phase_s: length of each.
        workers: places of workers.
        transition: in the middle of which phases faults are gathered: the index of the second.
        version: of what is drawn, see ``SCHEDULE_VERSION``.
    """

    phases: tuple[Phase, ...]
    phase_s: float
    workers: int
    transition: int | None = None
    version: int = SCHEDULE_VERSION

    def phase_at(self, at_s: float) -> Phase:
        """The phase of a moment."""
        return self.phases[min(int(at_s / self.phase_s), len(self.phases) - 1)]

    @property
    def end_s(self) -> float:
        """Of the timeline."""
        return self.phase_s * len(self.phases)


def worker_place(number: int) -> str:
    """The name of a place: ``worker-0``."""
    return f"{_WORKER}-{number}"


def draw_schedule(seed: int, span: Span) -> tuple[SimFault, ...]:
    """The faults of a seed, by their time.

    Args:
        seed: of nothing but these.
        span: where they may lie.
    """
    versions = (_first_version, _second_version, _third_version)[: span.version]
    faults = [fault for draw in versions for fault in draw(seed, span)]
    return tuple(sorted(faults, key=lambda fault: fault.at_s))


def _first_version(seed: int, span: Span) -> list[SimFault]:
    rng = random.Random(f"schedule:{seed}")
    most = 2 + 2 * min(len(span.phases), 3)
    count = rng.randint(1, most)
    kinds = rng.choices(list(_WEIGHTS), list(_WEIGHTS.values()), k=count)
    return [_draw(kind, rng, span) for kind in kinds]


def _second_version(seed: int, span: Span) -> list[SimFault]:
    """At most one of a kind: two promotions, say, would need a third node."""
    rng = random.Random(f"schedule 2:{seed}")
    found = {}
    for _ in range(rng.choice((0, 1, 1, 2))):
        at_s = _moment(rng, span)
        for_s = round(rng.uniform(0.3, 1.0) ** 2 * _MAX_FOR_S, 3)
        kind = rng.choice(_of_phase(span.phase_at(at_s)))
        found[kind] = _of_second(SimFault(kind=kind, target="", at_s=at_s, for_s=for_s), rng)
    return list(found.values())


def _third_version(seed: int, span: Span) -> list[SimFault]:
    """Of the operator nothing fires under guide, which has none."""
    rng = random.Random(f"schedule 3:{seed}")
    found = []
    for _ in range(rng.choice((0, 1, 1, 2))):
        at_s = _moment(rng, span)
        for_s = round(rng.uniform(0.1, 1.0) ** 2 * _MAX_FOR_S, 3)
        ((kind, role),) = rng.choices(list(_OF_PROCESSES), list(_OF_PROCESSES.values()))
        target = worker_place(rng.randrange(span.workers)) if role == _WORKER else role
        found.append(SimFault(kind=kind, target=target, at_s=at_s, for_s=for_s))
    return found


def _of_phase(phase: Phase) -> list[FaultKind]:
    """The kinds of the second version that a phase has a target for."""
    kinds = [*_ANYWHERE]
    kinds += _OF_REDIS if "redis" in _used(phase) else ()
    kinds += _OF_STREAM if "nats" in _written(phase) else ()
    kinds += _OF_CONSUMER if read_route(phase) is not ReadRoute.REDIS else ()
    return kinds


def _of_second(fault: SimFault, rng: random.Random) -> SimFault:
    """With its target, and what belongs to its kind."""
    kind = fault.kind
    more: dict[str, object] = {"target": "redis" if kind in _OF_REDIS else "nats"}
    if kind is FaultKind.FAILING_HANDLER:
        more = {"target": _WORKERS, "probability": rng.choice((0.2, 0.5, 1.0))}
    elif kind is FaultKind.SLOW_HANDLER:
        more = {"target": _WORKERS, "delay_ms": round(rng.uniform(0.2, 1.0) * _HANG_MS, 1)}
    elif kind is FaultKind.POISON:
        more = {"target": QUEUE, "for_s": 0.0, "count": rng.randint(1, _MAX_POISON)}
    elif kind is FaultKind.OVERSIZE:
        more = {"target": PRODUCERS, "count": rng.randint(1, 2)}
    elif kind is FaultKind.RECREATE_CONSUMER:
        more["for_s"] = 0.0
    elif kind is FaultKind.PROMOTE:  # what the replica does not have is lost
        more["delay_ms"] = rng.choice((0.0, round(rng.uniform(0.1, 1.0) * _LAG_MS, 1)))
    return msgspec.structs.replace(fault, **more)


def _draw(kind: FaultKind, rng: random.Random, span: Span) -> SimFault:
    at_s = _moment(rng, span)
    for_s = round(rng.uniform(0.1, 1.0) ** 2 * _MAX_FOR_S, 3)
    phase = span.phase_at(at_s)
    worker = worker_place(rng.randrange(span.workers))
    fault = SimFault(kind=kind, target=worker, at_s=at_s, for_s=for_s)
    if kind in (FaultKind.KILL, FaultKind.PAUSE):
        target = rng.choices([worker, PRODUCER, *_used(phase)], [3, 1, *[2 for _ in _used(phase)]])
        return msgspec.structs.replace(fault, target=target[0])
    if kind is FaultKind.POWER_CUT:
        return msgspec.structs.replace(fault, target=rng.choice(_used(phase)))
    if kind is FaultKind.KILL_AT_STEP:
        return msgspec.structs.replace(
            fault,
            step=rng.choice(list(STEPS)),
            nth=rng.randint(1, _MAX_STEP_NTH),
            turns=rng.choice((0, 0, rng.randint(1, _MAX_TURNS))),
        )
    return _on_a_link(fault, rng, phase)


def _on_a_link(fault: SimFault, rng: random.Random, phase: Phase) -> SimFault:
    """Aim it at a link that the phase uses, and at messages of it."""
    if fault.kind is FaultKind.REPEAT and "nats" not in _written(phase):
        fault = msgspec.structs.replace(fault, kind=FaultKind.HOLD)
    kind, client = fault.kind, fault.target
    if kind is FaultKind.REPEAT:  # no network repeats anything but what a client sends again
        return msgspec.structs.replace(
            fault,
            target=PRODUCER,
            broker="nats",
            way="request",
            command="publish",
            nth=rng.randint(1, _MAX_NTH),
        )
    if rng.random() < 1 / 3:
        client = PRODUCER
    broker = rng.choice(_used(phase) if client != PRODUCER else _written(phase))
    way = rng.choice(("request", "reply"))
    fault = msgspec.structs.replace(fault, target=client, broker=broker)
    if kind is FaultKind.CUT:
        return msgspec.structs.replace(fault, way=rng.choice(("", "", way)))
    if kind is FaultKind.LATENCY:
        return msgspec.structs.replace(fault, delay_ms=round(rng.uniform(5, 300), 1))
    return msgspec.structs.replace(
        fault,
        way=way,
        command=rng.choice(("", *_COMMANDS[client == PRODUCER, broker][way])),
        nth=rng.randint(1, _MAX_NTH),
        delay_ms=round(rng.uniform(50, 3000), 1) if kind is FaultKind.HOLD else 0.0,
    )


def _moment(rng: random.Random, span: Span) -> float:
    at_s = rng.uniform(_NOT_BEFORE_S, span.end_s - _NOT_BEFORE_S)
    if span.transition is not None and rng.random() < 1 / 2:
        at_s = span.transition * span.phase_s + rng.uniform(-_AROUND_S, _AROUND_S)
    return round(max(_NOT_BEFORE_S, at_s), 3)


def _used(phase: Phase) -> Sequence[str]:
    """The brokers that workers and producers of a phase ask."""
    if read_route(phase) is ReadRoute.REDIS and write_route(phase) is WriteRoute.REDIS:
        return BROKERS[:1]
    return BROKERS if phase in (Phase.DUAL_WRITE, Phase.DUAL_READ) else BROKERS[1:]


def _written(phase: Phase) -> Sequence[str]:
    route = write_route(phase)
    if route is WriteRoute.REDIS:
        return BROKERS[:1]
    return BROKERS if route is WriteRoute.BOTH else BROKERS[1:]


_WORKER, _WORKERS = "worker", "workers"
_OF_PROCESSES = {
    (FaultKind.RESTART, _WORKER): 4,
    (FaultKind.RESTART, PRODUCER): 2,
    (FaultKind.KILL, OPERATOR): 2,
    (FaultKind.PAUSE, OPERATOR): 1,
    (FaultKind.POWER_CUT, PRODUCER): 1,
}
_ANYWHERE = (
    FaultKind.FAILING_HANDLER,
    FaultKind.SLOW_HANDLER,
    FaultKind.POISON,
    FaultKind.OVERSIZE,
)
_OF_REDIS = (FaultKind.PROMOTE, FaultKind.MAXMEMORY)
_OF_STREAM = (FaultKind.STREAM_LIMITS,)
_OF_CONSUMER = (FaultKind.DELETE_CONSUMER, FaultKind.RECREATE_CONSUMER)
_WEIGHTS = {
    FaultKind.KILL: 4,
    FaultKind.KILL_AT_STEP: 4,
    FaultKind.KILL_AT_MESSAGE: 3,
    FaultKind.POWER_CUT: 1,
    FaultKind.PAUSE: 3,
    FaultKind.CUT: 3,
    FaultKind.LOSE: 3,
    FaultKind.REPEAT: 1,
    FaultKind.HOLD: 2,
    FaultKind.RESET: 2,
    FaultKind.LATENCY: 1,
}
_COMMANDS: dict[tuple[bool, str], dict[str, tuple[str, ...]]] = {
    (True, "redis"): {"request": ("LPUSH",), "reply": ("LPUSH",)},
    (True, "nats"): {"request": ("publish",), "reply": ("PubAck",)},
    (False, "redis"): {
        "request": ("BLMOVE", "LREM", "EVALSHA"),
        "reply": ("BLMOVE", "LREM", "EVALSHA"),
    },
    (False, "nats"): {"request": ("Ack", "Fetch", "publish"), "reply": ("MSG", "PubAck")},
}
"""By whether it is a producer's, and broker: messages that are worth aiming at."""
