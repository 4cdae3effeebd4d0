"""What faults did: redeliveries, recovery and what was left, as frames and as sentences."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from hookbench.clock import NS_PER_S
from hookbench.ledger.reach import reach_of
from hookbench.results.run import Run

__all__ = [
    "count_redeliveries",
    "count_redeliveries_by_kind",
    "count_stuck",
    "fault_recovery",
    "recovery_finding",
    "redelivery_finding",
    "seconds_text",
    "stuck_finding",
]

AFTER_S = 10.0
"""How long after its end a fault's redeliveries are looked for: a lease outlasts its worker."""
_Ints = npt.NDArray[np.int64]


def seconds_text(seconds: float) -> str:
    """``12 ms`` below a second, ``1.2 s`` from there on."""
    if seconds < 1:
        return f"{seconds * 1e3:,.0f} ms"
    return f"{seconds:,.1f} s"


def count_redeliveries(run: Run) -> pd.DataFrame:
    """Per phase and transition (index), in their order.

    Columns: ``redelivered``, deliveries that their queue counts as a second or later one, in the
    phase that the worker was in; ``again``, completed executions beyond the first of their task,
    as the account has them.
    """
    counts = pd.DataFrame({"redelivered": 0, "again": 0}, index=pd.Index(run.row_names))
    for part in run.parts("deliveries", ["attempt", "phase", "nth", "row"]):
        phases = part.loc[part["attempt"] > 1, "phase"].astype("str").value_counts()
        counts["redelivered"] = counts["redelivered"].add(phases, fill_value=0)
        rows = part.loc[part["nth"] > 1, "row"].astype("str").value_counts()
        counts["again"] = counts["again"].add(rows, fill_value=0)
    return counts.reindex(run.row_names).fillna(0).astype("int64")


def count_redeliveries_by_kind(run: Run, *, after_s: float = AFTER_S) -> pd.DataFrame:
    """Per kind of fault that fired (index), the one with the most redeliveries first.

    Columns: ``faults``; ``redelivered`` from the beginning of one of the kind until ``after_s``
    after its end, once each, though faults of other kinds may have lasted as well; ``again``,
    executions beyond the first that the account attributes to faults of the kind.
    """
    faults = run.faults[run.faults["fired"].astype(bool)]
    times = [
        part.loc[part["attempt"] > 1, "received_ns"].to_numpy(dtype="int64")
        for part in run.parts("deliveries", ["attempt", "received_ns"])
    ]
    moments_s = (np.sort(np.concatenate(times or [np.zeros(0, np.int64)])) - run.origin_ns) / (
        NS_PER_S
    )
    rows = {}
    for kind, found in faults.groupby("kind"):
        ends = found["end_s"].fillna(np.inf) + after_s
        inside = 0
        for begin, end in _union(found["begin_s"].tolist(), ends.tolist()):
            inside += int(np.searchsorted(moments_s, end, "right"))
            inside -= int(np.searchsorted(moments_s, begin))
        again = pd.to_numeric(found["duplicated"]).fillna(0).sum()
        rows[kind] = {"faults": len(found), "redelivered": inside, "again": int(again)}
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=["faults", "redelivered", "again"])
    return frame.sort_values(["redelivered", "again"], ascending=False, kind="stable")


def _union(begins: list[float], ends: list[float]) -> list[tuple[float, float]]:
    """Spans that overlap as one."""
    joined: list[tuple[float, float]] = []
    for begin, end in sorted(zip(begins, ends, strict=True)):
        if joined and begin <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((begin, end))
    return joined


def redelivery_finding(counts: pd.DataFrame, kinds: pd.DataFrame) -> str:
    """How many deliveries and executions were repeats, and where most of them."""
    again, redelivered = int(counts["again"].sum()), int(counts["redelivered"].sum())
    if not redelivered and not again:
        return "Nothing was redelivered, nothing done again"
    worst = counts["redelivered" if redelivered else "again"].idxmax()
    where = str(worst)
    where = f"on entering {where[2:]}" if where.startswith("→") else f"in {where}"
    text = f"{redelivered:,} redelivered, {again:,} done again; most {where}"
    told_apart = kinds["redelivered"].sum() <= redelivered  # faults that overlap share them
    if len(kinds) and told_apart and kinds["redelivered"].iloc[0]:
        text += f" and after {kinds.index[0]}"
    return text


def fault_recovery(run: Run) -> pd.DataFrame:
    """One row per fault that fired, in the order of the schedule.

    Columns: ``index``, ``kind``, ``name``; ``accepted_s`` and ``done_s``, the longest time without
    a task accepted or done, on whichever broker, that reaches into the fault (NaN where none came
    after it); ``recovery_s``, of a fault of a broker that was in use when it ended: from its end to
    the broker's next success.
    """
    faults = run.faults[run.faults["fired"].astype(bool)].reset_index(drop=True)
    out = faults[["index", "kind", "name"]].copy()
    accepted, done = _successes_s(run)
    ends_s = faults["end_s"].fillna(np.inf)
    spans = list(zip(faults["begin_s"], ends_s, strict=True))
    out["accepted_s"] = np.array([_gap(accepted, *span) for span in spans], dtype=float)
    out["done_s"] = np.array([_gap(done, *span) for span in spans], dtype=float)
    used = [
        _in_use(run.phases, kind, target, end_s)
        for kind, target, end_s in zip(faults["kind"], faults["target"], ends_s, strict=True)
    ]
    out["recovery_s"] = faults["recovery_s"].astype(float).where(np.array(used, dtype=bool))
    return out


