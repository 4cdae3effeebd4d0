"""Answers of ``hookbench capacity`` as texts and tables."""

from collections.abc import Sequence

import pandas as pd

from hookbench.load.search import Trial
from hookbench.rehearsal.capacity import CapacityAnswer

__all__ = ["capacity_table", "identify_answers", "trials_table"]

_SUSTAINED = {True: "yes", False: "no", None: "says nothing"}


def identify_answers(answers: Sequence[CapacityAnswer]) -> str:
    """One line for each answer: where it was made."""
    return "\n".join(
        f"{item.label}  commit {item.environment.commit}  hookbench {item.environment.hookbench},"
        f" python {item.environment.python}, {item.environment.cpus} x {item.environment.cpu}"
        for item in answers
    )


def capacity_table(answers: Sequence[CapacityAnswer]) -> pd.DataFrame:
    """One row per answer: the interval, or why there is none."""
    rows = []
    for answer in answers:
        found = answer.capacity
        unknown = bool(answer.unknown_because)
        high = "?" if found.high_per_s is None else f"{found.high_per_s:,.0f}"
        rows.append(
            {
                "answer": "unknown" if unknown else "an interval",
                "sustained (tasks/s)": f"{found.low_per_s:,.0f}",
                "not sustained (tasks/s)": high,
                "width": "-" if found.width is None else f"{found.width:.0%}",
                "objective": answer.slo,
                "why": answer.unknown_because or f"beyond it {answer.limit}",
            }
        )
    table = pd.DataFrame(rows)
    table.insert(0, "queue, durability, design", [answer.label for answer in answers])
    return table


def trials_table(answers: Sequence[CapacityAnswer]) -> pd.DataFrame:
    """One row per rate that was tried: what its trials came to, and the latencies of each."""
    rows = []
    for answer in answers:
        for judgement in answer.capacity.judgements:
            latencies = [_latency(trial) for trial in judgement.trials]
            rows.append(
                {
                    "queue, durability, design": answer.label,
                    "rate (tasks/s)": f"{judgement.rate_per_s:,.0f}",
                    "sustained": _SUSTAINED[judgement.sustained],
                    "trials": f"{len(judgement.trials)}",
                    "p99 of each (ms)": " / ".join(latencies),
                }
            )
    return pd.DataFrame(rows).set_index("queue, durability, design")


def _latency(trial: Trial) -> str:
    """p99 of the tasks; of no queue, of the schedule lag."""
    value = trial.figures.get("p99_ms", trial.figures.get("lag_p99_ms"))
    return "-" if value is None else f"{value:,.1f}"
