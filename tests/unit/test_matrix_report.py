"""What a matrix came to: intervals of known data, cells that are not known, tables and plots."""

import uuid

import msgspec
import pytest

pytest.importorskip("pandas", reason="the extra notebooks is not installed")

import numpy as np
import pandas as pd

from hookbench.brokers.durability import Durability
from hookbench.errors import ResultsError
from hookbench.ledger.events import Broker, Event, LedgerWriter
from hookbench.ledger.model import Account, Crash, Finding, StepAccount, Verdict
from hookbench.ledger.read import read_ledger
from hookbench.rehearsal.counted import CountedTasks
from hookbench.rehearsal.matrix_book import MatrixBook, SessionRecord, TrialRecord
from hookbench.rehearsal.matrix_figures import disturbed, measure_trial
from hookbench.rehearsal.matrix_plan import (
    KINDS,
    MatrixPlan,
    cell_settings,
    new_stored_plan,
    save_stored_plan,
)
from hookbench.report.matrix import (
    Interval,
    are_apart,
    interval_of,
    load_summary,
    trials_frame,
)
from hookbench.report.matrix_fates import fates_finding, plot_matrix_redelivery
from hookbench.report.matrix_files import write_matrix_files
from hookbench.report.matrix_plots import (
    latency_finding,
    plot_matrix_latency,
    plot_matrix_throughput,
    throughput_finding,
)
from hookbench.report.matrix_tables import as_markdown, class_rows, interval_text, rate_text
from hookbench.report.style import figure_of
from hookbench.results.store import MANIFEST_SCHEMA, Manifest, ResourceUse
from tests.plot_checks import check_texts, check_units
from tests.run_by_hand import ENVIRONMENT

MS = 1_000_000
START = 100_000 * MS

PLAN = MatrixPlan(
    queues=("redis_list", "jetstream"),
    phases=("dual_write",),
    durability=(Durability.LAZY, Durability.FSYNC),
    payload=(64,),
    kinds=("throughput", "latency"),
    repeats=5,
    seed=3,
)
CALM = ("throughput", "latency")
DONE = {
    "redis_list": 1000.0,
    "redis_stream": 1500.0,
    "jetstream": 2000.0,
    "dual_write": 500.0,
    "dual_read": 700.0,
    "nats_primary": 900.0,
}
FATES = {
    "redis_list": {"in_hand": 10.0, "ended": 0.0, "stuck": 9.0, "lost": 1.0},
    "jetstream": {"in_hand": 8.0, "ended": 8.0, "stuck": 0.0, "lost": 0.0,
                  "restart_p50_ms": 30_000.0, "restart_max_ms": 31_000.0},
    "dual_write": {"in_hand": 5.0, "ended": 5.0, "stuck": 0.0, "lost": 0.0,
                   "restart_p50_ms": 12.5, "restart_max_ms": 14.0},
}  # fmt: skip
COSTS = {
    "done": 100.0,
    "redelivered": 0.0,
    "duplicated": 0.0,
    "broker_cpu_us": 50.0,
    "worker_cpu_us": 70.0,
    "producer_cpu_us": 90.0,
}


def figures_of(trial):
    """Of repeats 1 to 5 around a known value."""
    value = DONE[trial.cell.route] * (1 + 0.01 * (trial.repeat - 3))
    if trial.kind == "throughput":
        return {"done_per_s": value, "accepted_per_s": value, **COSTS}
    if trial.kind == "redelivery":
        return {**FATES[trial.cell.route], **COSTS, "redelivered": 5.0, "duplicated": 2.0}
    names = ("p50_ms", "p99_ms", "p999_ms", "max_ms", "enqueue_p50_ms", "enqueue_p99_ms")
    return {**dict.fromkeys(names, value / 100), "growth_share": 0.0, "lag_p99_ms": 1.0, **COSTS}


def make(folder, *, plan=PLAN, change=lambda _trial: {}, leave=lambda _trial: False):
    """The folder of a matrix whose figures are known."""
    stored = new_stored_plan(plan)
    folder.mkdir(exist_ok=True)
    save_stored_plan(folder, stored)
    book = MatrixBook(folder, stored)
    book.add(SessionRecord(started="2026-01-01T00:00:00Z", environment=ENVIRONMENT))
    for index, trial in enumerate(stored.trials):
        if leave(trial):
            continue
        record = TrialRecord(
            index=index,
            trial=trial,
            attempt=1,
            session=len(book.sessions),
            verdict=Verdict.VALID,
            seconds=6.0,
            load_average=0.5,
            figures=figures_of(trial),
            brokers=("redis-server 8", "nats-server 2"),
        )
        book.add(msgspec.structs.replace(record, **change(trial)))
    return book


