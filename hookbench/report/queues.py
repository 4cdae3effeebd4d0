"""Queues side by side: texts and tables of runs that use one queue alone."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from hookbench.report.choice import queue_of
from hookbench.report.findings import format_ms
from hookbench.report.price import cpu_s_per_million, done_per_s, network_bytes_per_task
from hookbench.report.table import lag_text
from hookbench.results.run import Run
from hookbench.results.store import Manifest

__all__ = ["comparable_runs", "comparison_text", "queues_table"]

_ALIKE = {
    "design": "design",
    "rate_per_s": "rate (tasks/s)",
    "loop": "loop",
    "arrivals": "arrivals",
    "payload": "payload (bytes)",
    "producers": "producers",
    "workers": "workers",
    "concurrency": "concurrency",
    "service_ms": "work per task (ms)",
    "topology": "topology",
}
"""Settings that have to be equal before queues are compared, as people call them."""


def comparable_runs(runs: Sequence[Run]) -> list[Run]:
    """The runs that may be compared: the most of equal durability and equal load.

    Of equally many the first. The order is kept.
    """
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault(tuple(_conditions(run.manifest).values()), []).append(run)
    return max(groups.values(), key=lambda group: len({queue_of(r.manifest) for r in group}))


def comparison_text(runs: Sequence[Run]) -> str:
    """What compared runs have in common, what their latencies are worth, and who is left out."""
    compared = comparable_runs(runs)
    common = _conditions(compared[0].manifest)
    lines = [", ".join(f"{name} {value}" for name, value in common.items())]
    for run in compared:
        lag = lag_text(run.manifest) or "no schedule lag is known"
        lines.append(f"{queue_of(run.manifest)}: {lag}")
    for run in runs:
        if run in compared:
            continue
        other = _conditions(run.manifest)
        differs = [f"{name} {other[name]}" for name in common if other[name] != common[name]]
        lines.append(
            f"left out: {queue_of(run.manifest)}, {run.manifest.run}: {', '.join(differs)}"
        )
    return "\n".join(lines)


def queues_table(runs: Sequence[Run]) -> pd.DataFrame:
    """One row per run: what its queue did under the same load, and what its broker cost."""
    rows = []
    for run in runs:
        broker = _broker_of(run.manifest)
        rows.append(
            {
                "run": run.manifest.run,
                "verdict": str(run.manifest.verdict),
                "tasks done": f"{run.totals['done']:,}",
                "done per s": f"{done_per_s(run):,.0f}",
                "enqueue p50 / p99 (ms)": _latencies(run, "enqueue"),
                "end-to-end p50 / p99 (ms)": _latencies(run, "end_to_end"),
                "broker CPU (s per million tasks)": _number(cpu_s_per_million(run, broker)),
                "broker network (bytes per task)": _number(network_bytes_per_task(run, broker)),
            }
        )
    names = [str(queue_of(run.manifest)) for run in runs]
    return pd.DataFrame(rows, index=pd.Index(names, name="queue"))


def _conditions(manifest: Manifest) -> dict[str, str]:
    """What has to be equal, by name; the durability is that of the broker that is used."""
    broker = _broker_of(manifest)
    classes = {
        str(report.durability)
        for report in manifest.broker_reports
        if report.name.split("-")[0] == broker
    }
    durability = ", ".join(sorted(classes)) or manifest.durability
    settings = {"design": manifest.design, **manifest.settings}
    return {
        "durability": durability,
        **{text: _plain(settings.get(name)) for name, text in _ALIKE.items()},
    }


def _broker_of(manifest: Manifest) -> str:
    return "nats" if queue_of(manifest) == "jetstream" else "redis"


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _latencies(run: Run, what: str) -> str:
    found = run.latency([], what=what)
    if found["count"].iloc[0] == 0:
        return "-"
    return " / ".join(format_ms(found[name].iloc[0]) for name in ("p50_ns", "p99_ns"))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"
