"""Frames of what the manifest of a run says: faults, resources, verdicts, gates."""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from hookbench.clock import NS_PER_S
from hookbench.results.store import Manifest

__all__ = [
    "WHAT",
    "attributions_frame",
    "faults_frame",
    "gates_frame",
    "resources_frame",
    "stuck_frame",
    "verdicts_frame",
]

WHAT = ("end_to_end", "enqueue")
_FAULT_COLUMNS = (
    "index", "kind", "target", "name", "node", "planned_s", "begin_s", "end_s", "fired", "problem",
    "exposed", "lost", "stuck", "duplicated", "longest_without_s", "recovery_s",
)  # fmt: skip
_RESOURCE_COLUMNS = (
    "name", "processes", "cpu_s", "rss_max_bytes", "read_bytes", "written_bytes", "received_bytes",
    "sent_bytes",
)  # fmt: skip
_GATE_COLUMNS = (
    "time_s", "step", "source", "target", "moment", "answer", "asked", "condition",
    "condition_answer", "evidence",
)  # fmt: skip


def faults_frame(manifest: Manifest, origin_ns: int) -> pd.DataFrame:
    """``Run.faults``, which tells the columns."""
    account = manifest.account
    known = {item.index: item for item in account.faults} if account is not None else {}
    rows = []
    for item in manifest.faults:
        found = known.get(item.index)
        without = found.longest_without_ns.values() if found else ()
        rows.append(
            {
                "index": item.index,
                "kind": item.kind,
                "target": item.target,
                "name": item.name,
                "node": item.node,
                "planned_s": _since(origin_ns, item.planned_ns),
                "begin_s": _since(origin_ns, item.begin_ns),
                "end_s": _since(origin_ns, item.end_ns),
                "fired": item.begin_ns is not None,
                "problem": item.problem,
                "exposed": found and found.exposed,
                "lost": found and found.lost,
                "stuck": found and found.stuck,
                "duplicated": found and found.duplicated,
                "longest_without_s": max(without, default=np.nan) / NS_PER_S,
                "recovery_s": _seconds_of(found.recovery_ns if found else None),
            }
        )
    return _frame(rows, _FAULT_COLUMNS)


def resources_frame(manifest: Manifest) -> pd.DataFrame:
    """``Run.resources``, which tells the columns."""
    account = manifest.account
    done = account.done if account is not None else 0
    rows = [msgspec.structs.asdict(item) for item in manifest.resources]
    frame = _frame(rows, _RESOURCE_COLUMNS)
    frame["role"] = frame["name"].str.replace(r"-\d+$", "", regex=True)
    for name in ("received_bytes", "sent_bytes"):
        frame[name] = frame[name].astype("Int64")
    per_task = 1 / done if done else np.nan
    frame["cpu_s_per_million"] = frame["cpu_s"].astype("float64") * per_task * 1e6
    frame["written_bytes_per_task"] = frame["written_bytes"].astype("float64") * per_task
    return frame


def verdicts_frame(manifest: Manifest) -> pd.DataFrame:
    """``Run.verdicts``, which tells the columns."""
    account = manifest.account
    rows = []
    for item in account.rows if account is not None else []:
        row = msgspec.structs.asdict(item)
        for what in WHAT:
            found = row.pop(f"{what}_ns") or {}
            for name in ("p50", "p90", "p99", "p999", "max"):
                row[f"{what}_{name}_ns"] = found.get(name)
        row["stuck"] = sum(item.stuck.values())
        row["verdict"] = str(item.verdict)
        del row["lost_by"]
        rows.append(row)
    return pd.DataFrame(rows)


def stuck_frame(manifest: Manifest) -> pd.DataFrame:
    """``Run.stuck``, which tells the columns."""
    account = manifest.account
    rows = [
        {"row": item.name, "place": place, "state": state, "count": count}
        for item in (account.rows if account is not None else [])
        for name, count in item.stuck.items()
        for place, _slash, state in [name.partition("/")]
    ]
    return _frame(rows, ("row", "place", "state", "count"))


def attributions_frame(manifest: Manifest) -> pd.DataFrame:
    """``Run.attributions``, which tells the columns."""
    account = manifest.account
    found = account.attributions if account is not None else []
    names = ("what", "phase", "step", "fault", "hazard", "count", "fault_index")
    return _frame([msgspec.structs.asdict(item) for item in found], names)


def gates_frame(manifest: Manifest, origin_ns: int) -> pd.DataFrame:
    """``Run.gates``, which tells the columns."""
    rows = [
        {
            "time_s": _since(origin_ns, gate.time_ns),
            "step": gate.step,
            "source": gate.source,
            "target": gate.target,
            "moment": gate.moment,
            "answer": gate.answer,
            "asked": gate.asked,
            "condition": check.name,
            "condition_answer": str(check.answer),
            "evidence": check.evidence,
        }
        for gate in manifest.gates
        for check in gate.checks
    ]
    return _frame(rows, _GATE_COLUMNS)


def _since(origin_ns: int, time_ns: int | None) -> float:
    return np.nan if time_ns is None else (time_ns - origin_ns) / NS_PER_S


def _seconds_of(value_ns: int | None) -> float:
    return np.nan if value_ns is None else value_ns / NS_PER_S


def _frame(rows: list[dict[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(columns))
