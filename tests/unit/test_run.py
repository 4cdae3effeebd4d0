"""A stored run as frames, from ledgers written by hand, so that every figure is known."""

import importlib
import inspect
import uuid

import pytest

pytest.importorskip("pandas", reason="the extra notebooks is not installed")

import hookbench
from hookbench.errors import LedgerError, ResultsError, SettingError
from hookbench.ledger.events import Broker, Event
from hookbench.migration.phases import Phase
from hookbench.report.plots import plot_depths, plot_latency, plot_repeats, plot_throughput
from hookbench.report.summary import describe_run, findings_table, verdict_table, verdict_text
from tests.run_by_hand import MS, START, RunByHand, S

PLOTS = (plot_throughput, plot_latency, plot_depths, plot_repeats)


@pytest.fixture
def run(tmp_path):
    def make(*phases):
        return RunByHand(tmp_path / "0001-abc1234", phases or tuple(Phase))

    return make


@pytest.fixture
def ids():
    return [uuid.UUID(int=0x0192_F300_0000_7000_8000_0000_0000_0000 + i) for i in range(20)]


def texts_of(axes):
    return [text.get_text() for text in axes.texts] + [axes.get_title(loc="left")]


def test_task_columns_hold_what_happened_to_each_task(run, ids):
    made = run()
    made.put(ids[0], 10 * MS, lag_ns=4 * MS)
    made.do(ids[0], 20 * MS, Broker.REDIS)
    made.put(ids[1], 30 * MS, writer="hook-77.3")
    made.at("producer.1", 40 * MS, Event.PUT_INVOKED, ids[2], value=START + 40 * MS)
    made.at("producer.1", 41 * MS, Event.REFUSED, ids[2])
    made.do(ids[3], 50 * MS, Broker.NATS)  # nobody put it in
    tasks = made.store().tasks.set_index("id").sort_index()
    assert list(tasks.index) == [str(item) for item in ids[:4]]
    first, pushed, refused, foreign = (tasks.loc[str(item)] for item in ids[:4])
    assert (first["phase"], first["step"], first["done_step"]) == ("redis_only", 0, 0)
    assert first["intended_ns"] == START + 6 * MS
    assert first["enqueue_ns"] == 5 * MS
    assert first["end_to_end_ns"] == 15 * MS
    assert first["done_ns"] == START + 21 * MS
    assert (first["deliveries"], first["done_count"]) == (1, 1)
    assert pushed["pushed"]
    assert not first["pushed"]
    assert tasks["done_ns"].isna().tolist() == [False, True, True, False]
    assert pushed["done_count"] == 0
    assert refused["refused"]
    assert not refused["accepted"]
    assert not foreign["offered"]
    assert tasks["end_to_end_ns"].isna().tolist() == [False, True, True, True]
    assert tasks["phase"].isna().tolist() == [False, False, False, True]


def test_seconds_count_from_the_load_and_not_from_its_preparation(run, ids):
    made = run(Phase.REDIS_ONLY)
    made.at("harness.0", -1_500 * MS, Event.PHASE, value=0)
    made.put(ids[0], 10 * MS)
    frames = made.store()
    assert frames.origin_ns == START
    assert frames.phases["start_s"].tolist() == [0.0]


def test_repeats_count_for_their_phase_or_transition_and_cause(run, ids):
    made = run()
    made.put(ids[0], 1 * S + MS)  # replayed out of the stream on entering dual_read
    made.do(ids[0], 1 * S + 5 * MS, Broker.REDIS)
    made.do(ids[0], 2 * S + 5 * MS, Broker.NATS)
    made.put(ids[1], 3 * S + MS)  # the same, read late: it still belongs to that entry
    made.do(ids[1], 3 * S + 3 * MS, Broker.REDIS)
    made.do(ids[1], 3 * S + 9 * MS, Broker.NATS)
    made.put(ids[2], 20 * MS)  # twice in one phase after a crash before the acknowledgement
    made.do(ids[2], 30 * MS, Broker.REDIS, writer="worker.3", ack=False)
    made.do(ids[2], 40 * MS, Broker.REDIS)
    made.put(ids[3], 50 * MS)  # across a transition, three times in all, by the same broker
    made.do(ids[3], 60 * MS, Broker.REDIS)
    made.do(ids[3], 1 * S + 60 * MS, Broker.REDIS)
    made.do(ids[3], 1 * S + 70 * MS, Broker.REDIS)
    frames = made.store(crashed=["worker.3"])
    repeats = frames.repeats.set_index("id")
    assert frames.deliveries["nth"].value_counts().to_dict() == {1: 4, 2: 4, 3: 1}
    assert frames.deliveries["row"].isna().sum() == 4
    assert repeats["row"].groupby("id").agg(list).to_dict() == {
        str(ids[0]): ["→ dual_read"],
        str(ids[1]): ["→ dual_read"],
        str(ids[2]): ["redis_only"],
        str(ids[3]): ["→ dual_write", "→ dual_write"],
    }
    assert repeats["replayed"].sum() == 2
    axes = plot_repeats(frames)
    assert "5 repeated executions" in axes.get_title(loc="left")
    totals = [text.get_text() for text in axes.texts]
    assert totals == ["1", "2", "0", "2", "0", "0", "0", "0", "0"]


