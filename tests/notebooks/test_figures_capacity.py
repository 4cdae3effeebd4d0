"""Figures of the report of capacity, computed again with plain pandas from the stored answers."""

import json

import pytest

pytest.importorskip("pandas", reason="the extra notebooks is not installed")

import numpy as np
import pandas as pd

from hookbench.report.api import capacity_table, load_answers, plot_knee, trials_table
from tests.notebooks.plain import DATA, number, same

FOLDER = DATA / "capacity"
AGREE = 2
"""So many trials of a rate decide it."""


def read_trials():
    """One row per trial of each stored answer, rates in order: label, rate, sustained, p99."""
    rows = []
    for path in sorted(FOLDER.glob("*.json")):
        answer = json.loads(path.read_text())
        frame = pd.json_normalize(answer["capacity"]["judgements"], "trials")
        name = "figures.lag_p99_ms" if answer["label"] == "null" else "figures.p99_ms"
        frame["p99_ms"] = frame[name]
        frame["label"] = answer["label"]
        rows.append(frame[["label", "rate_per_s", "sustained", "p99_ms"]])
    return pd.concat(rows, ignore_index=True)


def judge(trials):
    """By rate: whether two trials agree that it is sustained, or that it is not."""
    said = trials["sustained"]
    yes, no = (said == True).sum(), (said == False).sum()  # noqa: E712 - None is neither
    return True if yes >= AGREE else False if no >= AGREE else None


@pytest.fixture(scope="module")
def trials():
    return read_trials()


@pytest.fixture(scope="module")
def judged(trials):
    return {
        label: {rate: judge(found) for rate, found in of_label.groupby("rate_per_s")}
        for label, of_label in trials.groupby("label")
    }


def interval(rates):
    """The highest rate that was sustained with all below it, and the lowest that was not."""
    low = 0
    for rate, sustained in sorted(rates.items()):
        if sustained is not True:
            return low, rate
        low = rate
    return low, None


def test_answers(judged):
    table = capacity_table(load_answers(FOLDER)).set_index("queue, durability, design")
    assert list(table.index) == sorted(judged)
    for label, row in table.iterrows():
        low, high = interval(judged[label])
        assert low > 0
        assert high is not None
        assert number(row["sustained (tasks/s)"]) == low
        assert number(row["not sustained (tasks/s)"]) == high
        assert row["width"] == f"{(high / low - 1) * 100:.0f}%"
        assert row["answer"] == "an interval"
        assert json.loads((FOLDER / f"{label}.json").read_text())["slo"] == row["objective"]


def test_every_trial(trials, judged):
    table = trials_table(load_answers(FOLDER))
    said = {"yes": True, "no": False, "says nothing": None}
    shown = [(label, number(row["rate (tasks/s)"])) for label, row in table.iterrows()]
    assert shown == [(label, rate) for label in sorted(judged) for rate in sorted(judged[label])]
    assert table["trials"].map(number).sum() == len(trials)
    for label, row in table.iterrows():
        rate = number(row["rate (tasks/s)"])
        here = trials[(trials["label"] == label) & (trials["rate_per_s"] == rate)]
        assert said[row["sustained"]] == judged[label][rate]
        parts = row["p99 of each (ms)"].split(" / ")
        for text, value in zip(parts, here["p99_ms"], strict=True):
            assert same(text, value, error=0)


def test_the_knee(trials, judged):
    axes = plot_knee(load_answers(FOLDER))
    lines = [line for line in axes.lines if line.get_linestyle() != "None"]
    curves = [line for line in lines if len(line.get_xdata())]
    assert len(curves) == len(judged)
    for line, label in zip(curves, sorted(judged), strict=True):
        medians = trials[trials["label"] == label].groupby("rate_per_s")["p99_ms"].median()
        assert list(line.get_xdata()) == list(medians.index)
        assert list(line.get_ydata()) == pytest.approx(list(medians))
        low, high = interval(judged[label])
        assert line.get_label().endswith(f": {low:,.0f} to {high:,.0f}/s")
    shades = sorted((item.get_x(), item.get_x() + item.get_width()) for item in axes.patches)
    intervals = sorted(interval(rates) for rates in judged.values())
    assert np.array(shades) == pytest.approx(np.array(intervals))
    bars = [
        (segment[0][0], sorted(point[1] for point in segment))
        for collection in axes.collections
        for segment in collection.get_segments()
    ]
    spans = trials.groupby(["label", "rate_per_s"])["p99_ms"].agg(["min", "max"]).reset_index()
    assert len(bars) == len(spans)
    for (rate, ends), row in zip(bars, spans.itertuples(), strict=True):
        assert rate == row.rate_per_s
        assert ends == pytest.approx([row.min, row.max])
    low, high = interval(judged["jetstream-lazy-guide"])
    title = " ".join(axes.get_title(loc="left").split())
    assert title == f"Sustained: jetstream {low:,.0f} to {high:,.0f}/s"
