"""Comparisons: what chance does, what is refused, and what a threshold says."""

import inspect
import io
import math
import re
import shutil
import uuid

import numpy as np
import pytest

pytest.importorskip("scipy", reason="the extra notebooks is not installed")

import msgspec
from rich.console import Console
from scipy.stats import bootstrap

import hookbench
from hookbench.brokers.classify import BrokerReport
from hookbench.cli.compare import compare as compare_verb
from hookbench.errors import ResultsError, SettingError
from hookbench.ledger.events import Broker
from hookbench.ledger.model import StepPlan, Verdict
from hookbench.migration.phases import Phase
from hookbench.report.comparison import print_comparison
from hookbench.results.blocks import phase_blocks
from hookbench.results.comparable import obstacles
from hookbench.results.compare import (
    MIN_EFFECT,
    MIN_MS,
    WARM_UP_S,
    answer_changes,
    compare,
)
from hookbench.results.differences import Side, phase_differences, run_difference
from hookbench.results.regressions import judge, parse_regression, parse_share
from hookbench.results.store import StepRecord, encode_manifest, load_manifest
from tests.unit.simulated_runs import simulated_blocks
from tests.unit.test_run import MS, START, RunByHand, S

PAIRS = 50


def differences(seed, *, repeats=1, new_ms=20.0, level=True, **machine):
    rng = np.random.default_rng(seed)
    base = [simulated_blocks(rng, **machine) for _ in range(repeats)]
    new = [simulated_blocks(rng, service_ms=new_ms, **machine) for _ in range(repeats)]
    sides = (Side("BASE", base, 50.0), Side("NEW", new, 50.0))
    found = phase_differences(*sides, np.random.default_rng(0), level=level, min_ms=0.25)
    return {("nats_only", name): item for name, item in found.items()}


def significant(found, min_effect=0.05):
    return {item.metric for item in answer_changes(found, min_effect) if item.answer in BOTH_WAYS}


BOTH_WAYS = ("worse", "better")


@pytest.mark.parametrize(
    "machine",
    [
        {},
        {"seconds": 30},
        {"repeats": 3},
        {"busy": 0.1, "between": 0.0, "stall": 0.0},
    ],
    ids=["short", "long", "repeats", "quiet"],
)
def test_the_same_code_is_called_different_in_at_most_one_pair_of_ten(machine):
    called = [seed for seed in range(PAIRS) if significant(differences(seed, **machine))]
    assert len(called) <= PAIRS / 10, called


@pytest.mark.parametrize("machine", [{}, {"repeats": 3}], ids=["short", "repeats"])
def test_a_fifth_more_service_time_is_found_in_nine_pairs_of_ten(machine):
    found = [
        seed
        for seed in range(PAIRS)
        if "p50" in significant(differences(seed, new_ms=24, **machine))
    ]
    assert len(found) >= 0.9 * PAIRS, set(range(PAIRS)) - set(found)


def test_a_busy_machine_is_taken_for_slow_code_without_the_lag():
    """So this is what the levelling is for: the same pairs without it."""
    runs = {"seconds": 30}
    called = [seed for seed in range(20) if significant(differences(seed, level=False, **runs))]
    assert len(called) >= 4


def test_a_stall_in_one_block_shows_nothing():
    rng = np.random.default_rng(5)
    quiet = simulated_blocks(rng, stall=0.0, busy=0.0)
    other = simulated_blocks(rng, stall=0.0, busy=0.0)
    late = other.latencies["end_to_end"]
    values = late.values_ns.copy()
    values[-1] = 3 * S  # the slowest task of the phase
    moved = msgspec.structs.replace(
        other,
        latencies={
            **other.latencies,
            "end_to_end": msgspec.structs.replace(late, values_ns=values),
        },
    )
    found = phase_differences(
        Side("BASE", [quiet], 50.0), Side("NEW", [moved], 50.0),
        np.random.default_rng(0), level=True, min_ms=0.25,
    )  # fmt: skip
    assert not significant({("p", name): item for name, item in found.items()})