def test_timeline_counts_every_event_in_its_bin(run, ids):
    made = run(Phase.REDIS_ONLY, Phase.DUAL_WRITE)
    made.put(ids[0], 100 * MS)
    made.do(ids[0], 300 * MS, Broker.REDIS)
    made.put(ids[1], 150 * MS)
    made.do(ids[1], 310 * MS, Broker.REDIS)
    made.do(ids[1], 1_600 * MS, Broker.REDIS)
    made.put(ids[2], -100 * MS)  # a push before the load began
    timeline = made.store().timeline("250ms")
    assert timeline["time_s"].tolist() == [-0.25 + 0.25 * i for i in range(8)]
    assert (timeline["accepted_per_s"] / 4).tolist() == [1, 2, 0, 0, 0, 0, 0, 0]
    assert (timeline["done_per_s"] / 4).tolist() == [0, 0, 2, 0, 0, 0, 0, 1]
    assert (timeline["repeated_per_s"] / 4).tolist() == [0, 0, 0, 0, 0, 0, 0, 1]
    assert timeline["max_ns"][1] == 201 * MS
    assert timeline["p50_ns"][1] == pytest.approx(161 * MS, rel=1e-3)  # of 161 and 201 ms
    assert timeline["p99_ns"].notna().tolist() == [i == 1 for i in range(8)]


@pytest.mark.parametrize("freq", ["soon", "0s", "-1s", "1us"])
def test_a_freq_that_cannot_be_used_is_named(run, ids, freq):
    made = run()
    made.put(ids[0], 0)
    made.put(ids[1], 3 * S)
    with pytest.raises(SettingError, match=freq):
        made.store().timeline(freq)


def test_a_run_without_any_task_has_plots_that_say_so(run):
    made = run()
    made.at("harness.0", 0, Event.PHASE)
    frames = made.store()
    assert frames.tasks.empty
    assert frames.timeline().empty
    for plot, said in zip(
        PLOTS,
        ("No task was accepted", "No synthetic task was done", "No depth was sampled", "None of 0"),
        strict=True,
    ):
        assert any(said in " ".join(text.split()) for text in texts_of(plot(frames)))


def test_a_phase_in_which_nothing_was_done_is_named_in_the_legend(run, ids):
    made = run(Phase.REDIS_ONLY, Phase.DUAL_WRITE)
    for number, task in enumerate(ids[:3]):
        made.put(task, (number + 1) * 10 * MS)
        made.do(task, (number + 1) * 10 * MS + 5 * MS, Broker.REDIS)
    axes = plot_latency(made.store())
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == ["redis_only", "dual_write (none done)"]


def test_a_run_of_one_phase(run, ids):
    made = run(Phase.DUAL_READ)
    made.put(ids[0], 10 * MS)
    made.do(ids[0], 20 * MS, Broker.REDIS)
    made.do(ids[0], 30 * MS, Broker.NATS)
    frames = made.store()
    assert frames.row_names == ["dual_read"]
    assert frames.repeats["row"].tolist() == ["dual_read"]  # there was no entry to count it for
    for plot in PLOTS:
        plot(frames)


