"""What runs cost, the knee, and the two designs: figures known from hand."""

import msgspec
import pytest

pytest.importorskip("pandas", reason="the extra notebooks is not installed")
pytest.importorskip("matplotlib", reason="the extra notebooks is not installed")

from hookbench.errors import ResultsError, SettingError
from hookbench.ledger.events import Broker
from hookbench.load.search import Capacity, Judgement, Trial
from hookbench.migration.phases import Phase
from hookbench.rehearsal.capacity import CapacityAnswer
from hookbench.report.findings_cost import cost_table, resource_table
from hookbench.report.findings_knee import knee_table, load_answers
from hookbench.report.plots_cost import plot_cost
from hookbench.report.plots_designs import plot_designs
from hookbench.report.plots_knee import plot_knee
from hookbench.report.prices import Prices, load_prices
from hookbench.report.style import figure_of
from tests.plot_checks import check_texts, check_units
from tests.run_by_hand import (
    ENVIRONMENT,
    MS,
    RunByHand,
    S,
    account_of,
    resource_of,
)
from tests.unit.test_plots import id_of, title_of

PRICES = Prices(currency="EUR", vcpu_hour=3.6, gib_hour=7200.0, gb_written=2.0)


def metered(folder, *, tasks=10, slower_ms=0, cpu_s=1.0, **fields):
    """One second of one phase, with what it cost."""
    made = RunByHand(folder / "0001-abc1234", (Phase.NATS_ONLY,))
    for number in range(tasks):
        made.put(id_of(number), number * S // tasks)
        made.do(id_of(number), number * S // tasks + (9 + slower_ms) * MS, Broker.NATS)
    resources = [
        resource_of("nats", cpu_s=cpu_s, rss_max_bytes=1 << 30, written_bytes=10**9),
        resource_of("worker-0", cpu_s=2.0, rss_max_bytes=1 << 20),
        resource_of("worker-1", cpu_s=3.0, rss_max_bytes=2 << 20),
        resource_of("harness", cpu_s=100.0, rss_max_bytes=1 << 30, written_bytes=10**9),
    ]
    account = fields.pop("account", account_of(tasks=tasks, done=tasks))
    return made.store(resources=resources, account=account, **fields)


@pytest.fixture
def run(tmp_path):
    return metered(tmp_path)


def test_resources_are_per_thousand_tasks_and_added_up_by_role(run):
    table = resource_table([run]).set_index("role")
    assert table.index.tolist() == ["nats", "worker", "harness"]
    assert table["cpu_s_per_thousand"].tolist() == [100, 500, 10_000]
    assert table["memory_mib"].tolist() == [1024, 3, 1024]
    assert table["written_mb_per_thousand"].tolist() == [100_000, 0, 100_000]


def test_cost_is_that_of_the_price_table_without_the_harness(run):
    table = cost_table([run], PRICES).set_index("role")
    assert table.index.tolist() == ["nats", "worker"]
    nats = table.loc["nats"]
    assert nats["cpu"] == pytest.approx(1.0 / 3600 * 3.6 * 1e5)  # ten tasks of a million
    assert nats["memory"] == pytest.approx(1.0 / 3600 * 7200 * 1e5)
    assert nats["disk"] == pytest.approx(2.0 * 1e5)
    assert nats["total"] == pytest.approx(nats["cpu"] + nats["memory"] + nats["disk"])
    axes = plot_cost([run], PRICES)
    assert axes.get_xlabel() == "EUR per million tasks (your prices)"
    assert axes.texts[0].get_text() == f"{table['total'].sum():,.0f}"


def test_a_plot_with_the_prices_that_ship_says_that_they_are_examples(run):
    assert "example prices" in plot_cost([run]).get_xlabel()


def test_a_run_without_a_task_has_no_cost(tmp_path):
    made = RunByHand(tmp_path / "0001-abc1234", (Phase.NATS_ONLY,))
    frames = made.store(steps=0, status="cut off", resources=[resource_of("nats", cpu_s=1.0)])
    assert cost_table([frames], PRICES)["total"].isna().all()
    assert title_of(plot_cost([frames], PRICES)).startswith("No cost")


def test_prices_that_were_edited_are_read(tmp_path):
    path = tmp_path / "prices.toml"
    path.write_text('currency = "EUR"\nvcpu_hour = 1\ngib_hour = 0\ngb_written = 0.5\n')
    assert load_prices(path) == Prices(
        currency="EUR", vcpu_hour=1.0, gib_hour=0.0, gb_written=0.5, example=False
    )
    assert load_prices().example


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('currency = "EUR"\nvcpu_hour = 1\ngib_hour = 1\n', "gb_written"),
        ('currency = "EUR"\nvcpu_hour = 1\ngib_hour = 1\ngb_written = 1\ngb_read = 1\n', "gb_read"),
        ('currency = "EUR"\nvcpu_hour = -1\ngib_hour = 1\ngb_written = 1\n', "vcpu_hour = -1"),
        ('currency = "EUR"\nvcpu_hour = nan\ngib_hour = 1\ngb_written = 1\n', "vcpu_hour = nan"),
        ('currency = "EUR"\nvcpu_hour = "1"\ngib_hour = 1\ngb_written = 1\n', "vcpu_hour"),
        ('currency = " "\nvcpu_hour = 1\ngib_hour = 1\ngb_written = 1\n', "currency is empty"),
        ("currency = \n", "prices.toml"),
        (b"\xff\xfe", "prices.toml"),
    ],
)
def test_prices_that_cannot_be_used_are_named(tmp_path, text, said):
    path = tmp_path / "prices.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SettingError, match=said):
        load_prices(path)


