"""Figures of the report's tables of faults, computed again with plain pandas.

Of the committed run with two faults, and of one by hand in which faults lose tasks, leave some
stuck, repeat some, and hold others up.
"""

import itertools
import re

import numpy as np
import pytest

pytest.importorskip("pandas", reason="the extra notebooks is not installed")

import pandas as pd

from hookbench.report.api import (
    causes_table,
    crashes_table,
    faults_table,
    unavailable_table,
    verdict_text,
)
from hookbench.results.run import load
from tests.notebooks.faulty_run import make_faulty_run
from tests.notebooks.plain import DATA, MS, Plain, number, same

UNAVAILABLE_NS = 200 * MS
MOMENT_MS = 1.0
"""A caller is told that a task is accepted a moment after its broker has it; the second of these
is in the ledger alone."""
ENDS = ("done", "dead", "superseded")


class PlainFaults(Plain):
    """Of each fault that fired, what the tables say; all times ns."""

    def __init__(self, folder):
        super().__init__(folder)
        self.faults = [item for item in self.manifest["faults"] if item["begin_ns"] is not None]
        self.begin_ns = min(step["start_ns"] for step in self.steps)
        given = self.deliveries
        moments = given[["received_ns", "started_ns", "ended_ns", "acked_ns"]]
        self.last_ns = moments.max(axis="columns")
        """Of each delivery."""
        self.last_step = moments.idxmax(axis="columns").str.removesuffix("_ns")
        names = given["worker"].astype(str)
        self.worker_last_ns = self.last_ns.groupby(names).max()
        unended = names[given["outcome"].isna()].unique()
        self.died = [name for name in unended if self.cause_of_death(name) is not None]

    def cause_of_death(self, worker):
        """Index of the fault that a worker spoke last in, of those that kill one."""
        said_ns = self.worker_last_ns[worker]
        for fault in self.faults:
            kills = fault["kind"].startswith("kill") and fault["target"].startswith("worker")
            if kills and fault["begin_ns"] <= said_ns <= fault["end_ns"]:
                return fault["index"]
        return None

    @property
    def lost_by(self):
        """The fault of each lost task: what the worker died of that had it last."""
        had = self.deliveries[self.deliveries["id"].isin(self.lost["id"])]
        had = had.sort_values("received_ns").groupby("id")["worker"].last()
        return had.astype(str).map(self.cause_of_death)

    @property
    def repeats(self):
        """Executions beyond the first with the delivery of the one before: ``_before``."""
        done = self.deliveries.assign(last=self.last_ns, last_step=self.last_step)
        done = done[done["nth"] > 0]
        again = done[done["nth"] > 1].assign(nth=lambda frame: frame["nth"] - 1)
        pairs = again.merge(done, on=["id", "nth"], suffixes=("", "_before"))
        pairs["fault"] = [
            self.cause_of_death(row.worker_before) if pd.isna(row.acked_ns_before) else None
            for row in pairs.itertuples()
        ]
        return pairs

    def exposed(self, fault):
        """Ids of tasks put before the end of a fault and not ended before it, or hit by it.

        A task without an end is in flight until the fault after its last event, and no longer.
        """
        tasks = self.tasks[self.tasks["offered"]].set_index("id")
        given = self.deliveries
        ended = given[given["outcome"].isin(ENDS)].groupby("id")["ended_ns"].min()
        last = self.last_ns.groupby(given["id"]).max()
        last = pd.concat([tasks["invoked_ns"], tasks["accepted_ns"], last], axis=1).max(axis=1)
        before = [f["begin_ns"] for f in self.faults if f["begin_ns"] < fault["begin_ns"]]
        finished = tasks["done_count"] > 0
        finished |= tasks["dead"] | tasks["superseded"]
        flying = last.reindex(tasks.index) >= max(before, default=0)
        flying[finished] = (ended.reindex(tasks.index) >= fault["begin_ns"])[finished]
        hit = {*self.lost_by.index[self.lost_by == fault["index"]]}
        repeats = self.repeats
        hit |= {*repeats.loc[repeats["fault"] == fault["index"], "id"]}
        return {*tasks.index[(tasks["invoked_ns"] <= fault["end_ns"]) & flying], *hit}

    @property
    def successes(self):
        """When puts and deliveries succeeded: the phases of these runs use NATS alone."""
        put = self.tasks["accepted_ns"].dropna()
        received = self.deliveries.loc[self.deliveries["queue"] == "jetstream", "received_ns"]
        return {
            "nats put": np.sort(put.astype("int64")),
            "nats receive": np.sort(received.astype("int64")),
        }

    def longest_ms(self, fault, moments):
        """The longest time between two of ``moments`` that reaches into a fault."""
        first = max(0, np.searchsorted(moments, fault["begin_ns"]) - 1)
        last = np.searchsorted(moments, fault["end_ns"], "right") + 1
        return np.diff(moments[first:last]).max() / MS

    def recovery_ms(self, fault):
        """To the first success after the end of a fault of a broker; ``None`` for no broker."""
        wanted = {"nats": ("put", "receive"), "producers-nats": ("put",)}.get(fault["target"])
        if wanted is None:
            return None
        after = [
            moments[np.searchsorted(moments, fault["end_ns"])]
            for name, moments in self.successes.items()
            if name.split()[1] in wanted
        ]
        return (min(after) - fault["end_ns"]) / MS