def test_the_interval_of_known_data():
    assert interval_of([], seed=1) is None
    assert interval_of([4.0], seed=1) == Interval(median=4.0, low=None, high=None, count=1)
    assert interval_of([2.0] * 5, seed=1) == Interval(median=2.0, low=2.0, high=2.0, count=5)
    few = interval_of([1.0, 2.0, 3.0, 4.0, 100.0], seed=1)
    assert few == Interval(median=3.0, low=1.0, high=100.0, count=5)
    assert interval_of([1.0, 2.0, 3.0, 4.0, 100.0], seed=1) == few


def test_the_interval_covers_the_true_median_about_as_often_as_it_says():
    rng = np.random.default_rng(5)
    found = [interval_of(list(rng.normal(10, 1, 15)), seed=1) for _ in range(60)]
    covered = sum(item.low <= 10 <= item.high for item in found)
    assert 50 <= covered < 60
    assert all(item.high - item.low < 3 for item in found)


def test_intervals_are_apart_where_they_do_not_touch_and_there_are_enough_repeats():
    def of(low, high, count=5):
        return Interval(median=(low + high) / 2, low=low, high=high, count=count)

    assert are_apart(of(1, 2), of(3, 4))
    assert are_apart(of(3, 4), of(1, 2))
    assert not are_apart(of(1, 3), of(3, 4))
    assert not are_apart(of(1, 2, count=3), of(3, 4))
    assert not are_apart(Interval(median=1, low=None, high=None, count=1), of(3, 4))


def test_a_whole_matrix_has_every_cell_with_its_interval(tmp_path):
    make(tmp_path)
    summary, _book = load_summary(tmp_path)
    assert (summary.made, summary.planned, summary.verdict) == (60, 60, Verdict.VALID)
    assert len(summary.cells) == 6
    for item in summary.cells:
        value = DONE[item.cell.route]
        found = item.kinds["throughput"].figures["done_per_s"]
        expected = (value, pytest.approx(0.98 * value), pytest.approx(1.02 * value), 5)
        assert (found.median, found.low, found.high, found.count) == expected
    assert throughput_finding(summary).endswith("2 times (lazy), 2 times (fsync)")
    assert latency_finding(summary).endswith("64 B: jetstream (lazy), jetstream (fsync)")
    rows = class_rows(summary, Durability.LAZY, CALM)
    assert [row[0] for row in rows] == ["redis_list", "jetstream", "dual_write"]
    assert rows[0][2] == "1,000 (980 to 1,020)"
    assert rows[0][-1] == "0 of 1,000"
    text = as_markdown(summary)
    assert text.index("## lazy") < text.index("## fsync")
    assert text.count("| `redis_list`") == 2, "a table for each class"


def test_what_is_unknown_is_shown_and_never_left_out(tmp_path):
    def change(trial):
        if trial.cell.route == "jetstream" and trial.kind == "throughput":
            return {"verdict": Verdict.UNKNOWN, "figures": {}, "why": "it rained", "again": True}
        if trial.cell.route == "redis_list" and trial.repeat == 2:
            return {"verdict": Verdict.INVALID, "why": "3 lost", "again": True, "hazards": ("R1",)}
        if trial.cell.route == "dual_write":
            return {"verdict": Verdict.INVALID, "hazards": ("P8",), "why": "left"}
        return {}

    make(tmp_path, change=change, leave=lambda trial: trial.cell.durability == "fsync")
    summary, _book = load_summary(tmp_path)
    assert (summary.made, summary.planned, summary.verdict) == (30, 60, Verdict.UNKNOWN)
    text = as_markdown(summary)
    (lazy,) = [row for row in class_rows(summary, Durability.LAZY, CALM) if row[0] == "jetstream"]
    assert lazy[2:4] == ["unknown*", "unknown*"]
    assert "jetstream, 64 B, throughput: 5 of 5 unknown: it rained" in text
    assert "redis_list, 64 B, latency: 1 of 5 invalid: 3 lost" in text
    assert "dual_write, 64 B, throughput: 5 of 5 invalid: P8" in text
    fsync = class_rows(summary, Durability.FSYNC, CALM)
    assert len(fsync) == 3
    assert {text for row in fsync for text in row[2:-1]} == {"unknown*"}
    assert "dual_write, 64 B, latency: 5 of 5 not made yet" in text
    assert throughput_finding(summary) == "Tasks done per second at saturation"


