"""Every plot of the report, from runs by hand: that it can be read, and that its figures hold."""

import pkgutil
import uuid
from importlib import import_module

import pytest

pytest.importorskip("pandas", reason="the extra notebooks is not installed")
pytest.importorskip("matplotlib", reason="the extra notebooks is not installed")

from matplotlib.colors import to_hex
from matplotlib.figure import Figure

import hookbench.report
from hookbench.errors import SettingError
from hookbench.ledger.events import Broker
from hookbench.ledger.model import StepAccount
from hookbench.migration.phases import Phase
from hookbench.report.fault_shades import MOST_LABELLED, fault_key, shade_faults
from hookbench.report.findings_faults import (
    count_redeliveries,
    count_redeliveries_by_kind,
    count_stuck,
    fault_recovery,
)
from hookbench.report.labels import run_labels
from hookbench.report.plots import plot_depths, plot_latency, plot_repeats, plot_throughput
from hookbench.report.plots_cost import plot_cost, plot_resources
from hookbench.report.plots_faults import plot_recovery, plot_redeliveries, plot_stuck
from hookbench.report.plots_latency import plot_ecdf, plot_percentiles
from hookbench.report.plots_over_time import plot_latency_over_time
from hookbench.report.style import COLOUR_OF_QUEUE, decorate, figure_of, new_axes
from tests.plot_checks import check_texts, check_units
from tests.run_by_hand import (
    MS,
    RunByHand,
    S,
    account_of,
    fault_account,
    fault_at,
    resource_of,
)