def within_a_moment(text, value_ms):
    return abs(number(text) - value_ms) <= MOMENT_MS


@pytest.fixture(scope="module", params=["committed", "by hand"])
def both(request, tmp_path_factory):
    committed = request.param == "committed"
    folder = DATA / "faults" if committed else make_faulty_run(tmp_path_factory.mktemp("faulty"))
    run = load(folder)  # which makes the tables of the second
    return PlainFaults(folder), run


def test_when_a_fault_was(both):
    plain, run = both
    table = faults_table(run)
    assert len(table) == len(plain.manifest["faults"])
    for (name, row), fault in zip(table.iterrows(), plain.manifest["faults"], strict=True):
        assert name == f"{fault['index']} {fault['name']}"
        assert row["problem"] == (fault["problem"] or "")
        if fault["begin_ns"] is None:
            assert set(row) == {"did not fire", "-", fault["problem"]}
            continue
        assert same(row["begin (s)"], (fault["begin_ns"] - plain.begin_ns) / 1e9, error=0)
        assert same(row["length (ms)"], (fault["end_ns"] - fault["begin_ns"]) / MS, error=0)


def test_tasks_that_were_exposed_and_what_became_of_them(both):
    plain, run = both
    table = faults_table(run)
    for fault in plain.faults:
        row = table.iloc[fault["index"]]
        exposed = plain.exposed(fault)
        assert number(row["exposed"]) == len(exposed) > 0
        assert number(row["lost"]) == (plain.lost_by == fault["index"]).sum()
        assert number(row["stuck"]) == plain.stuck["id"].isin(exposed).sum()
        assert number(row["done again"]) == (plain.repeats["fault"] == fault["index"]).sum()
    fired = table[table["exposed"] != "-"]
    assert fired["lost"].map(number).sum() == len(plain.lost) > 0


def test_how_long_nothing_went_and_when_it_went_again(both):
    plain, run = both
    table = faults_table(run)
    recovered = 0
    for fault in plain.faults:
        row = table.iloc[fault["index"]]
        shown = dict(re.findall(r"(\w+ \w+) ([\d.,]*\d)", row["longest without (ms)"]))
        assert shown.keys() == plain.successes.keys()
        for name, moments in plain.successes.items():
            assert within_a_moment(shown[name], plain.longest_ms(fault, moments)), name
        received = plain.longest_ms(fault, plain.successes["nats receive"])
        assert same(shown["nats receive"], received, error=0)
        expected = plain.recovery_ms(fault)
        if expected is None:
            assert row["recovery (ms)"] == "-"
        else:
            assert within_a_moment(row["recovery (ms)"], expected)
            recovered += 1
    assert recovered, "a fault of a broker is among them"


def test_the_lines_of_faults_say_what_their_table_says(both):
    plain, run = both
    lines = verdict_text(run).splitlines()
    table = faults_table(run)
    for fault in plain.faults:
        row = table.iloc[fault["index"]]
        (line,) = [text for text in lines if text.startswith(f"{fault['index']} {fault['name']} ")]
        assert f"for {row['length (ms)']} ms" in line or same(
            re.search(r"for ([\d.,]+) ms", line)[1], number(row["length (ms)"]), error=0.1
        )
        for what, column in (("lost", "lost"), ("stuck", "stuck"), ("duplicated", "done again")):
            assert f"{what} {row[column]} of {row['exposed']} exposed" in line
        for name, value in re.findall(r"(\w+ \w+) ([\d.,]*\d)", row["longest without (ms)"]):
            assert f"{value} ms without {name}" in line
        answered = f"answered {row['recovery (ms)']} ms after its end"
        assert (answered in line) == (row["recovery (ms)"] != "-")


