"""What the report's plots draw and what their titles say, computed again with plain pandas.

The marks are read off the axes and held against the Parquet files, the depths that were sampled,
and what the processes used.
"""

import re

import numpy as np
import pytest

pytest.importorskip("pandas", reason="the extra notebooks is not installed")

import pandas as pd

from hookbench.report.api import (
    plot_depths,
    plot_latency,
    plot_latency_over_time,
    plot_recovery,
    plot_redeliveries,
    plot_repeats,
    plot_resources,
    plot_stuck,
    plot_throughput,
)
from hookbench.results.run import load
from tests.notebooks.drawn import (
    BIN_S,
    QUANTILES,
    PlainPlots,
    S,
    bars_of,
    close,
    close_in_text,
    edges_of,
    first_of,
    line_of,
    title_of,
)
from tests.notebooks.faulty_run import make_faulty_run
from tests.notebooks.plain import DATA, HDR_ERROR, MS, at, number

AFTER_S = 10.0
COMMITTED = ("guide", "hardened", "faults")


@pytest.fixture(scope="module", params=[*COMMITTED, "by hand"])
def both(request, tmp_path_factory):
    name = request.param
    by_hand = name == "by hand"
    folder = make_faulty_run(tmp_path_factory.mktemp("faulty")) if by_hand else DATA / name
    run = load(folder)
    return PlainPlots(folder), run


def test_throughput(both):
    plain, run = both
    axes = plot_throughput(run, freq=f"{BIN_S}s")
    for label, times in (
        ("accepted", plain.tasks["accepted_ns"]),
        ("done", plain.executions["ended_ns"]),
    ):
        seconds, rates = line_of(axes, label)
        assert rates == pytest.approx(plain.rates(times, edges_of(seconds)))
        assert rates.sum() * BIN_S == pytest.approx(times.notna().sum()), "none is left out"
    accepted = int(plain.tasks["accepted"].sum())
    length_s = (plain.end_ns - plain.begin_ns) / S
    said = f"{accepted / length_s:,.0f} tasks/s accepted on average; {plain.done:,} of {accepted:,}"
    assert title_of(axes).startswith(f"{said} done")
    again = re.search(r"; ([\d,]+) done again, up to", title_of(axes))
    assert (number(again[1]) if again else 0) == len(plain.repeats)


def test_latency_of_each_phase(both):
    plain, run = both
    axes = plot_latency(run)
    p99s = {}
    for phase, rows in plain.synthetic.groupby("phase", observed=True):
        values = rows["end_to_end_ns"].dropna()
        tail, shown = line_of(axes, phase)
        assert shown[-1] == pytest.approx(values.max() / MS, rel=HDR_ERROR)
        for quantile in QUANTILES:
            nines = -np.log10(1 - quantile)
            if nines >= tail[-1]:  # of few tasks that is the largest, which is checked
                continue
            place = np.searchsorted(tail, nines - 1e-9)
            assert close(shown[place], at(values, quantile)), (phase, quantile)
        p99s[phase] = at(values, 0.99)
    worst = max(p99s, key=p99s.get)
    said = title_of(axes)
    shown = [number(text) for text in re.findall(r"[\d.,]*\d(?= ms|(?= (?:to|and) ))", said)]
    ends = {min(p99s.values()), max(p99s.values())}
    assert all(any(close_in_text(text, value) for text in shown) for value in ends), (said, p99s)
    assert ("slowest tail" not in said) or said.startswith(worst)


