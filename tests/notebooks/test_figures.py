"""Every figure of the report's tables, computed again from the Parquet files with plain pandas.

Nothing of hookbench takes part in ``plain_*``: they read ``tasks.parquet``, ``deliveries.parquet``
and, for what no task has (resources, what was left on the brokers), ``run.json``.
"""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

pd = pytest.importorskip("pandas", reason="the extra notebooks is not installed")

from hookbench.results.run import load
from hookbench.report.api import (
    faults_table,
    phases_table,
    price_table,
    queues_table,
    transitions_table,
    verdict_table,
    verdict_text,
)

DATA = Path(__file__).resolve().parents[2] / "notebooks" / "data"
RUNS = ("guide", "hardened", "faults", "redis_list", "redis_stream", "jetstream")
MS = 1e6
WINDOW_NS = 2_000_000_000
HDR_ERROR = 0.001
"""Percentiles are those of histograms with three significant digits."""

OF_THE_LEDGER = {"explained", "of effects"}
"""Columns that follow from events that are in no table: see tests/unit/test_explanation.py and
test_effects.py."""


class Plain:
    """A stored run as pandas reads it."""

    def __init__(self, name):
        self.tasks = pd.read_parquet(DATA / name / "tables" / "tasks.parquet")
        self.deliveries = pd.read_parquet(DATA / name / "tables" / "deliveries.parquet")
        self.manifest = json.loads((DATA / name / "run.json").read_text())
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


@pytest.fixture(scope="module", params=RUNS)
def both(request):
    return Plain(request.param), load(DATA / request.param)


def test_verdict_table(both):
    plain, run = both
    table = verdict_table(run)
    tasks, deliveries = plain.tasks, plain.deliveries
    assert len(table), "a table without rows proves nothing"
    checked = set()
    for name, row in table.iterrows():
        step = plain.step_of(name)
        repeats = deliveries[(deliveries["nth"] > 1) & (deliveries["row"] == name)]
        assert number(row["duplicated"]) == len(repeats), name
        if name.startswith("→"):
            crossing = tasks[tasks["offered"] & (tasks["step"] < step)]
            assert number(row["tasks"]) == (crossing["done_step"] == step).sum(), name
            continue
        here = plain.synthetic[plain.synthetic["step"] == step]
        assert number(row["tasks"]) == (tasks["step"] == step).sum(), name
        for shown, column, quantiles in (
            ("enqueue p50 / p99 (ms)", "enqueue_ns", (0.5, 0.99)),
            ("end-to-end p50 / p99 / max (ms)", "end_to_end_ns", (0.5, 0.99, 1.0)),
        ):
            assert shown_latencies(row[shown], here[column], quantiles, at_rounded), name
        again = deliveries[(deliveries["step"] == step) & (deliveries["attempt"] > 1)]
        assert number(row["redelivered"]) == len(again), name
        assert number(row["lost"]) == (plain.lost["step"] == step).sum(), name
        assert number(row["stuck"]) == (plain.stuck["step"] == step).sum(), name
        checked |= {"enqueue p50 / p99 (ms)", "end-to-end p50 / p99 / max (ms)", "redelivered"}
        checked |= {"lost", "stuck", "tasks", "duplicated", "verdict"}
    shown = table.replace("", "0")
    beyond_first = len(deliveries) - deliveries["id"].nunique()
    assert shown["of deliveries"].map(number).sum() == beyond_first
    assert shown["left in redis"].map(number).sum() == plain.left
    checked |= {"of deliveries", "left in redis"}
    assert set(table.columns) - checked == OF_THE_LEDGER, "a column that nothing checks"


def test_totals(both):
    plain, run = both
    tasks = plain.tasks
    text = verdict_text(run)
    offered, accepted = tasks["offered"].sum(), (tasks["offered"] & tasks["accepted"]).sum()
    repeats = (plain.deliveries["nth"] > 1).sum()
    assert (
        f"{offered:,} tasks offered, {accepted:,} accepted, {plain.done:,} done; {repeats:,}"
        f" duplicated, {len(plain.lost):,} lost, {len(plain.stuck):,} stuck, {plain.left:,} left in"
        " redis"
    ) in text


@pytest.mark.parametrize("name", ["guide", "hardened"])
def test_transitions(name):
    plain = Plain(name)
    table = transitions_table([load(DATA / name)])
    assert len(table) == len(plain.steps) - 1
    executions = plain.deliveries[plain.deliveries["nth"] > 0]
    for (change, row), step in zip(table.iterrows(), plain.steps[1:], strict=True):
        index, phase = step["plan"]["index"], step["plan"]["phase"]
        assert change == f"{plain.steps[index - 1]['plan']['phase']} → {phase}"
        rows = {phase, f"→ {phase}"}
        repeats = plain.deliveries[plain.deliveries["nth"] > 1]
        assert number(row["duplicated"]) == repeats["row"].isin(rows).sum()
        assert number(row["lost"]) == (plain.lost["step"] == index).sum()
        assert number(row["stuck"]) == (plain.stuck["step"] == index).sum()
        accepted, done = row["longest gap accepted / done (ms)"].split(" / ")
        assert same(accepted, plain.gap_ms(plain.tasks["accepted_ns"], index), error=0)
        assert same(done, plain.gap_ms(executions["ended_ns"], index), error=0)
        answers = {gate["answer"] for gate in plain.manifest["gates"] if gate["step"] == index}
        bad = len(repeats[repeats["row"].isin(rows)]) > 0
        if name == "guide":
            assert answers == set()
            assert (row["go on?"] == "NO") or not bad
        else:
            assert answers == {"go"}
            assert row["go on?"] == "yes"