def test_few_runs_that_differ_from_each_other_widen_the_interval():
    rng = np.random.default_rng(6)
    alike = [simulated_blocks(rng, busy=0.0, between=0.0, stall=0.0) for _ in range(4)]
    apart = [
        simulated_blocks(rng, busy=0.0, between=0.0, stall=0.0, service_ms=ms)
        for ms in (18.0, 22.0, 18.0, 22.0)
    ]

    def error(runs):
        sides = (Side("BASE", runs[:2], 50.0), Side("NEW", runs[2:], 50.0))
        found = phase_differences(*sides, np.random.default_rng(0), level=True, min_ms=0.25)
        return found["p50"].error

    assert error(apart) > 5 * error(alike)


# Runs on disk.


@pytest.fixture
def stored(tmp_path):
    """Make a run of one phase; of ``late_ms`` the put of each task is late."""

    def make(
        number, *, seed=0, service_ms=20.0, seconds=9, late_ms=0.2, rate_per_s=100, change=None
    ):
        made = RunByHand(tmp_path / f"{number:04d}-abc1234", [Phase.NATS_ONLY])
        rng = np.random.default_rng([seed, number])
        for place in range(rate_per_s * seconds):
            task = _uuid(number, place)
            at_ns = place * S // rate_per_s
            late_ns = int(late_ms * MS * rng.exponential())
            made.put(task, at_ns + late_ns, lag_ns=late_ns, step=0)
            took_ns = int((service_ms + rng.exponential(1.0)) * MS)
            made.do(task, at_ns + took_ns, Broker.NATS, step=0)
        made.store()
        manifest = load_manifest(made.folder)
        plan = manifest.steps[0].plan
        manifest.steps = [StepRecord(plan=plan, start_ns=START, end_ns=START + seconds * S)]
        manifest.verdict = Verdict.VALID
        manifest.settings |= {"seed": seed, "service_ms": 20.0, "out": str(made.folder.parent)}
        if change:
            change(manifest)
        (made.folder / "run.json").write_bytes(encode_manifest(manifest))
        return hookbench.load(made.folder)

    return make


def _uuid(number, place):
    return uuid.UUID(int=(0x0192_F300_0000_7000_8000 << 48) + (number << 32) + place)


def test_blocks_are_whole_seconds_after_the_warm_up(stored):
    run = stored(1)
    (key,) = phase_blocks(run, 3.0)
    blocks = phase_blocks(run, 3.5)["nats_only", 1]
    assert key == ("nats_only", 1)
    assert blocks.latencies["end_to_end"].counts.shape[0] == 5
    assert blocks.latencies["end_to_end"].counts.sum(axis=1).tolist() == [100] * 5
    assert phase_blocks(run, 100.0)[key].done.tolist() == []


def test_stored_runs_of_the_same_code_are_not_significant_and_slower_ones_are_worse(stored):
    base, same, slow = stored(1), stored(2), stored(3, service_ms=24.0)
    compared = compare([base], [same])
    assert {item.answer for item in compared.changes} == {"not significant"}
    assert all(item.low <= item.change <= item.high for item in compared.changes)
    assert all(item.detectable > compared.min_effect for item in compared.changes)
    found = {item.metric: item for item in compare([base], [slow]).changes}
    assert found["p50"].answer == "worse"
    assert found["p50"].change == pytest.approx(4 / 20.7, abs=0.02)
    assert found["enqueue_p50"].answer == found["done_per_s"].answer == "not significant"
    turned = {item.metric: item for item in compare([slow], [base]).changes}
    assert turned["p50"].answer == "better"
    assert turned["p50"].change == pytest.approx(1 / (1 + found["p50"].change) - 1, abs=0.002)


def test_an_effect_below_the_least_one_is_not_significant(stored):
    base, slow = stored(1), stored(2, service_ms=24.0)
    assert "p50" in {item.metric for item in compare([base], [slow], min_effect=0.1).significant}
    assert not compare([base], [slow], min_effect=0.25).significant
    assert not compare([base], [slow], min_ms=5.0).significant


