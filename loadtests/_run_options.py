"""What a user chooses for a run, and what there is to choose from."""

import enum

import msgspec
from _timeline import PlannedPhase, parse_timeline

from hookbench.brokers.durability import Durability
from hookbench.migration.phases import Design, Phase
from hookbench.queues.redis_kind import RedisKind

__all__ = ["HandlerChoice", "ModeChoice", "QueueChoice", "RunOptions", "WireChoice"]


class QueueChoice(enum.StrEnum):
    """The queue of a run, as the web form offers it."""

    REDIS_LIST = "redis_list"
    REDIS_STREAM = "redis_stream"
    JETSTREAM = "jetstream"
    BOTH = "both"

    @property
    def phase(self) -> Phase:
        """The phase whose constructors of producer and consumer the run uses."""
        return _PHASES[self]


class ModeChoice(enum.StrEnum):
    """Who publishes: each user by itself, or an engine for all users of a Locust process."""

    BRIDGE = "bridge"
    ENGINE = "engine"


class HandlerChoice(enum.StrEnum):
    """What a worker does with a task: nothing, wait so long as it is told, or fail each time."""

    NOOP = "noop"
    SLEEP = "sleep"
    FAIL = "fail"


class WireChoice(enum.StrEnum):
    """The connections of producers and workers: with a proxy faults of the wire can be injected."""

    DIRECT = "direct"
    PROXIED = "proxied"


_PHASES = {
    QueueChoice.REDIS_LIST: Phase.REDIS_ONLY,
    QueueChoice.REDIS_STREAM: Phase.REDIS_ONLY,
    QueueChoice.JETSTREAM: Phase.NATS_ONLY,
    QueueChoice.BOTH: Phase.DUAL_WRITE,
}


class RunOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a user chose for a run.

    Attributes:
        phases: a timeline in place of the queue's one phase, see ``parse_timeline``.
        faults: a schedule, from the start of the users on, see ``parse_fault_texts``.
        wire: whether the connections go through a proxy.
        payload: bytes of filling of each task's payload, see ``parse_payload``.
        hook_workers: ``hookbench worker`` processes.
        rate_per_s: tasks per second of each user (open loop), 0 for closed loop.
        handler: of the workers.
        burst: tasks that a user sends at once in a closed loop.
        work_ms: service time of each task, 0 for none; more means the handler ``sleep``.
        drain_s: the longest wait for the queue to become empty after the users stopped.
        max_tasks: the run is stopped after so many tasks, so that disks and streams stay bounded.
        fail_if: thresholds beyond which the run fails, see ``parse_thresholds``.
    """

    queue: QueueChoice = QueueChoice.REDIS_LIST
    phases: str = ""
    durability: Durability = Durability.LAZY
    design: Design = Design.GUIDE
    faults: str = ""
    wire: WireChoice = WireChoice.DIRECT
    payload: str = "256"
    hook_workers: int = 1
    handler: HandlerChoice = HandlerChoice.NOOP
    rate_per_s: float = 25.0
    burst: int = 1
    work_ms: float = 0.0
    drain_s: float = 30.0
    max_tasks: int = 2_000_000
    fail_if: str = ""
    mode: ModeChoice = ModeChoice.BRIDGE

    @property
    def timeline(self) -> tuple[PlannedPhase, ...]:
        """At least one phase."""
        return parse_timeline(self.phases) or (PlannedPhase(self.queue.phase),)

    @property
    def redis_kind(self) -> RedisKind:
        """What holds the tasks on Redis; the phases of a timeline have lists."""
        streams = self.queue is QueueChoice.REDIS_STREAM and not self.phases
        return RedisKind.STREAM if streams else RedisKind.LIST

    @property
    def label(self) -> str:
        """What Locust's rows are called."""
        return "hook queue" if self.phases else str(self.queue)
