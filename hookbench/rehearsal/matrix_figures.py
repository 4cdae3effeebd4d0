"""What a trial of a matrix came to, from its account and its ledger."""

from collections.abc import Callable

import msgspec
import numpy as np

from hookbench.clock import NS_PER_MS
from hookbench.ledger.columns import Ints
from hookbench.ledger.latency import histogram_of
from hookbench.ledger.model import Account, Verdict
from hookbench.rehearsal.counted import CountedTasks
from hookbench.rehearsal.matrix_book import TrialRecord
from hookbench.rehearsal.matrix_plan import Kind
from hookbench.rehearsal.settings import RehearsalSettings
from hookbench.results.store import Manifest, ResourceUse

__all__ = ["disturbed", "measure_trial"]

_WRONG = ("lost", "stuck", "duplicated", "refused", "dead")
_MIN_WINDOW = 0.8
"""Of the planned time after the warm-up: a shorter one is not what was asked for. Only callers that
begin late have one; an open loop offers what was due all the same."""
_BROKERS = ("redis", "nats")
_HARMED: tuple[Kind, ...] = ("redelivery",)
"""What goes wrong in these is the answer, and not a reason to make the trial again."""
_US_PER_S = 1e6


def measure_trial(
    record: TrialRecord, tasks: CountedTasks, manifest: Manifest, settings: RehearsalSettings
) -> TrialRecord:
    """The record of a trial with what its run came to.

    Figures of ``throughput``: ``done_per_s`` and ``accepted_per_s`` in the window after the
    warm-up. Of ``latency``, in ms from the intended time: ``p50_ms``, ``p99_ms``, ``p999_ms`` and
    ``max_ms`` until first done, ``enqueue_p50_ms`` and ``enqueue_p99_ms`` until accepted;
    ``growth_share``, by which the backlog grew of what was offered; ``lag_p99_ms`` of the
    producers. Of ``redelivery``, over all workers that were killed: the tasks ``in_hand`` of
    them, and of these ``ended`` by others, ``stuck`` and ``lost``; ``restart_p50_ms`` and
    ``restart_max_ms`` from a death to the next start of such a task, where there was one. Of all,
    over the whole trial: ``done`` tasks, ``redelivered`` deliveries, ``duplicated`` executions, and
    the CPU time of the brokers, workers and producers for each task that was done,
    ``broker_cpu_us``, ``worker_cpu_us`` and ``producer_cpu_us``.

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
    kind = record.trial.kind
    figures = _FIGURES[kind](tasks, account) | _costs(account, manifest.resources)
    return msgspec.structs.replace(
        record,
        verdict=manifest.verdict,
        why="; ".join(wrong or findings[:1]),
        hazards=tuple(sorted({item.hazard for item in account.findings} - {"-"})),
        again=bool(wrong) and manifest.verdict is not Verdict.VALID and kind not in _HARMED,
        figures={name: float(np.round(value, 3)) for name, value in figures.items()},
        brokers=tuple(manifest.brokers),
    )


def disturbed(record: TrialRecord, others_cores: float, *, most: float) -> TrialRecord:
    """The record with what others used beside it; to be made again where that was too much.

    Args:
        record: of a trial that was made.
        others_cores: that others kept busy meanwhile.
        most: of them.
    """
    record = msgspec.structs.replace(record, others_cores=round(others_cores, 2))
    if others_cores <= most:
        return record
    told = f"others kept {others_cores:.1f} cores busy beside it"
    why = f"{record.why}; {told}" if record.why else told
    return msgspec.structs.replace(record, why=why, again=True)


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
    return _why_unknown_of_kind(tasks, manifest.account, settings, kind)


def _why_unknown_of_kind(
    tasks: CountedTasks, account: Account, settings: RehearsalSettings, kind: Kind
) -> str:
    if kind == "throughput" and not tasks.done_per_s():
        return "no task was done between the warm-up and the end of the load"
    if kind != "throughput" and tasks.lag_p99_ms > settings.max_lag_ms:
        return (
            f"the producers were late (p99 {tasks.lag_p99_ms:,.1f} ms, bound"
            f" {settings.max_lag_ms:g} ms)"
        )
    if kind == "redelivery" and not any(crash.in_hand for crash in account.crashes):
        return "no worker that was killed had a task in hand"
    return ""


def _throughput(tasks: CountedTasks, _account: Account) -> dict[str, float]:
    return {"done_per_s": tasks.done_per_s(), "accepted_per_s": tasks.accepted_per_s()}


def _latencies(tasks: CountedTasks, _account: Account) -> dict[str, float]:
    offered_per_s = float(tasks.counted.sum()) / tasks.window_s
    return {
        **_percentiles(tasks.end_to_end_ns, {"p50_ms": 50, "p99_ms": 99, "p999_ms": 99.9}),
        "max_ms": float(tasks.end_to_end_ns.max()) / NS_PER_MS,
        **_percentiles(tasks.enqueue_ns, {"enqueue_p50_ms": 50, "enqueue_p99_ms": 99}),
        "growth_share": tasks.growth_per_s / offered_per_s,
        "lag_p99_ms": tasks.lag_p99_ms,
    }


def _fates(_tasks: CountedTasks, account: Account) -> dict[str, float]:
    crashes, restarts_ns = account.crashes, account.redelivery_ns
    restarts = {} if restarts_ns is None else {"restart_p50_ms": "p50", "restart_max_ms": "max"}
    return {
        "in_hand": float(sum(crash.in_hand for crash in crashes)),
        "ended": float(sum(crash.done_by_others for crash in crashes)),
        "stuck": float(sum(crash.stuck for crash in crashes)),
        "lost": float(sum(crash.lost for crash in crashes)),
        **{name: (restarts_ns or {})[key] / NS_PER_MS for name, key in restarts.items()},
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


_FIGURES: dict[Kind, Callable[[CountedTasks, Account], dict[str, float]]] = {
    "throughput": _throughput,
    "latency": _latencies,
    "redelivery": _fates,
}
