"""A stored run as pandas alone reads it, and what texts of a report say as numbers.

Nothing of hookbench takes part: these read ``tasks.parquet``, ``deliveries.parquet``,
``samples.jsonl`` and, for what no task has (resources, what was left on the brokers, when a fault
began), ``run.json``, and count again what the report says.
"""

import json
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd

__all__ = [
    "DATA",
    "HDR_ERROR",
    "MS",
    "WINDOW_NS",
    "Plain",
    "at",
    "at_rounded",
    "number",
    "same",
    "shown_latencies",
]

DATA = Path(__file__).resolve().parents[2] / "notebooks" / "data"
MS = 1e6
WINDOW_NS = 2_000_000_000
HDR_ERROR = 0.001
"""Percentiles are those of histograms with three significant digits."""


class Plain:
    """A stored run as pandas reads it."""

    def __init__(self, name):
        self.folder = DATA / name  # a path of its own stays as it is
        self.tasks = pd.read_parquet(self.folder / "tables" / "tasks.parquet")
        self.deliveries = pd.read_parquet(self.folder / "tables" / "deliveries.parquet")
        self.manifest = json.loads((self.folder / "run.json").read_text())
        tasks = self.tasks
        self.synthetic = tasks[tasks["offered"] & ~tasks["pushed"]]
        ended = (tasks["done_count"] > 0) | tasks["dead"] | tasks["superseded"]
        places = self.manifest["residue"]["places"]
        lying = {task for ids in places.values() for task in ids}
        open_tasks = tasks[tasks["offered"] & tasks["accepted"] & ~ended]
        self.lost = open_tasks[~open_tasks["id"].isin(lying)]
        unended = tasks[tasks["offered"] & ~ended]
        self.stuck = unended[unended["id"].isin(lying)]
        in_redis = [*places.get("redis-pending", []), *places.get("redis-work", [])]
        finished = set(tasks.loc[ended, "id"])
        self.left = len({task for task in in_redis if task in finished})
        self.steps = self.manifest["steps"]

    def step_of(self, name):
        """Index of the step of a phase or transition."""
        phase = name.removeprefix("→ ")
        return next(s["plan"]["index"] for s in self.steps if s["plan"]["phase"] == phase)

    def gap_ms(self, times, step):
        """The longest time between two of ``times`` around the beginning of a step."""
        moment = self.steps[step]["start_ns"]
        times = np.sort(times.dropna().astype("int64"))
        low, high = moment - WINDOW_NS, moment + WINDOW_NS
        near = times[(times >= low) & (times <= high)]
        edges = np.clip(np.concatenate(([low], near, [high])), times[0], times[-1])
        return np.diff(edges).max() / MS

    def per_million(self, role):
        used = sum(
            item["cpu_s"]
            for item in self.manifest["resources"]
            if re.sub(r"-\d+$", "", item["name"]) == role
        )
        return used / self.done * 1e6

    def network_per_task(self, role):
        rows = [
            item
            for item in self.manifest["resources"]
            if re.sub(r"-\d+$", "", item["name"]) == role
        ]
        return sum(item["received_bytes"] + item["sent_bytes"] for item in rows) / self.done

    @property
    def done(self):
        return int((self.tasks["done_count"] > 0).sum())

    @property
    def done_per_s(self):
        begin = min(step["start_ns"] for step in self.steps)
        end = max(step["end_ns"] for step in self.steps)
        return self.done / ((end - begin) / 1e9)


def at(values, quantile):
    """The value that so many are at or below, in ms."""
    ordered = np.sort(values.dropna().astype("int64"))
    return ordered[max(1, math.ceil(quantile * len(ordered) - 1e-9)) - 1] / MS


def at_rounded(values, quantile):
    """The same, its rank rounded instead of up, as HDR histograms have it: of the account."""
    ordered = np.sort(values.dropna().astype("int64"))
    return ordered[max(1, int(quantile * len(ordered) + 0.5)) - 1] / MS


def number(text):
    return float(text.replace(",", ""))


def same(text, value, *, error=HDR_ERROR):
    """Whether a shown number is ``value``, as far as its digits tell."""
    digits = text.partition(".")[2]
    return abs(number(text) - value) <= 0.5 * 10 ** -len(digits) + abs(value) * error + 1e-9


def shown_latencies(text, values, quantiles, rank=at):
    if values.dropna().empty:
        return text == "-"
    return all(
        same(part, rank(values, quantile))
        for part, quantile in zip(text.split(" / "), quantiles, strict=True)
    )
