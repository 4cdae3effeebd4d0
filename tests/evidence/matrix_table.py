"""README's comparison of Redis and NATS: ``python -m tests.evidence.matrix_table``.

It is made of the books of three matrices in ``evidence/matrix``: of throughput and latency, and of
redelivery under each design.
"""

import sys
from pathlib import Path
from typing import NamedTuple

from hookbench.brokers.durability import Durability
from hookbench.report.matrix import CellSummary, MatrixSummary, load_summary
from hookbench.report.matrix_fates import fates_finding
from hookbench.report.matrix_plots import latency_finding, throughput_finding
from hookbench.report.matrix_tables import interval_text, ms_text, rate_text

__all__ = ["BEGIN", "END", "FOLDER", "MATRICES", "tables"]

FOLDER = Path(__file__).resolve().parents[2] / "evidence" / "matrix"
MATRICES = ("speed", "redelivery-guide", "redelivery-hardened")
BEGIN, END = "<!-- python -m tests.evidence.matrix_table -->", "<!-- end -->"
"""Between these README.md has the tables."""

_PAYLOAD = "64"
_ALONE = {"redis_list": "list", "redis_stream": "stream"}
_SECOND_MS = 1000
_OF_CLASS = {
    Durability.MEMORY: "`memory` (nothing on a disk)",
    Durability.LAZY: "`lazy` (on the disk within a second)",
    Durability.FSYNC: "`fsync` (on the disk before it is acknowledged)",
}


class _Speed(NamedTuple):
    heading: str
    kind: str
    figure: str


_SPEEDS = (
    _Speed("accepted per s", "throughput", "accepted_per_s"),
    _Speed("done per s", "throughput", "done_per_s"),
    _Speed("p50 ms", "latency", "p50_ms"),
    _Speed("p99 ms", "latency", "p99_ms"),
    _Speed("CPU µs a task, brokers", "throughput", "broker_cpu_us"),
    _Speed("workers", "throughput", "worker_cpu_us"),
)


def tables() -> str:
    """Both tables with what they were measured with, not yet laid out by prettier."""
    speed, guide, hardened = (load_summary(FOLDER / name)[0] for name in MATRICES)
    findings = (throughput_finding(speed), latency_finding(speed), fates_finding(guide))
    told = [f"- {text}{' (guide)' if text is findings[-1] else ''}." for text in findings]
    told.append(f"- {fates_finding(hardened)} (hardened).")
    lines = [*told, "", _speed_text(speed), *_speeds(speed), "", *_redelivery(guide, hardened), ""]
    return "\n".join(lines)


def _speed_text(summary: MatrixSummary) -> str:
    plan = summary.plan
    commit = summary.environment.commit if summary.environment else "unknown"
    return (
        f"Commit {commit}, seed {plan.seed}, two cores, {summary.made} trials in random order:"
        f" medians of {plan.repeats} with their 95 % intervals. Tasks accepted and done per second"
        f" are those of one producer and one worker process at saturation ({plan.callers} callers;"
        " where more is accepted than done a backlog grows, and where the producer has less to do"
        " for each task it takes more of the two cores from the worker); latency is"
        f" end to end from the intended time, in an open loop of {plan.rate_per_s:g} tasks/s"
        f" ({plan.arrivals}). The design is the guide's, payloads are of {_PAYLOAD} bytes."
        f" {_again_text(summary)}{_load_text(summary)}\n"
    )


def _again_text(summary: MatrixSummary) -> str:
    """How many deliveries and executions were repeated where nothing was done to the system."""
    kinds = [kind for cell in summary.cells for kind in cell.kinds.values()]
    done, again, twice = (
        sum(getattr(kind, name) for kind in kinds) for name in ("done", "redelivered", "duplicated")
    )
    return f"Of {done:,} tasks {again:,} were delivered again, and {twice:,} done again."


def _load_text(summary: MatrixSummary) -> str:
    if summary.load_average is None:
        return ""
    low, high = summary.load_average
    return (
        f" The machine was shared: its load average before a trial was {low:.1f} to {high:.1f}, so"
        " the intervals are wide."
    )


def _speeds(summary: MatrixSummary) -> list[str]:
    lines = []
    for durability in summary.plan.durability:
        lines += [
            "",
            f"| {_OF_CLASS[durability]} | " + " | ".join(item.heading for item in _SPEEDS) + " |",
            "| --- | " + " | ".join("---:" for _item in _SPEEDS) + " |",
        ]
        lines += [
            f"| {_name(cell)} | " + " | ".join(_speed(cell, item) for item in _SPEEDS) + " |"
            for cell in _in_order(summary, durability)
        ]
    return lines


def _in_order(summary: MatrixSummary, durability: Durability) -> list[CellSummary]:
    """The cells of the smallest payload, phase by phase."""
    found = [item for item in summary.of_class(durability) if item.cell.payload == _PAYLOAD]
    return sorted(found, key=lambda item: item.cell.phase)


def _name(cell: CellSummary) -> str:
    phase = cell.cell.phase
    way = _ALONE.get(cell.cell.route)
    return f"{int(phase)} `{phase.label}`" + (f", {way}" if way else "")


def _speed(cell: CellSummary, what: _Speed) -> str:
    found = cell.kinds[what.kind].figures.get(what.figure)
    if found is None:
        return "unknown"
    show = ms_text if what.figure.endswith("_ms") else rate_text
    bounds = " ({} to {})" if what.figure in {"accepted_per_s", "done_per_s", "p99_ms"} else ""
    return interval_text(found, show, bounds)


def _redelivery(guide: MatrixSummary, hardened: MatrixSummary) -> list[str]:
    plan = guide.plan
    told = (
        f"And with a worker that is killed under that load, {plan.kills} times in each of"
        f" {plan.repeats} trials (`lazy`, tasks of {plan.killed_service_ms:g} ms): what became of"
        " the tasks that it had in hand, and how long after its death they were started again"
        " (median).\n"
    )
    heads = ["design", "in hand", "ended by others", "stuck", "lost", "done again", "after"]
    lines = [told, f"| | {' | '.join(heads)} |", "| --- | --- |" + " ---: |" * (len(heads) - 1)]
    others = {item.cell: item for item in hardened.cells}
    for cell in _in_order(guide, Durability.LAZY):
        for name, found in (("guide", cell), ("hardened", others[cell.cell])):
            lines.append(f"| {_name(cell)} | {name} | " + " | ".join(_fates(found)) + " |")
    return lines


def _fates(cell: CellSummary) -> list[str]:
    kind = cell.kinds["redelivery"]
    after = kind.figures.get("restart_p50_ms")
    counts = (kind.in_hand, kind.ended, kind.stuck, kind.lost, kind.duplicated)
    return [*map(str, counts), f"{after.median / _SECOND_MS:.1f} s" if after else "-"]


if __name__ == "__main__":
    sys.stdout.write(tables())