def test_the_same_runs_make_the_same_answer(stored):
    base, new = [stored(1), stored(2), stored(3)], [stored(4), stored(5), stored(6)]
    assert compare(base, new) == compare(base, new)
    p50 = next(item for item in compare(base, new).changes if item.metric == "p50")
    assert p50.base_repeats.low <= p50.base_repeats.median <= p50.base_repeats.high


def test_the_medians_over_repeats_are_those_of_each_run_with_their_bootstrap_interval(stored):
    base = [stored(number, service_ms=18.0 + number) for number in (1, 2, 3, 4, 5)]
    new = [stored(number) for number in (6, 7)]
    found = {item.metric: item for item in compare(base, new).changes}
    for metric, column, quantile in (
        ("p50", "end_to_end_ns", 0.5),
        ("p99", "end_to_end_ns", 0.99),
        ("enqueue_p50", "enqueue_ns", 0.5),
    ):
        measured = []
        for run in (*base, *new):
            tasks = run.tasks
            due = tasks[tasks["intended_ns"] >= START + 3 * S]  # the warm-up does not count
            ordered = np.sort(due[column].dropna().to_numpy(dtype="int64"))
            measured.append(ordered[math.ceil(quantile * len(ordered)) - 1] / MS)
        item = found[metric]
        expected = bootstrap((measured[:5],), np.median, method="percentile", rng=1)
        interval = expected.confidence_interval
        assert item.base_repeats.median == pytest.approx(np.median(measured[:5]), rel=2e-3)
        assert item.base_repeats.low == pytest.approx(interval.low, rel=0.02)
        assert item.base_repeats.high == pytest.approx(interval.high, rel=0.02)
        assert item.new_repeats.median == pytest.approx(np.median(measured[5:]), rel=2e-3)
        assert item.new_repeats.low is None


def test_few_blocks_few_tasks_and_late_producers_are_unknown_and_say_why(stored):
    short = compare([stored(1, seconds=6)], [stored(2, seconds=6)])
    assert {item.answer for item in short.changes} == {"unknown"}
    assert "BASE has 3 whole blocks" in short.changes[0].reason
    few = compare([stored(3, seconds=8)], [stored(4, seconds=8)], warm_up_s=3.5)
    assert {item.answer for item in few.changes} == {"unknown"}
    runs = [stored(number, rate_per_s=50) for number in (5, 6)]
    thin = {item.metric: item for item in compare(runs[:1], runs[1:]).changes}
    assert thin["p99"].reason == "BASE has 300 tasks in its blocks, and 500 are needed"
    assert thin["p90"].answer == "not significant"
    late = {item.metric: item for item in compare([stored(7)], [stored(8, late_ms=40.0)]).changes}
    assert re.search("producers of run 1 of NEW were late", late["p99"].reason)
    assert late["done_per_s"].answer == "not significant"


def test_cpu_time_is_compared_by_runs_and_needs_three_of_each():
    few = run_difference([1.0, 1.1], [2.0, 2.1, 2.2])
    assert "3 repeats" in few.unknown
    found = run_difference([1.0, 1.1, 0.9], [2.0, 2.1, 1.9])
    assert found.degrees == 4
    assert found.change == pytest.approx(np.log(2), abs=0.01)
    assert significant({("whole run", "cpu_worker"): found}) == {"cpu_worker"}
    wide = run_difference([1.0, 2.0, 0.5], [2.0, 1.1, 0.9])
    assert not significant({("whole run", "cpu_worker"): wide})
    assert run_difference([1.0, 1.0, 0.0], [1.0] * 3).unknown
    assert run_difference([1.0, 1.0, np.nan], [1.0] * 3).unknown


# What is refused.


def set_environment(**values):
    def change(manifest):
        manifest.environment = msgspec.structs.replace(manifest.environment, **values)

    return change


def set_settings(**values):
    def change(manifest):
        manifest.settings |= values

    return change