@pytest.mark.parametrize("bin_s", [BIN_S, 5.0])  # of few tasks the p99 is the maximum
def test_latency_over_time(both, bin_s):
    plain, run = both
    axes = plot_latency_over_time(run, freq=f"{bin_s}s")
    rows = plain.synthetic.dropna(subset="end_to_end_ns")
    bins = ((rows["intended_ns"] - plain.begin_ns) // (bin_s * S)).astype(int)
    found = rows.groupby(bins)["end_to_end_ns"]
    for label, quantile in (("p50", 0.5), ("p99", 0.99), ("maximum", 1.0)):
        seconds, shown = line_of(axes, label)
        known = ~np.isnan(shown)
        expected = [at(values, quantile) for _bin, values in found]
        assert np.round((seconds[known] - bin_s / 2) / bin_s).astype(int).tolist() == list(
            found.groups
        )
        assert close(shown[known], expected), label
    p99s = [at(values, 0.99) for _bin, values in found]
    words = re.findall(r"([\d.,]*\d) ms", title_of(axes))
    assert close_in_text(number(words[0]), np.median(p99s))
    assert close_in_text(number(words[-1]), max(p99s))


def test_depths(both):
    plain, run = both
    axes = plot_depths(run)
    text = (plain.folder / "samples.jsonl").read_text()
    if not text:
        assert title_of(axes) == "No depth was sampled"
        return
    samples = pd.read_json(plain.folder / "samples.jsonl", lines=True)
    names = {
        "redis_pending": "Redis list, pending",
        "redis_work": "Redis work list",
        "ack_pending": "JetStream, ack pending",
    }
    shown = 0
    for name, label in names.items():
        if name in samples and samples[name].notna().any():
            seconds, depth = line_of(axes, label)
            assert seconds == pytest.approx((samples["time_ns"] - plain.begin_ns) / S)
            assert depth == pytest.approx(samples[name].to_numpy(dtype=float), nan_ok=True)
            shown += 1
    unread = samples["consumer_pending"].fillna(samples["stream"])
    _seconds, depth = line_of(axes, "JetStream, not delivered")
    assert depth == pytest.approx(unread.to_numpy(dtype=float), nan_ok=True)
    assert shown == 3
    grown = re.search(r"Redis list grew to ([\d,]+) copies", title_of(axes))
    assert not grown or number(grown[1]) == samples["redis_pending"].max()
    replayed = re.search(r"([\d,]+) tasks replayed", title_of(axes))
    assert (number(replayed[1]) if replayed else 0) == plain.repeats["replayed"].sum()


def test_repeats(both):
    plain, run = both
    axes = plot_repeats(run)
    shown = {}
    for (_cause, name), length in bars_of(axes).items():
        shown[name] = shown.get(name, 0) + length
    assert shown == plain.repeats["row"].astype(str).value_counts().to_dict()
    numbers = [number(text.get_text()) for text in axes.texts]
    assert sum(numbers) == len(plain.repeats)
    none = f"None of {plain.done:,} tasks was done twice"
    said = title_of(axes)
    assert said == none or said.startswith(f"{len(plain.repeats):,} repeated executions, ")
    assert (said == none) == plain.repeats.empty


def test_stuck_and_left(both):
    plain, run = both
    axes = plot_stuck(run)
    shown = bars_of(axes)
    left = sum(length for (_phase, name), length in shown.items() if "copies left" in name)
    assert left == plain.left
    by_phase = {}
    for (phase, name), length in shown.items():
        if "copies left" not in name:
            by_phase[phase] = by_phase.get(phase, 0) + length
    assert by_phase == plain.stuck["phase"].astype(str).value_counts().to_dict()
    for text in (name for _phase, name in shown if "copies left" not in name):
        place = text.split(",")[0]
        lying = set(plain.manifest["residue"]["places"][place])
        assert plain.stuck["id"].isin(lying).any()
    offered, stuck = int(plain.tasks["offered"].sum()), len(plain.stuck)
    said = f"{stuck:,} of {offered:,} tasks stuck" if stuck else f"No task of {offered:,} is stuck"
    assert title_of(axes).startswith(said)
    assert (f"{plain.left:,} copies" in title_of(axes)) == (plain.left > 0)


def test_redeliveries(both):
    plain, run = both
    axes = plot_redeliveries(run, after_s=AFTER_S)
    title = title_of(axes)
    if plain.redelivered.empty and plain.repeats.empty:
        assert title == "Nothing was redelivered, nothing done again"
        return
    phases = bars_of(first_of(axes))
    redelivered = plain.redelivered["phase"].astype(str).value_counts().to_dict()
    again = plain.repeats["row"].astype(str).value_counts().to_dict()
    for label, expected in (("redelivered by its queue", redelivered), ("done again", again)):
        assert {name: value for (of, name), value in phases.items() if of == label} == expected
    said = f"{len(plain.redelivered):,} redelivered, {len(plain.repeats):,} done again; most "
    assert title.startswith(said)
    if not plain.faults:
        assert not isinstance(axes, list)
        return
    moments = plain.redelivered["received_ns"]
    shown = bars_of(axes[1])
    for kind in {fault["kind"] for fault in plain.faults}:
        inside = np.zeros(len(moments), dtype=bool)
        here = [fault for fault in plain.faults if fault["kind"] == kind]
        for fault in here:
            inside |= moments.between(fault["begin_ns"], fault["end_ns"] + AFTER_S * S)
        key = ("redelivered by its queue", f"{kind} ({len(here)})")
        assert shown.get(key, 0) == inside.sum()


def test_cost_of_a_run_in_which_not_all_was_done(both):
    plain, run = both
    offered = int(plain.tasks["offered"].sum())
    assert plain.done < offered or run.manifest.run[:4] in {"0001", "0002"}
    panel = plot_resources([run])[0]
    shown = {name: length for (_label, name), length in bars_of(panel).items()}
    used = plain.used("cpu_s") / plain.done * 1e3
    assert shown == pytest.approx(used.to_dict())


def test_recovery(both):
    plain, run = both
    axes = plot_recovery(run)
    if not plain.faults:
        assert title_of(axes) == "No fault fired"
        return
    rows = [text.get_text().replace("\n", " ") for text in axes.get_yticklabels()]
    assert rows == [f"{fault['index']} {fault['name']}" for fault in plain.faults]
    given = plain.deliveries.loc[plain.deliveries["queue"] == "jetstream", "received_ns"]
    puts = plain.tasks["accepted_ns"]
    dots = [line for line in axes.lines if len(line.get_xdata()) == len(plain.faults)]
    assert len(dots) == 3
    accepted, done, answered = (np.asarray(line.get_xdata(), dtype=float) for line in dots)
    for place, fault in enumerate(plain.faults):
        expected = plain.longest_s(plain.tasks["accepted_ns"], fault)
        assert accepted[place] == pytest.approx(expected)
        assert done[place] == pytest.approx(plain.longest_s(plain.executions["ended_ns"], fault))
        # A moment lies between what the broker took and what the caller was told.
        both_kinds = {"nats": [given, puts], "producers-nats": [puts]}.get(fault["target"], [])
        after = [times[times >= fault["end_ns"]].min() for times in both_kinds]
        if after:
            assert answered[place] == pytest.approx((min(after) - fault["end_ns"]) / S, abs=1e-3)
        else:
            assert np.isnan(answered[place])
    worst = np.nanmax(done)
    text = f"{worst * 1e3:,.0f} ms" if worst < 1 else f"{worst:,.1f} s"
    assert f"no task done for {text}" in title_of(axes)