def test_price():
    plains = [Plain("guide"), Plain("hardened")]
    table = price_table([load(DATA / name) for name in ("guide", "hardened")])
    figures = {"done (tasks/s)": [plain.done_per_s for plain in plains]}
    for what, name in (("enqueue", "enqueue"), ("end_to_end", "end-to-end")):
        for label, quantile in (("p50", 0.5), ("p99", 0.99)):
            figures[f"{name} {label} (ms)"] = [
                at(plain.synthetic[f"{what}_ns"], quantile) for plain in plains
            ]
    roles = ("redis", "nats", "worker", "producer")
    for role in roles:
        figures[f"CPU of {role} (s per million tasks)"] = [p.per_million(role) for p in plains]
    figures["CPU of all four (s per million tasks)"] = [
        sum(plain.per_million(role) for role in roles) for plain in plains
    ]
    for role in ("redis", "nats"):
        figures[f"network of {role} (bytes per task)"] = [p.network_per_task(role) for p in plains]
    assert list(table.index) == list(figures)
    for name, (guide, hardened) in figures.items():
        row = table.loc[name]
        assert same(row["guide"], guide), name
        assert same(row["hardened"], hardened), name
        late = any(plain.manifest["lag"]["lag_p99_ns"] > 50 * MS for plain in plains)
        if late and name.startswith(("enqueue", "end-to-end")):
            assert row["hardened / guide"] == "not valid"
        else:
            assert same(row["hardened / guide"], hardened / guide, error=2 * HDR_ERROR), name


def test_queues():
    names = ("redis_list", "redis_stream", "jetstream")
    table = queues_table([load(DATA / name) for name in names])
    assert list(table.index) == list(names)
    for name, row in table.iterrows():
        plain = Plain(name)
        broker = "nats" if name == "jetstream" else "redis"
        assert number(row["tasks done"]) == plain.done
        assert same(row["done per s"], plain.done_per_s)
        assert shown_latencies(
            row["enqueue p50 / p99 (ms)"], plain.synthetic["enqueue_ns"], (0.5, 0.99)
        )
        assert shown_latencies(
            row["end-to-end p50 / p99 (ms)"], plain.synthetic["end_to_end_ns"], (0.5, 0.99)
        )
        assert same(row["broker CPU (s per million tasks)"], plain.per_million(broker))
        assert same(row["broker network (bytes per task)"], plain.network_per_task(broker))
        queues = set(plain.deliveries["queue"].dropna().astype(str))
        assert queues == {name}, "the run uses one queue alone"


def test_faults():
    plain = Plain("faults")
    table = faults_table(load(DATA / "faults"))
    begin_ns = min(step["start_ns"] for step in plain.steps)
    received = np.sort(
        plain.deliveries.loc[plain.deliveries["queue"] == "jetstream", "received_ns"]
    )
    for (name, row), fault in zip(table.iterrows(), plain.manifest["faults"], strict=True):
        assert name == f"{fault['index']} {fault['name']}"
        assert same(row["begin (s)"], (fault["begin_ns"] - begin_ns) / 1e9, error=0)
        assert same(row["length (ms)"], (fault["end_ns"] - fault["begin_ns"]) / MS, error=0)
        first = max(0, np.searchsorted(received, fault["begin_ns"]) - 1)
        last = np.searchsorted(received, fault["end_ns"], "right") + 1
        longest = np.diff(received[first:last]).max() / MS
        shown = dict(re.findall(r"(\w+ \w+) ([\d.,]*\d)", row["longest without (ms)"]))
        assert same(shown["nats receive"], longest, error=0)
        assert number(row["exposed"]) >= number(row["lost"]) + number(row["stuck"])
    assert table["lost"].map(number).sum() == len(plain.lost)
    assert len(plain.lost) > 0, "the guide acknowledges first: a killed worker loses tasks"


def test_verdicts_of_phases_are_those_of_their_tasks():
    table = phases_table([load(DATA / name) for name in ("guide", "hardened")])
    for name, column in zip(("guide", "hardened"), table.columns, strict=True):
        plain = Plain(name)
        repeats = plain.deliveries[plain.deliveries["nth"] > 1]
        for row, verdict in table[column].items():
            bad = (repeats["row"] == row).any()
            bad |= not row.startswith("→") and (plain.lost["phase"] == row).any()
            assert (verdict == "INVALID") >= bad, row