def test_a_run_cut_off_shows_the_phase_it_was_cut_off_in(run, ids):
    made = run()
    made.at("harness.0", 0, Event.PHASE, value=0)
    made.put(ids[0], 10 * MS)
    made.do(ids[0], 20 * MS, Broker.REDIS)
    made.at("harness.0", 1 * S, Event.PHASE, value=1)
    made.put(ids[1], 1_500 * MS)
    frames = made.store(steps=1, status="cut off", crashed=["worker.2", "producer.1", "harness.0"])
    assert frames.phases["phase"].tolist() == ["redis_only", "dual_write"]
    assert frames.phases["whole"].tolist() == [True, False]
    assert frames.phases["end_s"].tolist() == [1.0, 1.501]
    table = verdict_table(frames)
    assert table["verdict"].tolist() == ["unknown"] * 3
    assert table["tasks"].tolist() == ["1", "0", "1"]
    assert table["lost"].tolist() == ["?", "", "?"]
    assert "cut off: CancelledError" in verdict_text(frames)
    assert findings_table(frames).empty
    for plot in PLOTS:
        plot(frames)


def test_a_run_cut_off_before_it_had_a_ledger(run):
    frames = run().store(steps=0, status="cut off")
    assert frames.phases.empty
    assert frames.deliveries.empty
    assert frames.samples.empty
    assert verdict_table(frames).empty
    assert "seed       7" in describe_run(frames)
    for plot in PLOTS:
        plot(frames)


def test_hookbench_load_reads_a_run_whatever_was_imported_before(run, ids):
    made = run()
    made.put(ids[0], 10 * MS)
    made.store()
    importlib.import_module("hookbench.load.search")  # makes hookbench.load the package
    assert not inspect.isfunction(hookbench.load)
    assert hookbench.load(made.folder).totals["offered"] == 1
    assert hookbench.load(made.folder.name, made.folder.parent).totals["offered"] == 1


def test_a_complete_run_without_its_ledger_is_an_error(run):
    with pytest.raises(LedgerError, match="complete, but"):
        run().store()


def test_samples_keep_unknown_apart_from_zero(run):
    made = run()
    made.at("harness.0", 0, Event.PHASE)
    samples = made.store(
        samples=[
            (0, {"redis_pending": 0, "stream": None}),
            (S, {"redis_pending": None, "stream": 40}),
            (2 * S, {"redis_pending": 7, "stream": 50, "consumer_pending": 3}),
        ],
        tail='{"time_ns": 1',  # cut off in its write
    ).samples
    assert samples["time_s"].tolist() == [0.0, 1.0, 2.0]
    assert samples["redis_pending"].isna().tolist() == [False, True, False]
    assert samples["stream_unread"].isna().tolist() == [True, False, False]
    assert samples["stream_unread"].tolist()[1:] == [40, 3]


def test_a_damaged_sample_is_named_by_its_line(run):
    made = run()
    made.at("harness.0", 0, Event.PHASE)
    with pytest.raises(ResultsError, match=r"samples\.jsonl, line 2"):
        _ = made.store(samples=[(0, {})], tail="junk\n").samples


def test_depth_title_names_growth_and_replay(run, ids):
    made = run()
    made.put(ids[0], 1 * S + MS)
    made.do(ids[0], 1 * S + 5 * MS, Broker.REDIS)
    made.do(ids[0], 2 * S + 5 * MS, Broker.NATS)
    grow = [(2 * S + i * 200 * MS, {"redis_pending": 300 * i, "stream": 1}) for i in range(5)]
    frames = made.store(samples=[*grow, (4 * S, {"redis_pending": 1200})])
    title = " ".join(plot_depths(frames).get_title(loc="left").split())
    assert title == (
        "Redis list grew to 1,200 copies in dual_read; 1 tasks replayed on entering dual_read"
    )


def test_plans_of_a_timeline_that_enters_nats_twice(run, ids):
    made = run(Phase.DUAL_READ, Phase.DUAL_WRITE, Phase.DUAL_READ)
    made.put(ids[0], 1 * S + MS)
    made.do(ids[0], 1 * S + 5 * MS, Broker.REDIS)
    made.do(ids[0], 2 * S + 5 * MS, Broker.NATS)
    frames = made.store()
    assert frames.repeats["row"].tolist() == ["→ dual_read"]
    assert frames.row_names == ["dual_read", "→ dual_write", "dual_write", "→ dual_read"]