def test_a_rate_that_is_not_sustained_is_said(tmp_path):
    def change(trial):
        grown = {**figures_of(trial), "growth_share": 0.2}
        return {"figures": grown} if trial.kind == "latency" else {}

    make(tmp_path, change=change)
    text = as_markdown(load_summary(tmp_path)[0])
    assert text.count("the backlog grew by 20.0% of what was offered") == 6


def test_the_files_of_a_matrix(tmp_path):
    book = make(tmp_path, leave=lambda trial: trial.repeat == 5 and trial.kind == "latency")
    other = msgspec.structs.replace(ENVIRONMENT, commit="def5678")
    book.add(SessionRecord(started="2026-01-02T00:00:00Z", environment=other))
    summary, paths = write_matrix_files(tmp_path)
    assert {path.name for path in paths} == {
        "matrix.json", "matrix.md", "matrix.parquet", "throughput.png", "latency.png"
    }  # fmt: skip
    assert summary.changes == ["session 2 (2026-01-02T00:00:00Z): commit abc1234 → def5678"]
    assert "changed meanwhile, in session 2" in (tmp_path / "matrix.md").read_text()
    frame = pd.read_parquet(tmp_path / "matrix.parquet")
    assert len(frame) == summary.made == 54
    assert frame["stands"].all()
    assert frame.groupby("kind")["p99_ms"].count().to_dict() == {"latency": 24, "throughput": 0}
    for name in ("throughput.png", "latency.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    whole = msgspec.json.decode((tmp_path / "matrix.json").read_bytes())
    assert len(whole["cells"]) == 6


def test_plots_have_every_cell_and_a_star_where_there_is_a_note(tmp_path):
    def change(trial):
        if trial.cell.route == "jetstream" and trial.kind == "throughput":
            return {"verdict": Verdict.UNKNOWN, "figures": {}, "why": "it rained", "again": True}
        return {}

    make(tmp_path, change=change)
    summary, _book = load_summary(tmp_path)
    axes = plot_matrix_throughput(summary)
    labels = [item.get_text() for item in axes.get_yticklabels()]
    routes = ["redis_list", "jetstream", "dual_write"]
    assert labels == ["lazy", *routes, "fsync", *routes]
    assert [item.get_text() for item in axes.texts] == ["1,000", "unknown*", "500"] * 2
    assert axes.get_xlabel().endswith("* with a note in the tables")
    axes = plot_matrix_latency(summary)
    labels = [item.get_text() for item in axes.get_yticklabels()]
    assert labels[1:4] == ["redis_only, redis_list", "dual_write", "nats_only, jetstream"]
    assert [item.get_text() for item in axes.texts][:3] == ["10.0", "5.00", "20.0"]
    assert "*" not in axes.get_xlabel()


@pytest.mark.parametrize(
    "plot", [plot_matrix_throughput, plot_matrix_latency, plot_matrix_redelivery]
)
def test_no_text_of_a_plot_of_a_matrix_is_cut_off_and_its_axes_have_units(plot, tmp_path):
    every = ("redis_list", "redis_stream", "jetstream")
    phases = ("dual_write", "dual_read", "nats_primary")
    classes = (Durability.MEMORY, Durability.LAZY, Durability.FSYNC)
    plans = [
        PLAN,
        msgspec.structs.replace(
            PLAN, queues=every, phases=phases, durability=classes, payload=(64, 4096)
        ),
        msgspec.structs.replace(PLAN, queues=("jetstream",), phases=(), repeats=1),
        msgspec.structs.replace(PLAN, kinds=("latency",)),
        KILLED,
    ]
    for number, plan in enumerate(plans):
        make(tmp_path / str(number), plan=plan)
        summary, _book = load_summary(tmp_path / str(number))
        figure = figure_of(plot(summary))
        check_texts(figure)
        check_units(figure)


def test_trials_beside_others_have_a_note(tmp_path):
    def change(trial):
        busy = trial.cell.route == "jetstream" and trial.repeat < 3
        return {"others_cores": 0.75 if busy else 0.04}

    make(tmp_path, change=change)
    summary, book = load_summary(tmp_path)
    assert summary.others_cores == (0.04, 0.75)
    text = as_markdown(summary)
    assert "others kept 0.04 cores busy beside a trial in the median, at most 0.75" in text
    note = "jetstream, 64 B, latency: 2 of 5 beside others, who kept 0.8 cores busy"
    assert text.count(note) == 2
    assert "redis_list, 64 B, latency: " not in text
    assert sorted(set(trials_frame(book)["others_cores"])) == [0.04, 0.75]


KILLED = msgspec.structs.replace(PLAN, kinds=("latency", "redelivery"))


def test_what_became_of_tasks_in_hand_is_added_up_over_the_repeats(tmp_path):
    def change(trial):
        first = trial.repeat == 1 and trial.kind == "redelivery"
        if first and trial.cell.route == "dual_write":  # nothing was started again in this one
            return {"figures": {**FATES["redis_list"], **COSTS}}
        if first and trial.cell.route == "jetstream":
            return {"verdict": Verdict.UNKNOWN, "figures": {}, "why": "it rained"}
        return {}

    make(tmp_path, plan=KILLED, change=change)
    summary, _book = load_summary(tmp_path)
    rows = {row[0]: row for row in class_rows(summary, Durability.LAZY, ("redelivery",))}
    assert rows["redis_list"][2:] == ["50", "0", "45", "5", "10", "-", "25 of 500"]
    assert rows["jetstream"][2:7] == ["32", "32", "0", "0", "8"]
    assert rows["jetstream"][7] == "30,000 (30,000 to 30,000)*", "with a note: one is unknown"
    assert rows["dual_write"][2:] == ["30", "20", "9", "1", "8", "12.5 (12.5 to 12.5)", "20 of 500"]
    calm = {row[0]: row for row in class_rows(summary, Durability.LAZY, ("latency",))}
    assert calm["redis_list"][-1] == "0 of 500", "what kills did is not in the table without them"
    text = as_markdown(summary)
    assert text.count("in hand at a kill |") == text.count("p99 ms |") == 2
    assert "a worker that is killed 2 times" in text
    frame = pd.read_parquet(write_matrix_files(tmp_path)[1][2])
    assert frame["in_hand"].sum() == sum(cell.kinds["redelivery"].in_hand for cell in summary.cells)
    assert (tmp_path / "redelivery.png").read_bytes().startswith(b"\x89PNG")


def test_the_plot_of_redelivery_has_each_share_and_says_where_tasks_went(tmp_path):
    make(tmp_path, plan=KILLED, leave=lambda trial: trial.cell.durability == "fsync")
    summary, _book = load_summary(tmp_path)
    axes = plot_matrix_redelivery(summary)
    assert [item.get_text() for item in axes.texts] == [
        "of 50", "of 25, after 12.5 ms", "of 40, after 30.0 s", *["unknown"] * 3
    ]  # fmt: skip
    widths = {
        (round(bar.get_y() + bar.get_height() / 2), bar.get_facecolor()[:3]): bar.get_width()
        for bar in axes.patches
        if bar.get_width()
    }
    first = sorted(width for (row, _colour), width in widths.items() if row == 1)
    assert first == pytest.approx([0.1, 0.9])
    assert fates_finding(summary) == (
        "Tasks of killed workers: lost in redis_list; stuck in redis_list"
    )
    make(tmp_path / "2", plan=KILLED, leave=lambda trial: trial.cell.route == "redis_list")
    assert fates_finding(load_summary(tmp_path / "2")[0]) == (
        "130 of 130 tasks that killed workers had in hand were ended by others"
    )
    make(tmp_path / "3", plan=KILLED, leave=lambda _trial: True)
    assert "What became of" in fates_finding(load_summary(tmp_path / "3")[0])


def test_a_kind_that_was_not_measured_is_said_in_place_of_its_plot(tmp_path):
    make(tmp_path, plan=msgspec.structs.replace(PLAN, kinds=("latency",)))
    summary, _book = load_summary(tmp_path)
    for plot in (plot_matrix_throughput, plot_matrix_redelivery):
        assert "The matrix has no trials of" in plot(summary).texts[0].get_text()
    assert "done per s" not in as_markdown(summary)


def test_a_folder_without_a_matrix_or_a_trial_is_said(tmp_path):
    with pytest.raises(ResultsError, match=r"no plan\.json; hookbench matrix --out"):
        load_summary(tmp_path)
    make(tmp_path, leave=lambda _trial: True)
    with pytest.raises(ResultsError, match="no trial was made yet"):
        write_matrix_files(tmp_path)
    assert not (tmp_path / "matrix.json").exists()


def test_one_repeat_has_no_interval():
    one = Interval(median=12.0, low=None, high=None, count=1)
    assert interval_text(one, rate_text) == "12"


# What a trial measures, of a ledger that is written by hand.


NONE = ("accepted", "refused", "doubtful", "dead", "lost", "stuck", "duplicated", "explained",
        "left", "junk")  # fmt: skip


def account(**changes):
    values = {
        "rows": [StepAccount(name="redis_only", step=0, transition=False, redelivered=3)],
        "findings": [],
        "tasks": 7,
        "done": 4,
        **dict.fromkeys(NONE, 0),
        "pushed_tasks": 0,
        "push_to_done_ns": None,
        "torn": 0,
        "crashes": [],
        **changes,
    }
    return Account(**values)


class Ticks:
    """A clock that stands where the test puts it."""

    now_ns = START

    def monotonic_ns(self):
        return self.now_ns


def write_ledger(folder, *, lag_ns):
    """A task every 200 ms from 0 to 1,200 ms, done 10 ms after its put, each 1 ms slower."""
    folder.mkdir()
    clock = Ticks()
    roles = {"producer": 1, "worker": 2}
    writers = {
        role: LedgerWriter(folder, role=role, writer=number, clock=clock, capacity=64)
        for role, number in roles.items()
    }
    for number in range(7):
        task = uuid.UUID(int=0x0192_F300_0000_7000_8000_0000_0000_0000 + number).bytes
        due_ns = START + number * 200 * MS
        clock.now_ns = due_ns + lag_ns
        writers["producer"].record(Event.PUT_INVOKED, task=task, value=due_ns)
        clock.now_ns += MS
        writers["producer"].record(Event.ACCEPTED, task=task)
        clock.now_ns += (9 + number) * MS
        writers["worker"].record(Event.RECEIVED, task=task, broker=Broker.REDIS, attempt=1)
        writers["worker"].record(Event.DONE, task=task, broker=Broker.REDIS)
    for writer in writers.values():
        writer.close()


@pytest.fixture
def trial_of(tmp_path):
    """A trial of 1.2 s, the second half of which counts."""

    def make_one(kind, *, lag_ms=0, verdict=Verdict.VALID, seconds=1.2, **changes):
        plan = msgspec.structs.replace(PLAN, kinds=KINDS, seconds=seconds, warm_up_s=0.6)
        stored = new_stored_plan(plan)
        write_ledger(tmp_path / "ledger", lag_ns=lag_ms * MS)
        cpu_s = {"redis": 0.1, "nats": 0.3, "worker-0": 0.4, "harness": 9}
        manifest = Manifest(
            schema=MANIFEST_SCHEMA,
            run="0001-abc1234",
            status="complete",
            design="guide",
            seed=7,
            durability="lazy",
            settings={},
            environment=ENVIRONMENT,
            started="2026-01-01T00:00:00Z",
            brokers=["redis-server 8", "nats-server 2"],
            verdict=verdict,
            account=account(**changes),
            resources=[
                ResourceUse(name=name, processes=1, cpu_s=value, rss_max_bytes=1, read_bytes=0,
                            written_bytes=0)
                for name, value in cpu_s.items()
            ],
        )  # fmt: skip
        index, trial = next(
            (index, item)
            for index, item in enumerate(stored.trials)
            if item.kind == kind and item.cell.route == "redis_list"
        )
        blank = TrialRecord(
            index=index, trial=trial, attempt=1, session=1, verdict=Verdict.UNKNOWN, seconds=0,
            load_average=0,
        )  # fmt: skip
        tasks = CountedTasks(read_ledger(tmp_path / "ledger"), warm_up_s=0.6)
        settings = cell_settings(stored.plan, trial, out=tmp_path)
        return measure_trial(blank, tasks, manifest, settings)

    return make_one


def test_a_trial_beside_others_is_made_again_and_keeps_its_figures(trial_of):
    found = trial_of("throughput")
    calm = disturbed(found, 0.3, most=0.3)
    assert (calm.again, calm.why, calm.others_cores) == (False, "", 0.3)
    busy = disturbed(found, 0.32, most=0.3)
    assert (busy.again, busy.why) == (True, "others kept 0.3 cores busy beside it")
    assert busy.figures == found.figures
    late = msgspec.structs.replace(found, why="late")
    assert disturbed(late, 1.0, most=0.3).why == "late; others kept 1.0 cores busy beside it"


def test_throughput_is_of_the_window_alone(trial_of):
    found = trial_of("throughput")
    assert (found.verdict, found.again, found.why) == (Verdict.VALID, False, "")
    # The window is 600 to 1,200 ms. In it tasks 3, 4 and 5 are put and done; task 6, put at its
    # end, does not count.
    assert found.figures["accepted_per_s"] == pytest.approx(3 / 0.6, abs=0.01)
    assert found.figures["done_per_s"] == pytest.approx(3 / 0.6, abs=0.01)
    assert found.figures["broker_cpu_us"] == 100_000
    assert found.figures["worker_cpu_us"] == 100_000
    assert found.figures["producer_cpu_us"] == 0
    assert found.figures["redelivered"] == 3
    assert found.brokers == ("redis-server 8", "nats-server 2")


def test_latency_is_from_the_intended_time_and_without_the_warm_up(trial_of):
    figures = trial_of("latency", lag_ms=5).figures
    # Tasks 3 to 6: 13 to 16 ms from their put until done, and 5 ms late.
    assert figures["p50_ms"] == pytest.approx(19, abs=0.1)
    assert figures["max_ms"] == pytest.approx(21, abs=0.1)
    assert figures["enqueue_p99_ms"] == pytest.approx(6, abs=0.1)
    assert figures["lag_p99_ms"] == pytest.approx(5)


def test_producers_that_were_late_say_nothing_about_latency(trial_of):
    found = trial_of("latency", lag_ms=51)
    assert (found.verdict, found.again, found.figures) == (Verdict.UNKNOWN, True, {})
    assert "the producers were late (p99 51.0 ms, bound 50 ms)" in found.why


def crash(**changes):
    values = {"writer": "worker.00001", "in_hand": 4, "done_by_others": 1, "stuck": 2, "lost": 1,
              "examples": []}  # fmt: skip
    return Crash(**values | changes)


def test_redelivery_is_what_became_of_the_tasks_of_those_that_were_killed(trial_of):
    found = trial_of(
        "redelivery",
        verdict=Verdict.INVALID,
        stuck=2,
        lost=1,
        crashes=[crash(), crash(in_hand=3, done_by_others=3, stuck=0, lost=0)],
        redelivery_ns={"p50": 20 * MS, "p99": 30 * MS, "max": 31 * MS},
    )
    assert (found.verdict, found.again, found.why) == (Verdict.INVALID, False, "1 lost; 2 stuck")
    fates = {"in_hand": 7, "ended": 4, "stuck": 2, "lost": 1}
    assert {name: found.figures[name] for name in fates} == fates
    assert (found.figures["restart_p50_ms"], found.figures["restart_max_ms"]) == (20, 31)
    assert "p99_ms" not in found.figures


@pytest.mark.parametrize("crashes", [[], [crash(in_hand=0, done_by_others=0, stuck=0, lost=0)]])
def test_workers_that_had_nothing_in_hand_say_nothing(trial_of, crashes):
    found = trial_of("redelivery", crashes=crashes)
    assert (found.verdict, found.again, found.figures) == (Verdict.UNKNOWN, True, {})
    assert found.why == "no worker that was killed had a task in hand"


def test_a_load_that_began_late_says_nothing(trial_of):
    found = trial_of("throughput", seconds=1.4)
    assert (found.verdict, found.again, found.figures) == (Verdict.UNKNOWN, True, {})
    assert "the load lasted 0.6 s after the warm-up, in place of 0.8 s" in found.why


def finding(hazard):
    return Finding(
        hazard=hazard, row="redis_only", count=3, text="3 copies left", examples=[], invariant=8
    )


def test_tasks_that_went_wrong_are_a_reason_to_make_a_trial_again(trial_of):
    found = trial_of("latency", verdict=Verdict.INVALID, lost=2, findings=[finding("R1")])
    assert (found.verdict, found.again, found.why) == (Verdict.INVALID, True, "2 lost")
    assert found.figures["p50_ms"] > 0


def test_a_hazard_that_costs_no_task_is_shown_and_not_made_again(trial_of):
    found = trial_of("throughput", verdict=Verdict.INVALID, findings=[finding("P8")])
    assert (found.verdict, found.again, found.hazards) == (Verdict.INVALID, False, ("P8",))
    assert found.why == "3 copies left"


def test_an_unknown_run_has_no_figures(trial_of):
    found = trial_of("throughput", verdict=Verdict.UNKNOWN)
    assert (found.verdict, found.again, found.figures) == (Verdict.UNKNOWN, True, {})
