"""Trials of a rate: short rehearsals of one phase without a fault, held against an objective."""

import functools
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec

from hookbench.clock import Clock
from hookbench.errors import SettingError
from hookbench.load.ceiling import measure_ceiling
from hookbench.load.objectives import COUNTS, Objective
from hookbench.load.search import Capacity, Trial, TrialFn, find_capacity
from hookbench.load.steady import MachineFasterError, MemorySamples, SteadyMachine
from hookbench.migration.phases import Phase
from hookbench.queues.redis_kind import RedisKind
from hookbench.rehearsal.counted import Window, check_warm_up
from hookbench.rehearsal.judged import judge_run
from hookbench.rehearsal.progress import SilentProgress
from hookbench.rehearsal.run import Rehearsal
from hookbench.rehearsal.settings import RehearsalSettings
from hookbench.results.environment import Environment, read_environment
from hookbench.results.store import write_aside

__all__ = [
    "CAPACITY_SCHEMA",
    "NULL",
    "QUEUES",
    "CapacityAnswer",
    "CapacitySearch",
    "CapacityTrials",
    "null_trial",
    "route_of",
]

QUEUES = {
    "redis_list": (Phase.REDIS_ONLY, RedisKind.LIST),
    "redis_stream": (Phase.REDIS_ONLY, RedisKind.STREAM),
    "jetstream": (Phase.NATS_ONLY, RedisKind.LIST),
}
"""The phase, and what Redis is in it, where producer and worker use that queue alone."""
CAPACITY_SCHEMA = 1
NULL = "null"
"""No queue, for the harness itself."""
_SEARCHES = 3
_ATTEMPTS = 4


def route_of(queue: str) -> tuple[Phase, RedisKind]:
    """The phase that uses a queue alone, and what Redis is in it; of no queue, any.

    Raises:
        SettingError: there is no such queue.
    """
    if queue == NULL:
        return Phase.NATS_ONLY, RedisKind.LIST
    if queue not in QUEUES:
        raise SettingError(f"--queue {queue!r}: use {', '.join((*QUEUES, NULL))}")
    return QUEUES[queue]


class CapacityAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a search came to.

    Attributes:
        schema: of this file; a reader refuses a newer one.
        label: queue, durability class and design.
        slo: the objective.
        environment: of this machine.
        unknown_because: why there is no answer; empty if there is one.
        limit: what was not met beyond the interval.
        capacity: the interval and its trials.
    """

    schema: int = CAPACITY_SCHEMA
    label: str
    slo: str
    environment: Environment
    unknown_because: str
    limit: str
    capacity: Capacity


class CapacitySearch:
    """Searches, and stores the answer with every trial.

    Args:
        settings: of every trial, with one phase; its rate is where the search begins.
        objective: what a rate has to meet.
        null: load no queue at all.
        warm_up_s: of each trial, which does not count.
        least_speed: of the machine, see ``SteadyMachine``; 0 takes every moment.
        clock: of this process.
        as_scenario: see ``CapacityTrials``.
        tell: is told each trial.
        say: is told what else a person waits for.

    Raises:
        SettingError: a setting cannot be used.
    """

    def __init__(
        self,
        settings: RehearsalSettings,
        objective: Objective,
        *,
        null: bool,
        warm_up_s: float,
        least_speed: float,
        clock: Clock,
        as_scenario: Callable[[RehearsalSettings], str] | None,
        tell: Callable[[Trial], None],
        say: Callable[[str], None],
    ) -> None:
        settings.check()
        self._settings = settings
        self._objective = objective
        self._tell = tell
        self._machine = SteadyMachine(clock, least_speed) if least_speed else None
        self._trial: TrialFn
        if null:
            self._trial = functools.partial(
                null_trial, seconds=settings.phase_seconds, objective=objective
            )
        else:
            self._trial = CapacityTrials(
                settings,
                objective,
                warm_up_s=warm_up_s,
                clock=clock,
                as_scenario=as_scenario,
                machine=self._machine,
            )
        self._say = say

    def path_of(self, label: str) -> Path:
        """Where the answer is stored."""
        return self._settings.out / f"{label}.json"

    async def run(self, label: str, width: float) -> CapacityAnswer:
        """Search, and store the answer.

        Args:
            label: of the answer.
            width: of the interval, as a share of its lower end; a wider one is no answer.
        """
        found = await self._find(width)
        beyond = [item for item in found.judgements if item.rate_per_s == found.high_per_s]
        answer = CapacityAnswer(
            label=label,
            slo=self._objective.text,
            environment=read_environment(),
            unknown_because=found.unknown_because,
            limit=beyond[0].trials[-1].why if beyond else "",
            capacity=found,
        )
        path = self.path_of(label)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_aside(path, msgspec.json.format(msgspec.json.encode(answer), indent=2) + b"\n")
        return answer

    async def _find(self, width: float) -> Capacity:
        """Search; from the beginning where the machine turns out to be faster than it was."""
        for _ in range(_SEARCHES):
            try:
                return await find_capacity(
                    self._told, first_per_s=self._settings.rate_per_s, width=width
                )
            except MachineFasterError as error:
                self._say(f"{error}: the search begins again")
                if self._machine is not None:
                    self._machine.forget()
        return Capacity(
            low_per_s=0.0,
            high_per_s=None,
            unknown_because=f"the machine became faster in each of {_SEARCHES} searches",
            judgements=(),
        )

    async def _told(self, rate_per_s: float) -> Trial:
        made = await self._trial(rate_per_s)
        self._tell(made)
        return made


class CapacityTrials:
    """Makes trials.

    Args:
        settings: of every trial, with one phase; its rate is replaced.
        objective: what a rate has to meet.
        warm_up_s: of each trial, which does not count.
        clock: of this process.
        as_scenario: settings as the TOML that is kept with a run; without it no run is kept.
        machine: which moments count; without it all.
    """

    def __init__(
        self,
        settings: RehearsalSettings,
        objective: Objective,
        *,
        warm_up_s: float,
        clock: Clock,
        as_scenario: Callable[[RehearsalSettings], str] | None = None,
        machine: SteadyMachine | None = None,
    ) -> None:
        check_warm_up(warm_up_s, settings.phase_seconds)
        self._settings = settings
        self._objective = objective
        self._warm_up_s = warm_up_s
        self._clock = clock
        self._as_scenario = as_scenario
        self._machine = machine
        self._made = 0

    async def __call__(self, rate_per_s: float) -> Trial:
        """Rehearse one phase at a rate; its seed is the number of the trial.

        It is made again where it says nothing, as one of a slow machine.

        Raises:
            MachineFasterError: see ``SteadyMachine.believe``.
        """
        for _ in range(_ATTEMPTS - 1):
            made = await self._make(rate_per_s)
            if made.sustained is not None:
                return made
        return await self._make(rate_per_s)

    async def _make(self, rate_per_s: float) -> Trial:
        self._made += 1
        out, keep = self._settings.out, self._as_scenario is not None
        settings = msgspec.structs.replace(
            self._settings,
            rate_per_s=rate_per_s,
            seed=self._settings.seed + self._made,
            out=out if keep else out / f".trial-{os.getpid()}-{self._made}",
        )
        rehearsal = Rehearsal(
            settings,
            clock=self._clock,
            teller=SilentProgress(),
            scenario_toml=None if self._as_scenario is None else self._as_scenario(settings),
        )
        try:
            fast: Callable[[Window], bool] | None = None
            if self._machine is None:
                folder, manifest = await rehearsal.run()
            else:
                with self._machine.watched() as samples:
                    folder, manifest = await rehearsal.run()
                self._machine.believe()
                fast = functools.partial(_was_fast, self._machine, samples)
            return judge_run(
                folder, manifest, settings, self._objective, warm_up_s=self._warm_up_s, fast=fast
            )
        finally:
            if not keep:
                shutil.rmtree(settings.out, ignore_errors=True)


def _was_fast(machine: SteadyMachine, samples: MemorySamples, window: Window) -> bool:
    return machine.was_fast(samples, window.begin_ns, window.end_ns)


async def null_trial(rate_per_s: float, *, seconds: float, objective: Objective) -> Trial:
    """A trial of the harness itself: the schedule lag of one producer before no queue.

    Args:
        rate_per_s: of an open loop.
        seconds: its length.
        objective: of the lag, in place of the end-to-end latency; only p50 and p99 are known.

    Raises:
        SettingError: another percentile is asked for.
    """
    if unknown := set(objective.percentiles) - {50.0, 99.0}:
        raise SettingError(f"p{unknown.pop():g} of the null queue: only p50 and p99 are measured")
    count = max(1, round(rate_per_s * seconds))
    found = await measure_ceiling(loop="open", rate_per_s=rate_per_s, count=count, repeats=1)
    lags_ms = {50.0: found.lag_p50_us / 1e3, 99.0: found.lag_p99_us / 1e3}
    growth = max(0.0, 1 - found.tasks_per_s / rate_per_s)
    none = dict.fromkeys(COUNTS, 0)
    missed = objective.missed([lags_ms], growth=growth, counts=none)
    return Trial(
        rate_per_s=rate_per_s,
        sustained=not missed,
        why="; ".join(missed),
        figures={"lag_p50_ms": lags_ms[50.0], "lag_p99_ms": lags_ms[99.0], "cores": found.cores},
    )
