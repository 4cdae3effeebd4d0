"""Makes the trials of a matrix: each a short rehearsal of one phase without a fault."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec
import numpy as np
import psutil

from hookbench.clock import NS_PER_MS, NS_PER_S, Clock
from hookbench.errors import BrokerNotFoundError, HookbenchError, ResultsError, SettingError
from hookbench.ledger.columns import Ints
from hookbench.ledger.latency import histogram_of
from hookbench.ledger.model import Account, Verdict
from hookbench.rehearsal.counted import CountedTasks, read_counted
from hookbench.rehearsal.matrix_book import (
    DueTrial,
    MatrixBook,
    SessionRecord,
    TrialRecord,
    environment_changes,
)
from hookbench.rehearsal.matrix_plan import Kind, StoredPlan, cell_settings
from hookbench.rehearsal.progress import SilentProgress
from hookbench.rehearsal.run import Rehearsal
from hookbench.rehearsal.settings import RehearsalSettings
from hookbench.rehearsal.stage import utc_now_label
from hookbench.results.environment import read_environment
from hookbench.results.store import Manifest, ResourceUse, remove_run

__all__ = ["MAX_KEPT", "MatrixRun", "MatrixTeller", "Progress", "measure_trial"]

RUNS_FOLDER = "runs"
MAX_KEPT = 10
"""Runs of trials that do not stand which are kept, to see why."""
_RUN = re.compile(r"\d{4,}-.+")
_WRONG = ("lost", "stuck", "duplicated", "refused", "dead")
_MIN_WINDOW = 0.8
"""Of the planned time after the warm-up: a shorter one is not what was asked for. Only callers that
begin late have one; an open loop offers what was due all the same."""
_BROKERS = ("redis", "nats")
_END = (SettingError, ResultsError, BrokerNotFoundError)
"""What the next trial would meet as well."""
_US_PER_S = 1e6


class Progress(NamedTuple):
    """How far a matrix is; ``remaining_s`` is ``None`` before the first trial."""

    made: int
    total: int
    remaining_s: float | None


class MatrixTeller(Protocol):
    """Somebody who shows how far a matrix is."""

    def say(self, text: str) -> None:
        """A line that stays."""
        ...

    def begins(self, due: DueTrial, progress: Progress) -> None:
        """A trial begins."""
        ...

    def ended(self, record: TrialRecord, progress: Progress) -> None:
        """It is in the book."""
        ...


class MatrixRun:
    """Makes what is left of a plan; ``run`` may be cancelled at any await, and tidies up.

    Args:
        folder: of the matrix, held by this process.
        stored: its plan.
        clock: of this process.
        teller: is told each trial.
        as_scenario: settings as the TOML that is kept with a run.

    Raises:
        ResultsError: the book cannot be read.
    """

    def __init__(
        self,
        folder: Path,
        stored: StoredPlan,
        *,
        clock: Clock,
        teller: MatrixTeller,
        as_scenario: Callable[[RehearsalSettings], str],
    ) -> None:
        self._runs = folder / RUNS_FOLDER
        self._plan = stored.plan
        self._clock = clock
        self._teller = teller
        self._as_scenario = as_scenario
        self.book = MatrixBook(folder, stored)

    async def run(self) -> None:
        """Make every trial that is due, one after the other, and write each into the book.

        Raises:
            HookbenchError: no trial can be made.
            asyncio.CancelledError: the trial under way is dropped; what is in the book stays.
        """
        self._remove_leftovers()
        due = self.book.due()
        if not due:
            return
        environment = read_environment()
        if self.book.sessions:
            for text in environment_changes(self.book.sessions[-1].environment, environment):
                self._teller.say(f"changed   {text}")
        started = utc_now_label(self._clock.wall_ns())
        self.book.add(SessionRecord(started=started, environment=environment))
        while due:
            self._teller.begins(due[0], self._progress(due))
            record = await self._make(due[0])
            self.book.add(record)
            due = self.book.due()
            self._teller.ended(record, self._progress(due))

    def _progress(self, due: list[DueTrial]) -> Progress:
        made = len(self.book.trials)
        return Progress(made, made + len(due), self.book.remaining_s(due))

    def _remove_leftovers(self) -> None:
        """Runs that no line of the book names: their trial was killed."""
        named = {record.run for record in self.book.trials.values()}
        for path in self._runs.iterdir() if self._runs.is_dir() else ():
            if _RUN.fullmatch(path.name) and f"{RUNS_FOLDER}/{path.name}" not in named:
                shutil.rmtree(path)

    async def _make(self, due: DueTrial) -> TrialRecord:
        settings = cell_settings(self._plan, due.trial, out=self._runs)
        rehearsal = Rehearsal(
            settings,
            clock=self._clock,
            teller=SilentProgress(),
            scenario_toml=self._as_scenario(settings),
        )
        begin_ns = self._clock.monotonic_ns()
        record = TrialRecord(
            index=due.index,
            trial=due.trial,
            attempt=due.attempt,
            session=len(self.book.sessions),
            verdict=Verdict.UNKNOWN,
            seconds=0.0,
            load_average=round(psutil.getloadavg()[0], 2),
        )
        try:
            folder, manifest = await rehearsal.run()
            record = measure_trial(
                record, read_counted(folder, warm_up_s=self._plan.warm_up_s), manifest, settings
            )
        except _END:
            self._drop(rehearsal.folder)
            raise
        except HookbenchError as error:  # this trial says nothing; the next one may
            record = msgspec.structs.replace(record, why=str(error), again=True)
        except BaseException:
            self._drop(rehearsal.folder)
            raise
        seconds = (self._clock.monotonic_ns() - begin_ns) / NS_PER_S
        kept = self._keep(rehearsal.folder, again=record.again)
        return msgspec.structs.replace(record, seconds=round(seconds, 2), run=kept)

    def _keep(self, folder: Path | None, *, again: bool) -> str | None:
        """The name of the run's folder if it stays."""
        kept = sum(record.run is not None for record in self.book.trials.values())
        if folder is None or not again or kept >= MAX_KEPT:
            self._drop(folder)
            return None
        return f"{RUNS_FOLDER}/{folder.name}"

    def _drop(self, folder: Path | None) -> None:
        if folder is not None and folder.exists():
            remove_run(folder)


