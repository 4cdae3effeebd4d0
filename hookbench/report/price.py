"""What the measures of the hardened design cost: two runs of one scenario, figure by figure."""

from collections.abc import Sequence

import pandas as pd

from hookbench.clock import NS_PER_MS
from hookbench.migration.phases import Design
from hookbench.report.table import lag_is_late, lag_text
from hookbench.results.run import Run
from hookbench.results.store import Manifest

__all__ = [
    "cpu_s_per_million",
    "done_per_s",
    "find_pair",
    "network_bytes_per_task",
    "price_table",
    "price_text",
]

_ROLES = ("redis", "nats", "worker", "producer")
_LATENCIES = {
    "enqueue p50 (ms)": ("enqueue", "p50"),
    "enqueue p99 (ms)": ("enqueue", "p99"),
    "end-to-end p50 (ms)": ("end_to_end", "p50"),
    "end-to-end p99 (ms)": ("end_to_end", "p99"),
}
_NOT_OF_THE_SCENARIO = {"design", "measures", "out", "keep", "redis_url", "nats_url"}
_NOT_OF_THE_SCENARIO |= {"nats_monitor_url", "own_names", "allow_existing"}


def find_pair(runs: Sequence[Run]) -> tuple[Run, Run] | None:
    """The first guide and hardened run of one scenario, in this order; ``None`` without any."""
    by_design = {
        design: [run for run in runs if run.manifest.design == design] for design in Design
    }
    pairs = (
        (guide, hardened)
        for guide in by_design[Design.GUIDE]
        for hardened in by_design[Design.HARDENED]
        if _scenario(guide.manifest) == _scenario(hardened.manifest)
    )
    return next(pairs, None)


def _scenario(manifest: Manifest) -> dict[str, object]:
    settings = manifest.settings.items()
    asked = {name: value for name, value in settings if name not in _NOT_OF_THE_SCENARIO}
    return {**asked, "seed": manifest.seed, "durability": manifest.durability}


def price_text(runs: Sequence[Run]) -> str:
    """Of which runs the price is, or why there is none; and what its latencies are worth."""
    pair = find_pair(runs)
    if pair is None:
        return (
            "No price: it takes a guide and a hardened run of the same scenario, seed and"
            " durability, as hookbench rehearse --design both makes them."
        )
    guide, hardened = (run.manifest for run in pair)
    heading = (
        f"guide {guide.run}, hardened {hardened.run}; both were offered the same rate, a design"
        " with gates for as long as they took"
    )
    lines = [heading]
    for manifest in (guide, hardened):
        lag = lag_text(manifest) or "no schedule lag is known"
        lines.append(f"{manifest.design}: {lag}")
    return "\n".join(lines)


def price_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Rate, latencies and cost of both designs and their ratio; no rows without a pair.

    Latencies of producers that were late have no ratio.
    """
    pair = find_pair(runs)
    columns = ["guide", "hardened", "hardened / guide"]
    if pair is None:
        return pd.DataFrame(columns=columns)
    guide, hardened = (_figures(run) for run in pair)
    late = any(lag_is_late(run.manifest) for run in pair)
    rows = {
        name: [
            _text(guide[name]),
            _text(hardened[name]),
            "not valid" if late and name in _LATENCIES else _ratio(guide[name], hardened[name]),
        ]
        for name in guide
    }
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    return table.rename_axis(index="figure")


def _figures(run: Run) -> dict[str, float | None]:
    """By name with its unit; ``None`` for what is not known."""
    figures: dict[str, float | None] = {"done (tasks/s)": done_per_s(run)}
    found = {what: run.latency([], what=what) for what in ("enqueue", "end_to_end")}
    for name, (what, percentile) in _LATENCIES.items():
        known = found[what]["count"].iloc[0] > 0
        figures[name] = found[what][f"{percentile}_ns"].iloc[0] / NS_PER_MS if known else None
    cpus = {role: cpu_s_per_million(run, role) for role in _ROLES}
    for role, value in cpus.items():
        figures[f"CPU of {role} (s per million tasks)"] = value
    known_cpus = [value for value in cpus.values() if value is not None]
    figures["CPU of all four (s per million tasks)"] = sum(known_cpus) if known_cpus else None
    for role in ("redis", "nats"):
        figures[f"network of {role} (bytes per task)"] = network_bytes_per_task(run, role)
    return figures


def done_per_s(run: Run) -> float:
    """Tasks that were done, over the time of all phases."""
    phases = run.phases
    seconds = phases["end_s"].max() - phases["start_s"].min() if len(phases) else 0.0
    return run.totals["done"] / seconds if seconds > 0 else 0.0


def cpu_s_per_million(run: Run, role: str) -> float | None:
    """CPU seconds of all processes of a role over a million tasks done; ``None`` for unknown."""
    rows = run.resources[run.resources["role"] == role]
    done = run.totals["done"]
    return float(rows["cpu_s"].sum()) / done * 1e6 if len(rows) and done else None


def network_bytes_per_task(run: Run, role: str) -> float | None:
    """TCP bytes, received and sent, over the tasks done; ``None`` where they were not measured."""
    rows = run.resources.loc[run.resources["role"] == role, ["received_bytes", "sent_bytes"]]
    done = run.totals["done"]
    if rows.empty or rows.isna().to_numpy().any() or not done:
        return None
    return float(rows.to_numpy(dtype="float64").sum()) / done


def _text(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if value < 10 else f"{value:,.0f}"  # noqa: PLR2004 - two digits each


def _ratio(guide: float | None, hardened: float | None) -> str:
    return "-" if not guide or hardened is None else f"{hardened / guide:.2f}"
