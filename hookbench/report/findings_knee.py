"""The knee of queues: latency against rate, from what ``hookbench capacity`` stored."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from hookbench.load.search import Judgement
from hookbench.rehearsal.answers import load_answers
from hookbench.rehearsal.capacity import NULL, CapacityAnswer

__all__ = [
    "DURABILITIES",
    "interval_text",
    "knee_finding",
    "knee_table",
    "load_answers",
    "parts_of",
]

DURABILITIES = ("memory", "lazy", "fsync", "replicated", "as_shipped")


def parts_of(label: str) -> tuple[str, str, str]:
    """Queue, durability class and design of an answer's label; empty for what it does not say."""
    queue, *rest = label.split("-")
    return (queue, *[*rest, "", ""][:2])  # type: ignore[return-value]


def knee_table(answers: Sequence[CapacityAnswer]) -> pd.DataFrame:
    """One row per rate of each answer that a trial has a latency of, in their order.

    Columns: ``label``, ``queue``, ``durability``, ``design``, ``rate_per_s``, ``percentile`` (the
    highest of the objective that was measured: ``p99``), ``latency_ms`` (median of the trials),
    ``low_ms`` and ``high_ms`` (of the trials), ``trials``, ``sustained`` (None: no answer).
    """
    rows = []
    for answer in answers:
        queue, durability, design = parts_of(answer.label)
        name = _figure_of(answer)
        for judgement in answer.capacity.judgements:
            values = _values(judgement, name)
            if not values:
                continue
            rows.append(
                {
                    "label": answer.label,
                    "queue": queue,
                    "durability": durability,
                    "design": design,
                    "rate_per_s": judgement.rate_per_s,
                    "percentile": name.removesuffix("_ms").replace("lag_", "lag "),
                    "latency_ms": float(np.median(values)),
                    "low_ms": min(values),
                    "high_ms": max(values),
                    "trials": len(values),
                    "sustained": judgement.sustained,
                }
            )
    return pd.DataFrame(rows, columns=_COLUMNS)


_COLUMNS = [
    "label", "queue", "durability", "design", "rate_per_s", "percentile", "latency_ms", "low_ms",
    "high_ms", "trials", "sustained",
]  # fmt: skip


def _figure_of(answer: CapacityAnswer) -> str:
    """The name of the highest percentile that trials measured; of no queue that of the lag."""
    names = {
        name
        for judgement in answer.capacity.judgements
        for trial in judgement.trials
        for name in trial.figures
    }
    prefix = "lag_p" if answer.label == NULL else "p"
    found = [name for name in names if name.startswith(prefix) and name.endswith("_ms")]
    return max(found, key=lambda name: float(name[len(prefix) : -3]), default="")


def _values(judgement: Judgement, name: str) -> list[float]:
    return [trial.figures[name] for trial in judgement.trials if name in trial.figures]


def interval_text(answer: CapacityAnswer) -> str:
    """``1,200 to 1,300/s``; what is no answer says so."""
    low, high = answer.capacity.low_per_s, answer.capacity.high_per_s
    if not low:
        return "no rate sustained"
    if high is None:
        return f"at least {_rate(low)}/s"
    text = f"{_rate(low)} to {_rate(high)}/s"
    return f"{text} (no answer: too wide)" if answer.unknown_because else text


def knee_finding(answers: Sequence[CapacityAnswer]) -> str:
    """What each queue sustains, the most first; of more than three the first and the last."""
    queues = [item for item in answers if item.label != NULL]
    known = [item for item in queues if item.capacity.low_per_s and not item.unknown_because]
    if not known:
        if not queues:
            return "No answer of hookbench capacity"
        return f"No answer for {parts_of(queues[0].label)[0]}: {queues[0].unknown_because}"
    known.sort(key=lambda item: -item.capacity.low_per_s)
    shown = known if len(known) <= _MOST else [known[0], known[-1]]
    names = _names([item.label for item in shown])
    texts = [f"{name} {interval_text(item)}" for name, item in zip(names, shown, strict=True)]
    return f"Sustained: {'; '.join(texts)}"


def _rate(value_per_s: float) -> str:
    return f"{value_per_s:,.0f}" if value_per_s >= 10 else f"{value_per_s:.2g}"  # noqa: PLR2004


_MOST = 3


def _names(labels: Sequence[str]) -> list[str]:
    """Queues, with the durability class and the design where they are needed."""
    for length in (1, 2):
        names = [", ".join(parts_of(label)[:length]) for label in labels]
        if len(set(names)) == len(names):
            return names
    return [", ".join(part for part in parts_of(label) if part) for label in labels]
