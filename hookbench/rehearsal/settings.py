"""What a rehearsal is told, and its timeline."""

import math
from pathlib import Path

import msgspec

from hookbench.brokers.durability import Durability
from hookbench.brokers.topology import SINGLE, check_topology
from hookbench.errors import SettingError
from hookbench.faults.process import Kill, Restart
from hookbench.faults.registry import AnyFault
from hookbench.faults.rolling import RollingRestart
from hookbench.faults.step import KillAtStep
from hookbench.ledger.model import Bounds
from hookbench.load.arrivals import Arrivals, check_rate, parse_arrivals
from hookbench.load.generator import LOOPS, MAX_CALLERS
from hookbench.load.mix import parse_mix
from hookbench.load.payloads import parse_payload
from hookbench.load.repositories import Repositories
from hookbench.migration.measures import Measures, measures_of, parse_measures
from hookbench.migration.phases import Design, Phase, check_redis_kind
from hookbench.queues.redis_kind import RedisKind

__all__ = ["DEFAULT_MIX", "FULL_TIMELINE", "RehearsalSettings"]

FULL_TIMELINE = (
    Phase.REDIS_ONLY,
    Phase.DUAL_WRITE,
    Phase.DUAL_READ,
    Phase.NATS_PRIMARY,
    Phase.NATS_ONLY,
)
DEFAULT_MIX = "transactional=1,idempotent=1,plain=2"
"""Every class, so that each of their rules is held against every run."""
MAX_STEPS = 100
_NO_END = 10**9
MAX_PROCEDURE_SECONDS = 120.0
"""A procedure reads both queues some times, and waits for its gates and for brokers."""


class RehearsalSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One rehearsal.

    Attributes:
        scenario: name of the scenario that it comes from, ``-`` for none.
        measures: changes to the measures of the design, see ``parse_measures``.
        phases: the timeline, ``phase_seconds`` each.
        rate_per_s: synthetic tasks per second over all producers.
        loop: ``open``, ``closed`` or ``windowed``, see ``GeneratorSettings``.
        callers: of a closed or windowed loop, over all producers.
        arrivals: of an open loop, see ``parse_arrivals``.
        payload: sizes of their payloads, see ``parse_payload``.
        synthetic_repositories, skew: whose they are, see ``Repositories``.
        max_lag_ms: p99 of the schedule lag above which latencies are not valid.
        service_ms: how long a worker is busy with a synthetic task.
        mix: weights of the handler classes of synthetic tasks, see ``parse_mix``.
        push_interval_s: time between two real pushes, over all repositories.
        redis_kind: what holds the tasks on Redis; a stream only in the phase that has Redis alone.
        topology: how many nodes each broker has, see ``TOPOLOGIES``.
        redis_url, nats_url: somebody else's brokers; ``None`` for embedded ones.
        nats_monitor_url: where that NATS tells its settings over HTTP; ``None`` if unknown.
        own_names: on somebody else's brokers, use names of this run's own.
        allow_existing: accept a broker that already holds a hook queue.
        faults: what is done to the system, and when.
        max_attempts: deliveries of a task, after which a failure makes it a dead letter.
        max_inversions: tasks that may be overtaken within their repository in one phase; ``None``:
            they are counted only.
        metrics: every worker and producer serves its metrics, which are held against the ledger.
    """

    scenario: str = "-"
    design: Design = Design.GUIDE
    measures: str = ""
    phases: tuple[Phase, ...] = FULL_TIMELINE
    phase_seconds: float = 12.0
    rate_per_s: float = 1000.0
    producers: int = 2
    workers: int = 2
    concurrency: int = 32
    loop: str = "open"
    callers: int = 100
    arrivals: str = "constant"
    payload: str = "64"
    synthetic_repositories: int = 100
    skew: float = 0.0
    service_ms: float = 5.0
    mix: str = DEFAULT_MIX
    repositories: int = 3
    push_interval_s: float = 1.0
    durability: Durability = Durability.LAZY
    redis_kind: RedisKind = RedisKind.LIST
    topology: str = SINGLE
    seed: int = 7
    out: Path = Path("results")
    redis_url: str | None = None
    nats_url: str | None = None
    nats_monitor_url: str | None = None
    own_names: bool = True
    allow_existing: bool = False
    block_timeout_secs: float = 1.0
    drain_timeout_s: float = 90.0
    keep: bool = False
    faults: tuple[AnyFault, ...] = ()
    max_attempts: int = 3
    max_inversions: int | None = None
    max_lag_ms: float = 50.0
    metrics: bool = False

    @property
    def bounds(self) -> Bounds:
        """What the account is held against."""
        return Bounds(max_attempts=self.max_attempts, max_inversions=self.max_inversions)

    @property
    def effective_measures(self) -> Measures:
        """Those of the design, with the changes.

        Raises:
            SettingError: there is no such measure.
        """
        return parse_measures(self.measures, measures_of(self.design))

    @property
    def load_until_end(self) -> bool:
        """Whether the load ends when the last phase has had its length, and not at its time.

        With gates nobody knows how long the procedures take, and every phase is to have its load;
        callers that wait send fewer tasks when the system is slow. How many tasks are offered is
        then left to the run.
        """
        return self.effective_measures.gates or self.loop != "open"

    @property
    def procedure_seconds(self) -> float:
        """The most that the procedures between phases may take; without gates there are none."""
        gated = self.effective_measures.gates
        return MAX_PROCEDURE_SECONDS * (len(self.phases) - 1) if gated else 0.0

    @property
    def seconds(self) -> float:
        """Length of the timeline, at the most."""
        return self.phase_seconds * len(self.phases) + self.procedure_seconds

    @property
    def arrival_process(self) -> Arrivals:
        """Of an open loop.

        Raises:
            SettingError, TraceError: see ``parse_arrivals``.
        """
        return parse_arrivals(self.arrivals)

    def tasks_of(self, number: int) -> int:
        """Synthetic tasks that a producer offers; the same number whatever happens.

        Without an end, where the load ends with the timeline; but for those of a trace.
        """
        share = {"part": number, "parts": self.producers}
        if self.load_until_end:
            total = self.arrival_process.total(**share)
            return _NO_END if total is None else total
        rate_per_s = self.rate_per_s / self.producers
        return self.arrival_process.count(rate_per_s, self.seconds, **share)

    @property
    def planned_tasks(self) -> int:
        """Of all producers."""
        return sum(self.tasks_of(number) for number in range(self.producers))

    @property
    def pushes(self) -> int:
        """Pushes that are made; as of ``tasks_of``."""
        return math.ceil(self.seconds / self.push_interval_s)

    @property
    def expected_restarts(self) -> int:
        """How many processes the faults end, at the most, which are replaced.

        One that starts while another fault keeps a broker away ends again, and is replaced too.
        """
        ended = sum(
            self.workers if fault.target == "workers" else 1
            for fault in self.faults
            if isinstance(fault, Kill | Restart | RollingRestart | KillAtStep)
        )
        return ended + len(self.faults)

    def check(self) -> None:
        """Refuse what cannot be rehearsed.

        Raises:
            SettingError: the text names the value.
        """
        check_rate(self.rate_per_s)
        self._check_load()
        parse_measures(self.measures)
        check_topology(self.topology)
        for phase in self.phases:
            check_redis_kind(self.redis_kind, phase)
        for fault in self.faults:
            fault.check()
            if fault.phase_index is not None and fault.phase_index >= len(self.phases):
                raise SettingError(
                    f"fault {fault.name}: phase_index {fault.phase_index}: the timeline has the"
                    f" phases 0 to {len(self.phases) - 1}"
                )
        if not 1 <= len(self.phases) <= MAX_STEPS:
            raise SettingError(f"{len(self.phases)} phases: use between 1 and {MAX_STEPS}")
        for name, value, low, high in (
            ("phase seconds", self.phase_seconds, 1.0, 86_400.0),
            ("producers", self.producers, 1, 64),
            ("workers", self.workers, 1, 64),
            ("concurrency", self.concurrency, 1, 10_000),
            ("max attempts", self.max_attempts, 1, 1_000),
            ("max inversions", self.max_inversions or 0, 0, 2**31),
            ("repositories", self.repositories, 1, 1_000),
            ("max lag ms", self.max_lag_ms, 0.01, 60_000.0),
            ("drain timeout", self.drain_timeout_s, 1.0, 3_600.0),
            ("service ms", self.service_ms, 0.0, 60_000.0),
            ("push interval", self.push_interval_s, 0.05, 3_600.0),
            ("block timeout", self.block_timeout_secs, 0.1, 60.0),
        ):
            if not low <= value <= high:
                raise SettingError(f"{name} {value}: use between {low} and {high}")

    def _check_load(self) -> None:
        parse_mix(self.mix)
        parse_payload(self.payload)
        Repositories(self.synthetic_repositories, self.skew)
        if self.loop not in LOOPS:
            raise SettingError(f"loop {self.loop!r}: use {', '.join(LOOPS)}")
        if self.loop == "open":
            if not all(self.tasks_of(number) for number in range(self.producers)):
                raise SettingError(
                    f"arrivals {self.arrivals}: less than a task for each producer within"
                    f" {self.seconds:g} s at {self.rate_per_s:g} tasks/s: use longer phases, a"
                    " higher rate or fewer producers"
                )
        elif self.arrivals != "constant":
            raise SettingError(
                f"arrivals {self.arrivals!r} in a {self.loop} loop: only an open one has arrivals"
            )
        elif not self.producers <= self.callers <= MAX_CALLERS:
            raise SettingError(
                f"{self.callers} callers: use between the number of producers, {self.producers},"
                f" and {MAX_CALLERS:,}"
            )