def test_a_price_table_that_is_not_there_says_where_to_begin(tmp_path):
    with pytest.raises(SettingError, match=r"missing\.toml: No such file.*copy .*prices\.toml"):
        load_prices(tmp_path / "missing.toml")


def answer_of(label, low, high, *, base_ms=4.0, unknown_because="", figure="p99_ms"):
    """Sustained up to ``low``; each rate has two trials, one of which took half as long again."""
    rates = [low / 2, low, *([high, 2 * high] if high else [])]
    judgements = tuple(
        Judgement(
            rate_per_s=rate,
            sustained=rate <= low,
            trials=tuple(
                Trial(
                    rate_per_s=rate,
                    sustained=rate <= low,
                    figures={figure: base_ms * times * (1 if rate <= low else 100)},
                )
                for times in (1, 1.5)
            ),
        )
        for rate in rates
    )
    capacity = Capacity(
        low_per_s=low, high_per_s=high, unknown_because=unknown_because, judgements=judgements
    )
    return CapacityAnswer(
        label=label,
        slo="p99<50ms",
        environment=ENVIRONMENT,
        unknown_because=unknown_because,
        limit="",
        capacity=capacity,
    )


def test_the_knee_has_the_median_of_the_trials_and_marks_the_interval():
    answer = answer_of("redis_list-lazy-guide", 1_000, 1_100)
    table = knee_table([answer])
    assert table["latency_ms"].tolist() == [5, 5, 500, 500]
    assert table["low_ms"].tolist() == [4, 4, 400, 400]
    assert table["sustained"].tolist() == [True, True, False, False]
    axes = plot_knee([answer])
    (shade,) = axes.patches
    assert (shade.get_x(), shade.get_x() + shade.get_width()) == pytest.approx((1_000, 1_100))
    assert title_of(axes) == "Sustained: redis_list 1,000 to 1,100/s"
    assert axes.get_ylabel() == "p99 latency (ms)"
    filled = [line.get_xdata().tolist() for line in axes.lines if line.get_fillstyle() == "full"]
    assert [500.0, 1_000.0] in filled


def test_no_text_of_a_knee_is_cut_off_or_covers_another():
    several = [
        answer_of("redis_list-lazy-guide", 1_000, 1_100),
        answer_of("redis_list-fsync-hardened", 300, 330, base_ms=20),
        answer_of("redis_stream-lazy-guide", 900, None),
        answer_of("jetstream-as_shipped-guide", 5_000, 9_000, unknown_because="80% wide"),
        answer_of("null", 20_000, 22_000, base_ms=0.1, figure="lag_p99_ms"),
    ]
    for answers in (several, several[:1], several[2:3], []):
        figure = figure_of(plot_knee(answers))
        check_texts(figure)
        check_units(figure)
    legend = [text.get_text() for text in plot_knee(several).get_legend().get_texts()]
    assert "redis_stream, lazy, guide: at least 900/s" in legend
    assert "jetstream, as_shipped, guide: 5,000 to 9,000/s (no answer: too wide)" in legend
    assert title_of(plot_knee(several[3:4])) == "No answer for jetstream: 80% wide"


def test_answers_are_read_back_from_their_folder(tmp_path):
    answers = [answer_of("jetstream-lazy-guide", 10, 11), answer_of("redis_list-lazy-guide", 5, 6)]
    for answer in reversed(answers):
        (tmp_path / f"{answer.label}.json").write_bytes(msgspec.json.encode(answer))
    assert load_answers(tmp_path) == answers


def test_answers_that_are_none_are_named(tmp_path):
    with pytest.raises(ResultsError, match="no such folder"):
        load_answers(tmp_path / "nowhere")
    with pytest.raises(ResultsError, match="no JSON file"):
        load_answers(tmp_path)
    (tmp_path / "broken.json").write_text('{"label": 1}')
    with pytest.raises(ResultsError, match=r"broken\.json.*remove it"):
        load_answers(tmp_path)


@pytest.fixture
def designs(tmp_path):
    wrong = account_of(tasks=10, done=10, duplicated=4, left=3)
    return (
        metered(tmp_path / "guide", account=wrong),
        metered(tmp_path / "hardened", slower_ms=10, cpu_s=6.0, design="hardened"),
    )


def test_the_price_of_hardened_stands_as_ratios_in_the_title(designs):
    axes = plot_designs(*designs)
    assert title_of(axes) == (
        "hardened to guide: rate x 1.00, p50 x 2.00, p99 x 2.00, CPU x 1.83; 0 in place of 7 lost,"
        " done again, stuck or left"
    )
    assert len(axes) == 4
    check_texts(figure_of(axes[0]))
    check_units(figure_of(axes[0]))


def test_designs_of_runs_without_figures_can_be_read(tmp_path):
    runs = [
        RunByHand(tmp_path / name / "0001-abc1234", (Phase.NATS_ONLY,)).store(
            steps=0, status="cut off", design=name
        )
        for name in ("guide", "hardened")
    ]
    axes = plot_designs(*runs)
    assert title_of(axes) == "No figure of both designs"
    assert "?" in {text.get_text() for text in axes[0].texts}
    check_texts(figure_of(axes[0]))


def test_designs_in_the_wrong_order_are_refused(designs):
    with pytest.raises(SettingError, match=r"design 'hardened', expected 'guide'"):
        plot_designs(*reversed(designs))