def set_manifest(**values):
    def change(manifest):
        for name, value in values.items():
            setattr(manifest, name, value)

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (set_environment(cpu="another"), "cpu: a cpu in BASE 0001-abc1234, another in NEW 0002-ab"),
        (set_environment(kernel="7.0"), "kernel: 6.1 in BASE"),
        (set_environment(python="3.12.0"), "python: 3.11.0 in BASE"),
        (set_environment(memory_bytes=2**34), "memory_bytes: 1 in BASE"),
        (set_environment(packages={"redis": "6"}), "package redis: nothing in BASE"),
        (set_manifest(brokers=["redis-server 9"]), "brokers: "),
        (set_manifest(durability="fsync"), "durability class: lazy in BASE"),
        (set_manifest(design="hardened"), "design: guide in BASE"),
        (set_settings(service_ms=24.0), "setting service_ms: 20.0 in BASE"),
        (set_settings(rate_per_s=1.0), "setting rate_per_s: nothing in BASE"),
        (set_settings(phases=[4, 4]), "setting phases: [4] in BASE"),
        (set_manifest(status="cut off"), "NEW 0002-abc1234 did not come to its end"),
        (
            set_manifest(verdict=Verdict.UNKNOWN, unknown_because=["a checker crashed"]),
            "NEW 0002-abc1234 is unknown: a checker crashed",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused_by_name_and_compared_by_force(stored, change, said):
    base, new = stored(1), stored(2, change=change)
    with pytest.raises(ResultsError) as refused:
        compare([base], [new])
    assert said in str(refused.value)
    assert "--force" in str(refused.value)
    forced = compare([base], [new], force=True)
    assert any(said in line for line in forced.forced)
    assert any(item.answer == "not significant" for item in forced.changes)


@pytest.mark.parametrize(
    "change",
    [
        set_environment(commit="fffffff", hookbench="9.9.9"),
        set_settings(seed=99, out="/elsewhere", keep=True, scenario="another name"),
        set_manifest(verdict=Verdict.INVALID, seed=99),
    ],
)
def test_code_seed_and_names_may_differ(stored, change):
    assert compare([stored(1)], [stored(2, change=change)]).forced == []


def test_brokers_of_other_versions_are_refused(stored):
    def told(version):
        return set_manifest(
            broker_reports=[BrokerReport(name="redis", version=version, origin="a wheel")]
        )

    base, same, other = (stored(n, change=told(v)) for n, v in ((1, "8.2"), (2, "8.2"), (3, "9")))
    assert compare([base], [same]).forced == []
    with pytest.raises(
        ResultsError, match=r"version of redis: 8\.2 in BASE 0001-abc1234, 9 in NEW"
    ):
        compare([base], [other])


def test_a_repeat_that_differs_from_its_own_side_is_refused(stored):
    runs = [stored(1), stored(2, change=set_settings(service_ms=1.0))]
    with pytest.raises(ResultsError, match="in BASE 0002-abc1234"):
        compare(runs, [stored(3)])


def test_faults_that_differ_are_named_by_their_place(stored):
    kill = {"type": "kill", "at_s": 1.0}
    one = stored(1, change=set_settings(faults=[kill, {"type": "slow_handler", "delay_ms": 4.0}]))
    other = stored(2, change=set_settings(faults=[kill, {"type": "slow_handler", "delay_ms": 5.0}]))
    third = stored(3, change=set_settings(faults=[kill]))
    runs = [("A", one.manifest), ("B", other.manifest), ("C", third.manifest)]
    assert obstacles(runs[:2]) == ["setting faults 1 delay_ms: 4.0 in A, 5.0 in B"]
    (line,) = obstacles([runs[0], runs[2]])
    assert line.startswith('setting faults 1: {"type":"slow_handler"')
    assert line.endswith("in A, nothing in C")


def test_memory_that_differs_by_some_pages_is_the_same_machine(stored):
    one, other = (
        stored(number, change=set_environment(memory_bytes=2**33 + number * 4096))
        for number in (1, 2)
    )
    assert obstacles([("A", one.manifest), ("B", other.manifest)]) == []


def test_a_run_twice_no_run_and_numbers_out_of_range_are_refused(stored):
    base, new = stored(1), stored(2)
    for runs in ([base, base], [new]), ([base], [base]):
        with pytest.raises(SettingError, match="0001-abc1234 is given twice"):
            compare(*runs)
    with pytest.raises(SettingError, match="nothing to compare"):
        compare([], [new])
    for name, value in (("min_effect", -0.1), ("min_ms", -1), ("warm_up_s", float("nan"))):
        with pytest.raises(SettingError, match=name.replace("_", " ")):
            compare([base], [new], **{name: value})


def test_a_phase_that_only_one_side_has_is_named(stored):
    def second(manifest):
        step = manifest.steps[0]
        plan = StepPlan(index=1, phase="dual_read", reads_redis=True, reads_nats=True)
        middle = step.start_ns + 8 * S
        manifest.steps = [
            StepRecord(plan=step.plan, start_ns=step.start_ns, end_ns=middle),
            StepRecord(plan=plan, start_ns=middle, end_ns=step.end_ns),
        ]
        manifest.settings["phases"] = [4, 2]

    compared = compare([stored(1)], [stored(2, change=second)], force=True)
    assert {item.phase for item in compared.changes} == {"nats_only"}
    assert any("dual_read is in one side only" in note for note in compared.notes)


def test_repeats_that_were_not_taken_in_turn_are_said(stored):
    def notes(*minutes):
        runs = [
            stored(number, change=set_manifest(started=f"2026-01-01T00:{minute:02d}:00Z"))
            for number, minute in enumerate(minutes, 1)
        ]
        found = compare(runs[:2], runs[2:]).notes
        for run in runs:
            shutil.rmtree(run.folder)
        return found

    assert any("take them in turn" in note for note in notes(1, 2, 3, 4))
    assert any("take them in turn" in note for note in notes(3, 4, 1, 2))
    assert not any("take them in turn" in note for note in notes(1, 3, 2, 4))


def test_the_verb_has_the_defaults_of_the_module():
    verb = inspect.signature(compare_verb).parameters
    assert parse_share(verb["min_effect"].default) == MIN_EFFECT
    assert verb["min_ms"].default == MIN_MS
    assert verb["warm_up"].default == WARM_UP_S


def test_a_closed_loop_is_said(stored):
    runs = [stored(number, change=set_settings(loop="closed")) for number in (1, 2)]
    assert any("closed loop" in note for note in compare(runs[:1], runs[1:]).notes)


def test_a_damaged_ledger_is_refused(stored):
    base, new = stored(1), stored(2)
    shutil.rmtree(new.folder / "tables", ignore_errors=True)
    segment = min((new.folder / "ledger").iterdir())
    with segment.open("r+b") as file:
        file.write(b"no ledger")
    damaged = hookbench.load(new.folder)
    with pytest.raises(ResultsError, match="NEW 0002-abc1234 has a damaged ledger"):
        compare([base], [damaged])


# What is printed.


def printed(comparison, width):
    text = io.StringIO()
    print_comparison(Console(file=text, width=width), comparison)
    return text.getvalue()


def test_the_table_tells_all_of_it_in_a_wide_and_a_narrow_terminal(stored):
    base, slow = stored(1), stored(2, service_ms=24.0, change=set_settings(service_ms=24.0))
    thresholds = [parse_regression("p50 +5%")]
    compared = compare([base], [slow], force=True, regressions=thresholds)
    wide, narrow = printed(compared, 120), printed(compared, 80)
    for text in (wide, narrow):
        assert "setting service_ms: 20.0 in BASE 0001-abc1234, 24.0 in NEW 0002-abc1234" in text
        assert re.search(r"p50 ms +21\.\d +2[56]\.\d +\+1\d\.\d% +\+\d+.* WORSE", text)
        assert re.search(r"done_per_s /s .* not significant", text)
        assert "fail-if   p50 +5%: exceeded (nats_only: +1" in text
        assert text.splitlines()[-1].startswith("answer    worse: p50 in nats_only (+1")
    table = [line for line in narrow.splitlines() if " ms " in line and "BASE" not in line]
    assert max(len(line) for line in table if not line.startswith("lag")) <= 80
    assert "…" not in narrow


def test_what_was_measured_is_said_where_the_machine_accounts_for_some_of_it(stored):
    busy = compare([stored(1)], [stored(2, late_ms=3.0)])
    assert re.search(
        r"lag +nats_only as .* enqueue_p50 \+\d+\.\d% \(0\.\d, 2\.\d ms\)", printed(busy, 120)
    )
    alike = compare([stored(3, late_ms=0.0)], [stored(4, late_ms=0.0)])
    assert "as measured" not in printed(alike, 120)
    assert printed(alike, 120).splitlines()[-1] == (
        "answer    no significant change of more than 5 % and 0.25 ms"
    )


# Thresholds.


@pytest.mark.parametrize(
    ("text", "metric", "ratio"),
    [
        ("p99 +15%", "p99", 1.15),
        ("  enqueue_p50+0.5 % ", "enqueue_p50", 1.005),
        ("done_per_s -10%", "done_per_s", 0.9),
        ("cpu_worker +0%", "cpu_worker", 1.0),
        ("p50 +250%", "p50", 3.5),
    ],
)
def test_a_threshold_is_a_metric_a_direction_and_percent(text, metric, ratio):
    found = parse_regression(text)
    assert found.metric == metric
    assert found.bound == pytest.approx(abs(np.log(ratio)))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "use a metric"),
        ("p99", "use a metric"),
        ("p99 15%", "use a metric"),
        ("p99 +15", "use a metric"),
        ("p99 +x%", "use a metric"),
        ("p99>100ms", "use a metric"),
        ("p98 +15%", "no metric 'p98'; did you mean p9"),
        ("rate -5%", "no metric 'rate'"),
        ("p99 -15%", "use 'p99 +15%'"),
        ("done_per_s +10%", "use 'done_per_s -10%'"),
        ("done_per_s -100%", "less than 100 %"),
    ],
)
def test_a_threshold_that_is_none_is_named_with_what_to_do(text, said):
    with pytest.raises(SettingError) as refused:
        parse_regression(text)
    assert said in str(refused.value)
    assert repr(text) in str(refused.value)