KINDS = (
    "consumer_limits", "delete_consumer", "equal_payloads", "failing_handler", "hot_repository",
    "kill", "kill_at_step", "maxmemory", "oversize", "pause", "poison", "recreate_consumer",
    "restart", "rolling_restart", "slow_handler", "stream_limits", "wire",
)  # fmt: skip
OF_ONE = {
    plot.__name__: plot
    for plot in (
        plot_throughput, plot_latency, plot_depths, plot_repeats, plot_latency_over_time,
        plot_redeliveries, plot_recovery, plot_stuck,
    )
}  # fmt: skip
OF_SEVERAL = {
    plot.__name__: plot for plot in (plot_percentiles, plot_ecdf, plot_resources, plot_cost)
}
ELSEWHERE = {
    "plot_knee", "plot_designs",  # in test_plots_cost.py
    "plot_matrix_throughput", "plot_matrix_latency",  # in test_matrix_report.py
    "plot_matrix_redelivery",  # likewise
    "plot_predicted", "plot_day", "plot_site",  # in test_model_plots.py
    "plot_coverage", "plot_causes",  # in test_searches.py
    "plot_growth",  # in test_growth.py
}  # fmt: skip
RESOURCES = [
    resource_of("redis", cpu_s=1.5, rss_max_bytes=10 << 20, written_bytes=3_000_000),
    resource_of("nats", cpu_s=3.0, rss_max_bytes=20 << 20, written_bytes=1_000),
    resource_of("worker-0", cpu_s=10.0, rss_max_bytes=60 << 20),
    resource_of("worker-1", cpu_s=11.0, rss_max_bytes=70 << 20),
    resource_of("producer-0", cpu_s=12.0, rss_max_bytes=65 << 20, written_bytes=9_000_000),
    resource_of("harness", cpu_s=40.0, rss_max_bytes=90 << 20, written_bytes=9_000_000),
]
SAMPLES = [
    (i * S // 4, {"redis_pending": i, "redis_work": 1, "stream": 9 * i, "ack_pending": i % 3})
    for i in range(20)
]


def id_of(number):
    return uuid.UUID(int=0x0192_F300_0000_7000_8000_0000_0000_0000 + number)


def offered(made, steps, *, per_step=12):
    """Tasks that are put and done evenly: by Redis in the first two steps, then by NATS."""
    for number in range(steps * per_step):
        task, time_ns = id_of(number), number * S // per_step
        broker = Broker.REDIS if time_ns < 2 * S else Broker.NATS
        made.put(task, time_ns)
        made.do(task, time_ns + (2 + number % 7) * MS, broker)


def rows_of(run_rows):
    return [StepAccount(name=name, step=step, transition="→" in name, **values)
            for step, (name, values) in enumerate(run_rows)]  # fmt: skip


def five_phases(folder, faults=(), accounts=(), **fields):
    made = RunByHand(folder / "0001-abc1234", tuple(Phase))
    offered(made, 5)
    for number in (3, 4, 40):  # delivered and done again, as the second attempt
        made.do(id_of(number), number * S // 12 + 30 * MS, Broker.REDIS, attempt=2)
    rows = rows_of(
        [
            ("redis_only", {"stuck": {"redis-work/orphaned": 12}}),
            ("→ dual_write", {}),
            ("dual_write", {"stuck": {"consumer-pending/ack-pending": 1}, "left": 1_234}),
            ("dual_read", {"left": 7, "stuck": {"redis-work/orphaned": 5}}),
        ]
    )
    account = account_of(rows, tasks=60, done=60, left=1_241, stuck=18, faults=list(accounts))
    values = {"account": account, "resources": RESOURCES, "faults": list(faults), **fields}
    return made.store(samples=SAMPLES, **values)


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Five phases and four faults with long names, one of which did not fire."""
    faults = [
        fault_at(0, "kill", "worker-0", 500 * MS, 510 * MS),
        fault_at(1, "wire", "producers-redis", 1_600 * MS, 1_900 * MS,
                 name="reset request LPUSH producers-redis"),
        fault_at(2, "rolling_restart", "workers", 1_650 * MS, 1_900 * MS),
        fault_at(3, "pause", "nats", 4 * S, None, fired=False),
    ]  # fmt: skip
    accounts = [
        fault_account(0, duplicated=2),
        fault_account(1, recovery_ns=20 * MS),
        fault_account(2),
    ]
    return five_phases(tmp_path_factory.mktemp("few"), faults, accounts)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Five phases and three hundred faults of seventeen kinds."""
    faults = [
        fault_at(i, KINDS[i % len(KINDS)], "redis", i * 15 * MS, i * 15 * MS + 20 * MS)
        for i in range(300)
    ]
    accounts = [fault_account(i, recovery_ns=i * MS, duplicated=i % 2) for i in range(300)]
    fields = {"design": "hardened"}
    return five_phases(tmp_path_factory.mktemp("many"), faults, accounts, **fields)


@pytest.fixture(scope="module")
def one_phase(tmp_path_factory):
    """One phase without a fault, and nothing that went wrong."""
    made = RunByHand(tmp_path_factory.mktemp("one") / "0002-abc1234", (Phase.DUAL_READ,))
    offered(made, 1)
    account = account_of(rows_of([("dual_read", {})]), tasks=12, done=12)
    return made.store(account=account, resources=RESOURCES, samples=SAMPLES[:4])


@pytest.fixture(scope="module")
def cut_off(tmp_path_factory):
    """Cut off before anything happened."""
    folder = tmp_path_factory.mktemp("none") / "0003-abc1234"
    return RunByHand(folder, tuple(Phase)).store(steps=0, status="cut off")


@pytest.fixture(params=["few", "many", "one_phase", "cut_off"])
def any_run(request):
    return request.getfixturevalue(request.param)


def first_of(axes):
    return axes[0] if isinstance(axes, list) else axes


def title_of(axes):
    return " ".join(first_of(axes).get_title(loc="left").split())


@pytest.mark.parametrize("name", OF_ONE)
def test_no_text_of_a_plot_is_cut_off_or_covers_another(name, any_run):
    axes = OF_ONE[name](any_run)
    assert title_of(axes)
    check_texts(figure_of(first_of(axes)))
    check_units(figure_of(first_of(axes)))


@pytest.mark.parametrize("name", OF_SEVERAL)
def test_no_text_of_a_plot_of_several_runs_is_cut_off_or_covers_another(name, any_run, few):
    for runs in ([any_run], [few, any_run, any_run]):
        axes = OF_SEVERAL[name](runs)
        assert title_of(axes)
        check_texts(figure_of(first_of(axes)))
        check_units(figure_of(first_of(axes)))


def test_every_plot_is_checked():
    """One that is new has to be added to the ones above."""
    found = set()
    for module in pkgutil.iter_modules(hookbench.report.__path__):
        names = vars(import_module(f"hookbench.report.{module.name}"))
        found |= {name for name in names if name.startswith("plot_")}
    assert found == {*OF_ONE, *OF_SEVERAL, *ELSEWHERE}


@pytest.mark.parametrize("name", OF_SEVERAL)
def test_a_plot_of_no_run_is_refused(name):
    with pytest.raises(SettingError, match="give at least one"):
        OF_SEVERAL[name]([])


def test_the_check_of_texts_finds_what_it_is_for():
    figure = Figure(figsize=(2, 2))
    figure.text(0.3, 0.5, "one text")
    check_texts(figure)
    figure.text(0.35, 0.5, "another")
    with pytest.raises(AssertionError, match="covers"):
        check_texts(figure)
    figure = Figure(figsize=(2, 2))
    figure.text(0.9, 0.5, "too far to the right")
    with pytest.raises(AssertionError, match="cut off on the right"):
        check_texts(figure)
    with pytest.raises(AssertionError, match="without a text"):
        check_texts(Figure())


def test_the_check_of_units_finds_what_it_is_for():
    axes = new_axes()
    axes.plot([0, 1], [0, 1])
    decorate(axes, title="", x="time (s)", y="depth (tasks)")
    check_units(figure_of(axes))
    decorate(axes, title="", x="time", y="depth (tasks)")
    with pytest.raises(AssertionError, match="numbers without a unit: 'time'"):
        check_units(figure_of(axes))
    decorate(axes, title="", x="time (s)", y="p99 at 500 tasks per second")
    with pytest.raises(AssertionError, match="no unit: 'p99 at"):
        check_units(figure_of(axes))
    decorate(axes, title="", x="time (s)", y="")
    with pytest.raises(AssertionError, match="numbers without a unit: ''"):
        check_units(figure_of(axes))
    axes.set_yticks([0, 1], ["redis_list", "jetstream"])
    check_units(figure_of(axes))


def test_few_faults_are_shades_with_their_place_in_the_schedule(few):
    axes = plot_throughput(few)
    assert {"0", "1", "2"} <= {text.get_text() for text in axes.texts}
    assert "3" not in {text.get_text() for text in axes.texts}
    key = " ".join(axes.get_legend().get_title().get_text().split())
    assert "1 reset request LPUSH producers-redis" in key
    assert "1 did not fire" in key
    rows = {text.get_text(): text.xyann[1] for text in axes.texts}
    assert rows["1"] != rows["2"], "labels of faults that overlap stand below each other"


def test_many_faults_are_marks_without_labels(many):
    axes = new_axes()
    axes.plot([0, 5], [0, 1])
    shade_faults(axes, many.faults)
    (marks,) = axes.collections
    assert len(marks.get_segments()) == 300
    assert not axes.texts
    assert fault_key(many.faults) == "300 faults: each a mark at the top"
    assert not axes.patches


def test_a_fault_more_than_can_be_labelled_makes_marks_of_all(few):
    faults = few.faults.iloc[[0] * MOST_LABELLED]
    labelled, marked = new_axes(), new_axes()
    shade_faults(labelled, faults)
    shade_faults(marked, few.faults.iloc[[0] * (MOST_LABELLED + 1)])
    assert (len(labelled.texts), len(marked.texts)) == (MOST_LABELLED, 0)


def test_a_fault_that_was_not_healed_lasts_to_the_end_of_the_data(tmp_path):
    frames = five_phases(tmp_path, [fault_at(0, "pause", "nats", 3 * S, None)])
    axes = new_axes()
    axes.plot([0, 5], [0, 1])
    shade_faults(axes, frames.faults)
    (shade,) = axes.patches
    assert shade.get_extents().transformed(axes.transData.inverted()).x1 == pytest.approx(5)


def test_latency_over_time_shows_the_percentiles_of_each_bin(tmp_path):
    made = RunByHand(tmp_path / "0001-abc1234", (Phase.REDIS_ONLY, Phase.DUAL_WRITE))
    for number in range(20):
        late = 400 if number == 15 else 10
        made.put(id_of(number), number * 100 * MS)
        made.do(id_of(number), number * 100 * MS + (late - 1) * MS, Broker.REDIS)
    axes = plot_latency_over_time(made.store(), freq="500ms")
    lines = {line.get_label(): line for line in axes.lines}
    assert lines["p50"].get_xdata()[:3].tolist() == [0.25, 0.75, 1.25]
    assert lines["p50"].get_ydata()[3] == pytest.approx(10, rel=2e-3)
    assert lines["maximum"].get_ydata().tolist()[3] == pytest.approx(400, rel=2e-3)
    assert title_of(axes) == ("p99 10 ms as a rule, 400 ms for tasks due at 2 s, in dual_write")


def test_curves_of_a_queue_have_its_colour_and_those_of_a_run_its_dashes(few, many):
    axes = plot_percentiles([few, many])
    lines = {line.get_label(): line for line in axes.lines}
    assert list(lines) == [
        "jetstream, guide", "redis_list, guide", "jetstream, hardened", "redis_list, hardened",
    ]  # fmt: skip
    for label, line in lines.items():
        assert to_hex(line.get_color()).upper() == COLOUR_OF_QUEUE[label.split(",")[0]]
    dashes = {label.split(", ")[1]: line.get_linestyle() for label, line in lines.items()}
    assert dashes["guide"] != dashes["hardened"]


def test_an_ecdf_goes_from_nothing_to_all(one_phase):
    axes = plot_ecdf([one_phase])
    (line,) = axes.lines
    assert (line.get_ydata()[0], line.get_ydata()[-1]) == (0, 100)
    assert line.get_xdata()[-1] == pytest.approx(9, rel=2e-3)  # ms, of the slowest
    assert title_of(axes) == "redis_list: half of the tasks done within 5.0 ms"


def test_a_group_or_latency_that_there_is_not_is_named(few):
    with pytest.raises(SettingError, match="'worker'"):
        plot_percentiles([few], by="worker")
    with pytest.raises(SettingError, match="'service'"):
        plot_ecdf([few], what="service")


def test_redeliveries_count_in_their_phase_and_for_the_kinds_before_them(few):
    counts = count_redeliveries(few)
    assert counts["redelivered"].to_dict() == {
        **dict.fromkeys(few.row_names, 0), "redis_only": 2, "nats_primary": 1,
    }  # fmt: skip
    assert counts["again"].sum() == 3
    at_once = count_redeliveries_by_kind(few, after_s=0.1)
    assert at_once["redelivered"].to_dict() == {"kill": 0, "wire": 0, "rolling_restart": 0}
    later = count_redeliveries_by_kind(few, after_s=3)
    assert later["redelivered"].to_dict() == {"wire": 1, "rolling_restart": 1, "kill": 1}
    assert later["again"].to_dict() == {"kill": 2, "wire": 0, "rolling_restart": 0}


def test_faults_of_a_kind_that_overlap_count_a_redelivery_once(many):
    kinds = count_redeliveries_by_kind(many, after_s=10)
    assert kinds["redelivered"].max() == 3
    assert kinds["faults"].sum() == 300


def test_recovery_is_the_time_without_a_task_accepted_or_done(tmp_path):
    made = RunByHand(tmp_path / "0001-abc1234", (Phase.REDIS_ONLY, Phase.NATS_ONLY))
    for number, at_ms in enumerate((100, 200, 900, 1_000, 1_100)):
        made.put(id_of(number), at_ms * MS)
        broker = Broker.REDIS if at_ms < 1_000 else Broker.NATS
        made.do(id_of(number), (at_ms + 50) * MS, broker)
    faults = [
        fault_at(0, "restart", "redis", 300 * MS, 500 * MS),
        fault_at(1, "restart", "redis", 1_020 * MS, 1_030 * MS),  # not in use any more
        fault_at(2, "kill", "worker-0", 1_900 * MS, 1_950 * MS),  # nothing comes after it
    ]
    accounts = [fault_account(i, recovery_ns=400 * MS) for i in range(3)]
    recovery = fault_recovery(made.store(faults=faults, account=account_of(faults=accounts)))
    assert recovery["accepted_s"].tolist()[:2] == pytest.approx([0.7, 0.1])
    assert recovery["done_s"].tolist()[:2] == pytest.approx([0.7, 0.1])
    assert recovery["done_s"].isna().tolist() == [False, False, True]
    assert recovery["recovery_s"].isna().tolist() == [False, True, True]


def test_recovery_groups_many_faults_by_kind(few, many):
    assert len(plot_recovery(few).get_yticks()) == 3
    axes = plot_recovery(many)
    assert len(axes.get_yticks()) == len(KINDS)
    assert {label.get_text() for label in axes.get_yticklabels()} >= {"kill (18)", "wire (17)"}
    assert title_of(axes).startswith("300 faults: at worst no task done for")


def test_stuck_tasks_stand_where_they_lie_and_copies_apart(few):
    counts = count_stuck(few)
    assert counts.sum(axis=1).to_dict() == {
        "redis-work, orphaned": 17,
        "consumer-pending, ack-pending": 1,
        "done, copies left in redis": 1_241,
    }
    assert counts.loc["redis-work, orphaned", "dual_read"] == 5
    assert title_of(plot_stuck(few)) == (
        "18 of 60 tasks stuck, most in redis_only: redis-work, orphaned; 1,241 copies of finished"
        " tasks left in Redis"
    )


def test_runs_are_named_by_what_tells_them_apart(few, many, one_phase):
    assert run_labels([few]) == ["guide"]
    assert run_labels([few, many]) == ["guide", "hardened"]
    assert run_labels([few, one_phase]) == ["5 phases", "dual_read"]
    assert run_labels([few, few]) == ["1 0001-abc1234", "2 0001-abc1234"]