def test_causes_of_losses_and_repeats(both):
    plain, run = both
    names = {fault["index"]: fault["name"] for fault in plain.faults}
    last = plain.deliveries.assign(step=plain.last_step).groupby("id").last()
    lost = plain.lost.set_index("id")
    found = [
        ("lost", lost["phase"][task], last["step"][task], names[fault])
        for task, fault in plain.lost_by.items()
    ]
    steps = {"acked": "ack_sent", "ended": "done", "started": "started"}
    found += [
        ("done again", row.row, row.last_step_before, names[row.fault])
        for row in plain.repeats.itertuples()
    ]
    counted = {}
    for what, phase, step, fault in found:
        key = (what, phase, steps[step], fault)
        counted[key] = counted.get(key, 0) + 1
    table = causes_table(run)
    columns = ["what", "phase", "last step before", "fault"]
    shown = table.set_index(columns)["tasks"].map(number)
    assert shown.to_dict() == counted
    assert counted, "a table without rows proves nothing"


def test_what_dead_workers_had_in_hand(both):
    plain, run = both
    table = crashes_table(run)
    assert list(table.index) == plain.died
    given = plain.deliveries.assign(worker=plain.deliveries["worker"].astype(str))
    for name, row in table.iterrows():
        own = given["worker"] == name
        in_hand = {*given.loc[own, "id"]} - {*given.loc[own & given["outcome"].isin(ENDS), "id"]}
        tasks = plain.tasks[plain.tasks["id"].isin(in_hand)]
        assert number(row["in hand"]) == len(in_hand) > 0
        assert number(row["stuck"]) == tasks["id"].isin(plain.stuck["id"]).sum()
        assert number(row["lost"]) == tasks["id"].isin(plain.lost["id"]).sum()
        assert number(row["ended by others"]) == (tasks["done_count"] > 0).sum()
        assert row["for example"] in in_hand
        died_ns = plain.worker_last_ns[name]
        later = given[~own & given["id"].isin(in_hand) & (given["started_ns"] >= died_ns)]
        restarts = later.groupby("id")["started_ns"].min() - died_ns
        shown = row["started again after p50 / max (ms)"]
        if restarts.empty:
            assert shown == "-"
            continue
        p50, most = shown.split(" / ")
        assert same(p50, restarts.quantile(0.5, "lower") / MS)
        assert same(most, restarts.max() / MS)


def test_windows_in_which_no_put_went(both):
    plain, run = both
    table = unavailable_table(run)
    accepted = plain.tasks.dropna(subset="accepted_ns").sort_values("accepted_ns")
    moments = accepted["accepted_ns"].to_numpy(dtype="int64")
    windows = []
    for low, high in itertools.pairwise(moments):
        first = accepted.loc[accepted["accepted_ns"] == high, "invoked_ns"].min()
        begin = max(low, first)
        if high - begin > UNAVAILABLE_NS:
            windows.append((begin, high - begin))
    assert len(windows) == len(table) > 0
    windows.sort(key=lambda item: -item[1])
    for (begin_ns, length_ns), row in zip(windows, table.itertuples(index=False), strict=True):
        broker, operation, length, since, phase, fault = row
        assert (broker, operation) == ("nats", "put")
        assert within_a_moment(length, length_ns / MS)
        assert same(since, (begin_ns - plain.begin_ns) / 1e9, error=0)
        inside = [step for step in plain.steps if step["start_ns"] <= begin_ns < step["end_ns"]]
        assert phase == inside[0]["plan"]["phase"]
        longest = max(plain.faults, key=lambda item: _common(item, begin_ns, begin_ns + length_ns))
        assert fault == longest["name"]


def _common(fault, begin_ns, end_ns):
    return min(fault["end_ns"], end_ns) - max(fault["begin_ns"], begin_ns)


def test_the_run_by_hand_has_every_kind_of_harm(tmp_path):
    table = faults_table(load(make_faulty_run(tmp_path)))
    kill = table.iloc[0]
    assert [kill[name] for name in ("lost", "stuck", "done again")] == ["1", "1", "1"]
    assert table.iloc[3]["begin (s)"] == "did not fire"