def _successes_s(run: Run) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """When tasks were accepted, and when they were done, in order."""
    accepted = [
        part["accepted_ns"].dropna().to_numpy(dtype="int64")
        for part in run.parts("tasks", ["accepted_ns"])
    ]
    done = [
        part.loc[part["nth"] > 0, "ended_ns"].dropna().to_numpy(dtype="int64")
        for part in run.parts("deliveries", ["nth", "ended_ns"])
    ]
    none: list[_Ints] = [np.zeros(0, np.int64)]
    found = [
        (np.sort(np.concatenate(times or none)) - run.origin_ns) / NS_PER_S
        for times in (accepted, done)
    ]
    return found[0], found[1]


def _gap(times_s: npt.NDArray[np.float64], begin_s: float, end_s: float) -> float:
    """The longest time between two of them that reaches into a span; NaN for none."""
    first = max(0, int(np.searchsorted(times_s, begin_s)) - 1)
    last = int(np.searchsorted(times_s, end_s, "right")) + 1
    near = times_s[first:last]
    return float(np.diff(near).max()) if len(near) > 1 else np.nan


def _in_use(phases: pd.DataFrame, kind: str, target: str, end_s: float) -> bool:
    """Whether a broker that the fault concerns is written or read in the phase of its end."""
    brokers = {broker.name.lower() for broker in reach_of(kind, target).brokers}
    inside = phases[(phases["start_s"] <= end_s) & (phases["end_s"] > end_s)]
    if inside.empty:
        return False
    row = inside.iloc[-1]
    used = {"redis": row["phase"] in _REDIS_PHASES, "nats": row["phase"] not in _NO_NATS}
    return any(used[broker] for broker in brokers)


_REDIS_PHASES = frozenset({"redis_only", "dual_write", "dual_read"})
_NO_NATS = frozenset({"redis_only"})


def recovery_finding(recovery: pd.DataFrame) -> str:
    """How long nothing was accepted or done at the worst, and what a broker took to answer."""
    if recovery.empty:
        return "No fault fired"
    parts: list[str] = []
    for column, what in (("done_s", "done"), ("accepted_s", "accepted")):
        values = recovery[column].dropna()
        if len(values):
            worst = recovery.loc[values.idxmax()]
            by = f" ({worst['name'] if len(recovery) <= _FEW else worst['kind']})"
            parts.append(
                f"no task {what} for {seconds_text(values.max())}{by if not parts else ''}"
            )
    answered = recovery["recovery_s"].dropna()
    text = f"{len(recovery):,} faults: at worst " if len(recovery) > 1 else "At worst "
    text += " and ".join(parts) if parts else "nothing was done after them"
    if len(answered):
        text += f"; brokers answered {seconds_text(answered.median())} after a fault (median)"
    return text


_FEW = 12


def count_stuck(run: Run) -> pd.DataFrame:
    """Tasks without an end by where they lie (index, ``place, state``) and phase (columns).

    A last row ``done, copies left in redis`` has the copies of finished tasks that lie in Redis
    where nothing reads or trims them. Rows without a task are left out. Of a run without an account
    nothing is known: no row at all.
    """
    account = run.manifest.account
    phases = [name for name in run.row_names if not name.startswith("→")]
    rows: dict[str, dict[str, int]] = {}
    for item in account.rows if account is not None else []:
        phase = item.name.removeprefix("→ ")
        found = {name.replace("/", ", "): count for name, count in item.stuck.items()}
        found |= {LEFT: item.left} if item.left else {}
        for name, count in found.items():
            row = rows.setdefault(name, dict.fromkeys(phases, 0))
            row[phase] = row.get(phase, 0) + count
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=phases).fillna(0).astype("int64")
    order = frame.sum(axis=1).where(frame.index != LEFT, -1).sort_values(ascending=False)
    return frame.loc[order.index]


LEFT = "done, copies left in redis"


def stuck_finding(run: Run, counts: pd.DataFrame) -> str:
    """How many tasks are stuck, where most of them, and how many copies were left."""
    account = run.manifest.account
    if account is None:
        return "Nobody knows what is stuck: the run has no account"
    stuck = counts.drop(index=LEFT, errors="ignore")
    left = int(counts.loc[LEFT].sum()) if LEFT in counts.index else 0
    copies = f"{left:,} copies of finished tasks left in Redis" if left else ""
    if stuck.empty:
        return f"No task of {account.tasks:,} is stuck" + (f"; {copies}" if copies else "")
    total = int(stuck.to_numpy().sum())
    phase = str(stuck.sum().idxmax())
    text = f"{total:,} of {account.tasks:,} tasks stuck, most in {phase}: {stuck.index[0]}"
    return text + (f"; {copies}" if copies else "")