def test_a_share_is_percent_or_a_number():
    assert (parse_share("5%"), parse_share("0.05"), parse_share("7.5 %")) == (0.05, 0.05, 0.075)
    for text in ("", "5 ms", "-5%", "nan"):
        with pytest.raises(SettingError, match="min-effect"):
            parse_share(text)


def test_thresholds_are_exceeded_held_or_unknown(stored):
    def judged(base, new, *texts):
        found = compare([base], [new], regressions=[parse_regression(text) for text in texts])
        return {item.threshold: item for item in found.judgements}

    base, slow = stored(1), stored(2, service_ms=24.0)
    texts = ("p50 +5%", "p50 +30%", "done_per_s -5%", "cpu_nats +5%")
    found = judged(base, slow, *texts)
    assert [found[text].answer for text in texts] == ["exceeded", "held", "held", "unknown"]
    assert found["p50 +5%"].because[0].startswith("nats_only: +1")
    assert found["cpu_nats +5%"].because == ["these runs have no cpu_nats"]
    assert judged(slow, base, "p50 +0%")["p50 +0%"].answer == "held"  # better is not worse
    late = judged(base, stored(3, late_ms=40.0), "p99 +5%")["p99 +5%"]
    assert late.answer == "unknown"
    assert "were late" in late.because[0]


def test_a_rate_that_falls_exceeds_its_threshold():
    found = run_difference([1.0, 1.01, 0.99], [0.5, 0.51, 0.49])
    thresholds = [parse_regression(text) for text in ("done_per_s -20%", "done_per_s -60%")]
    judged = judge({("p", "done_per_s"): found}, thresholds)
    assert [item.answer for item in judged] == ["exceeded", "held"]