def measure_trial(
    record: TrialRecord, tasks: CountedTasks, manifest: Manifest, settings: RehearsalSettings
) -> TrialRecord:
    """The record of a trial with what its run came to.

    Figures of ``throughput``: ``done_per_s`` and ``accepted_per_s`` in the window after the
    warm-up. Of ``latency``, in ms from the intended time: ``p50_ms``, ``p99_ms``, ``p999_ms`` and
    ``max_ms`` until first done, ``enqueue_p50_ms`` and ``enqueue_p99_ms`` until accepted;
    ``growth_share``, by which the backlog grew of what was offered; ``lag_p99_ms`` of the
    producers. Of both, over the whole trial: ``done`` tasks, ``redelivered`` deliveries,
    ``duplicated`` executions, and the CPU time of the brokers, workers and producers for each task
    that was done, ``broker_cpu_us``, ``worker_cpu_us`` and ``producer_cpu_us``.

    Args:
        record: of the trial, without figures.
        tasks: that count in its run.
        manifest: of the run.
        settings: that it was made with.
    """
    account = manifest.account
    unknown = _why_unknown(tasks, manifest, settings, record.trial.kind)
    if unknown or account is None:
        return msgspec.structs.replace(record, why=unknown, again=True)
    wrong = [f"{count:,} {name}" for name in _WRONG if (count := getattr(account, name))]
    findings = [item.text for item in account.findings]
    figures = _throughput(tasks) if record.trial.kind == "throughput" else _latencies(tasks)
    figures |= _costs(account, manifest.resources)
    return msgspec.structs.replace(
        record,
        verdict=manifest.verdict,
        why="; ".join(wrong or findings[:1]),
        hazards=tuple(sorted({item.hazard for item in account.findings} - {"-"})),
        again=bool(wrong) and manifest.verdict is not Verdict.VALID,
        figures={name: float(np.round(value, 3)) for name, value in figures.items()},
        brokers=tuple(manifest.brokers),
    )


def _why_unknown(
    tasks: CountedTasks, manifest: Manifest, settings: RehearsalSettings, kind: Kind
) -> str:
    """Why the figures of a run say nothing; empty if they do."""
    if manifest.verdict is Verdict.UNKNOWN or manifest.account is None:
        return "; ".join(manifest.unknown_because) or "the run was cut off"
    planned_s = settings.phase_seconds - tasks.warm_up_s
    if tasks.window_s < _MIN_WINDOW * planned_s:
        return (
            f"the load lasted {max(0.0, tasks.window_s):.1f} s after the warm-up, in place of"
            f" {planned_s:g} s: the producers began late"
        )
    if not tasks.finished.any():
        return "no task was done after the warm-up"
    if kind == "throughput" and not tasks.done_per_s():
        return "no task was done between the warm-up and the end of the load"
    if kind == "latency" and tasks.lag_p99_ms > settings.max_lag_ms:
        return (
            f"the producers were late (p99 {tasks.lag_p99_ms:,.1f} ms, bound"
            f" {settings.max_lag_ms:g} ms)"
        )
    return ""


def _throughput(tasks: CountedTasks) -> dict[str, float]:
    return {"done_per_s": tasks.done_per_s(), "accepted_per_s": tasks.accepted_per_s()}


def _latencies(tasks: CountedTasks) -> dict[str, float]:
    offered_per_s = float(tasks.counted.sum()) / tasks.window_s
    return {
        **_percentiles(tasks.end_to_end_ns, {"p50_ms": 50, "p99_ms": 99, "p999_ms": 99.9}),
        "max_ms": float(tasks.end_to_end_ns.max()) / NS_PER_MS,
        **_percentiles(tasks.enqueue_ns, {"enqueue_p50_ms": 50, "enqueue_p99_ms": 99}),
        "growth_share": tasks.growth_per_s / offered_per_s,
        "lag_p99_ms": tasks.lag_p99_ms,
    }


def _percentiles(values_ns: Ints, wanted: dict[str, float]) -> dict[str, float]:
    histogram = histogram_of(values_ns)
    return {
        name: histogram.get_value_at_percentile(percentile) / NS_PER_MS
        for name, percentile in wanted.items()
    }


def _costs(account: Account, resources: list[ResourceUse]) -> dict[str, float]:
    roles = {"broker": _BROKERS, "worker": ("worker",), "producer": ("producer",)}
    out = {
        "done": float(account.done),
        "redelivered": float(sum(row.redelivered for row in account.rows)),
        "duplicated": float(account.duplicated),
    }
    for role, names in roles.items():
        cpu_s = sum(item.cpu_s for item in resources if item.name.partition("-")[0] in names)
        out[f"{role}_cpu_us"] = cpu_s / max(1, account.done) * _US_PER_S
    return out
