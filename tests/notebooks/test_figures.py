"""Figures of the report's tables of phases, price and queues, computed again with plain pandas."""

import json
import re
from pathlib import Path

import pytest

pytest.importorskip("pandas", reason="the extra notebooks is not installed")

from hookbench.report import api
from hookbench.report.api import (
    answer_text,
    findings_table,
    harms_table,
    invariants_table,
    phases_table,
    price_table,
    queues_table,
    timeline_table,
    transitions_table,
    verdict_table,
    verdict_text,
)
from hookbench.results.run import load
from tests.notebooks.plain import (
    DATA,
    HDR_ERROR,
    MS,
    Plain,
    at,
    at_rounded,
    number,
    same,
    shown_latencies,
)

RUNS = ("guide", "hardened", "faults", "redis_list", "redis_stream", "jetstream")
OF_THE_LEDGER = {"explained", "of effects"}
"""Columns that follow from events that are in no table: see tests/unit/test_explanation.py and
test_effects.py."""
MADE_UP = ("test_model_plots.py", "test_searches.py", "test_growth.py")
"""Unit tests of what is no run: their figures are of models and books whose truth is known."""

NO_FIGURES = {
    "broker_settings_table",  # what brokers told of themselves
    "gates_table",  # what gates were told, in words
    "rules_table",  # the rules alone
}


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
    waiting = plain.stuck["accepted"].sum()
    twice = tasks.loc[tasks["offered"], "done_count"]
    unexpected = (~tasks["offered"]).sum()
    untold = (tasks["offered"] & ~tasks["accepted"] & (tasks["done_count"] > 0)).sum()
    assert (
        f"{offered:,} attempted, {accepted:,} acknowledged, {len(plain.lost):,} lost,"
        f" {(twice > 1).sum():,} duplicated, {untold:,} recovered, {unexpected:,} unexpected;"
        f" {plain.done:,} came out, {waiting:,} wait"
    ) in text
    answer = answer_text([run])
    assert f"{plain.done:,} of {accepted:,} accepted tasks done" in answer
    assert f"{len(plain.lost):,} lost, {len(plain.stuck):,} stuck" in answer
    again = int(re.search(r"(\d+) done again without an explanation", answer)[1])
    assert again <= repeats
    assert (again == 0) == (repeats == 0), "no repeat of these runs has an explanation"


def test_findings(both):
    plain, run = both
    repeats = plain.deliveries[plain.deliveries["nth"] > 1]
    expected = {
        ("P5", "deliver-all"): repeats["replayed"].sum(),
        ("P8", "Redis copies"): plain.left,
        ("P10", "lost"): len(plain.lost),
    }
    expected = {key: count for key, count in expected.items() if count}
    harms = harms_table([run])
    shown = {
        key: number(row.tasks)
        for key in {("P5", "deliver-all"), ("P8", "Redis copies"), ("P10", "lost")}
        for row in harms.itertuples()
        if row.hazard == key[0] and key[1] in row.what
    }
    assert shown == expected
    rows = findings_table(run)
    assert list(rows["what"]) == (list(harms["what"]) if len(harms) else [])
    for row in rows.itertuples(index=False):
        hazard, _phase, _what, example = row
        if hazard == "P10":
            assert example in set(plain.lost["id"])
        elif hazard == "P5":
            assert example in set(repeats["id"])
    for rule in invariants_table(run).itertuples():
        if rule.invariant == 1:
            assert number(rule.broken) == len(plain.lost)
        elif rule.invariant == 5:
            assert number(rule.broken) == len(plain.stuck) + plain.left


def test_length_of_each_phase(both):
    plain, run = both
    table = timeline_table([run])
    assert list(table.index) == [step["plan"]["phase"] for step in plain.steps]
    for (_phase, row), step in zip(table.iterrows(), plain.steps, strict=True):
        assert same(row["length (s)"], (step["end_ns"] - step["start_ns"]) / 1e9, error=0)


def test_every_table_and_plot_of_a_notebook_is_computed_again():
    """A figure that is new in a notebook has to stand in one of these files, or of ``MADE_UP``."""
    here = Path(__file__).parent
    used = set()
    for path in (DATA.parent).glob("*.ipynb"):
        cells = json.loads(path.read_text())["cells"]
        source = "".join(line for cell in cells for line in cell["source"])
        used |= set(re.findall(r"\b(plot_\w+|\w+_table)\b", source)) & set(api.__all__)
    used.discard("show_table")
    assert len(used) > 20
    unit = here.parent / "unit"
    files = [*here.glob("test_figures*.py"), *(unit / name for name in MADE_UP)]
    computed = "".join(path.read_text() for path in files)
    found = {name for name in used if re.search(rf"\b{name}\(", computed)}
    assert used - found == NO_FIGURES


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
        assert number(row["explained"]) <= number(row["duplicated"])
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
    assert table["left in redis"].map(number).sum() == plain.left


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


def test_verdicts_of_phases_are_those_of_their_tasks():
    table = phases_table([load(DATA / name) for name in ("guide", "hardened")])
    for name, column in zip(("guide", "hardened"), table.columns, strict=True):
        plain = Plain(name)
        repeats = plain.deliveries[plain.deliveries["nth"] > 1]
        for row, verdict in table[column].items():
            bad = (repeats["row"] == row).any()
            bad |= not row.startswith("→") and (plain.lost["phase"] == row).any()
            assert (verdict == "INVALID") >= bad, row
