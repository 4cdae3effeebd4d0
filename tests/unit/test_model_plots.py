"""Plots and tables of a model: figures known from hand, texts that can be read."""

import msgspec
import numpy as np
import pytest

pytest.importorskip("pandas", reason="the extra notebooks is not installed")
pytest.importorskip("matplotlib", reason="the extra notebooks is not installed")

from hookbench.errors import ResultsError, SettingError
from hookbench.migration.phases import Design, Phase
from hookbench.model.scale import Site, plan_site
from hookbench.model.shard_day import strikes_of
from hookbench.model.timeline import Day, parse_outage, simulate_day
from hookbench.report.api import (
    check_model,
    errors_table,
    held_out_frame,
    identify_matrices,
    load_model,
    outages_table,
    plan_of_site,
    plan_table,
    plan_text,
    plot_day,
    plot_predicted,
    plot_site,
    site_day,
    strikes_table,
)
from hookbench.report.style import figure_of
from tests.plot_checks import check_texts, check_units
from tests.unit.measured_by_hand import make_measured
from tests.unit.test_plots import title_of

DAY = Day(
    rate_per_s=1000.0,
    capacity_per_s=1500.0,
    put_per_s=4000.0,
    design=Design.HARDENED,
    arrivals="constant+diurnal:period=86400,low=0.5",
    outages=(parse_outage("workers:600@43200"), parse_outage("nats:60@60000")),
    maxmemory_bytes=1e8,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    def change(record):
        cell = record.trial.cell
        if (cell.route, str(cell.durability), cell.payload) != ("jetstream", "lazy", "1024"):
            return {}
        if record.trial.kind != "throughput":
            return {}
        return {"figures": record.figures | {"done_per_s": record.figures["done_per_s"] / 2}}

    return make_measured(tmp_path_factory.mktemp("matrix") / "m", change=change)


@pytest.fixture(scope="module")
def found(folder):
    return check_model([folder])


@pytest.mark.parametrize(("what", "count"), [("rate", 72), ("latency", 180), ("cpu", 216)])
def test_predicted_over_measured_has_every_held_out_figure(found, what, count):
    axes = plot_predicted(found, what)
    points = [line for line in axes.lines if len(line.get_xdata()) == 1]
    assert len(points) == count
    diagonal = [line for line in axes.lines if len(line.get_xdata()) == 2]
    assert len(diagonal) == 1
    assert (diagonal[0].get_xdata() == diagonal[0].get_ydata()).all()
    assert axes.get_xlim() == axes.get_ylim()
    check_texts(figure_of(axes))
    check_units(figure_of(axes))


def test_the_title_has_the_error_and_where_it_is_worst(found):
    title = title_of(plot_predicted(found, "rate"))
    assert "worst 100% (jetstream, lazy, 1,024 B)" in title
    frame = held_out_frame(found)
    rates = frame[frame["figure"].str.endswith("_per_s")]
    assert f"median error {rates['error'].abs().median():.1%}" in title
    odd = frame.loc[frame["error"].abs().idxmax()]
    assert odd["predicted"] == pytest.approx(2 * odd["measured"], rel=0.02)


def test_the_points_are_the_frame(found):
    axes = plot_predicted(found, "cpu")
    drawn = sorted(line.get_ydata()[0] for line in axes.lines if len(line.get_xdata()) == 1)
    frame = held_out_frame(found)
    wanted = frame.loc[frame["figure"].str.contains("_cpu_us"), "predicted"] / 1e3
    assert drawn == pytest.approx(sorted(wanted))


def test_nothing_held_out_is_said(found):
    none = msgspec.structs.replace(found, rows=())
    axes = plot_predicted(none)
    assert not axes.axison
    assert title_of(axes) == "Rates of cells that were not fitted"


def test_errors_are_a_row_per_figure(found):
    table = errors_table(found)
    assert table.index[-1] == "all"
    assert table.loc["done_per_s", "worst error"] == "100.0%"
    assert len(table) == 2 + 5 + 6 + 1


def test_a_day_shows_its_peaks_and_outages():
    simulated = simulate_day(DAY)
    panels = plot_day(simulated)
    waiting = panels[0].lines[0]
    assert waiting.get_ydata().max() == pytest.approx(simulated.waiting.max())
    assert f"at most {simulated.waiting.max():,.0f} tasks wait" in title_of(panels[0])
    assert "without workers" in title_of(panels[0])
    redis = next(line for line in panels[1].lines if line.get_label() == "redis")
    assert redis.get_ydata().max() == pytest.approx(simulated.memory_bytes["redis"].max() / 2**20)
    assert "full after 12.0 h" in title_of(panels[1])
    for axes in panels:
        assert len(axes.patches) == 2, "a shade for each outage"
        assert axes.get_xlim() == (0, 24)
    check_texts(figure_of(panels[0]))
    check_units(figure_of(panels[0]))


@pytest.mark.parametrize("hours", [0.5, 2.0, 48.0])
def test_days_of_any_length_have_readable_hours(hours):
    day = msgspec.structs.replace(
        DAY, seconds=hours * 3600, outages=(), phase=Phase.NATS_ONLY, arrivals="constant"
    )
    panels = plot_day(simulate_day(day))
    assert {line.get_label() for line in panels[2].lines} == {"nats"}
    check_texts(figure_of(panels[0]))
    check_units(figure_of(panels[0]))


def test_outages_and_plan_are_tables(folder):
    table = outages_table(simulate_day(DAY))
    assert table.index.tolist() == ["workers 10 min at 12.0 h", "nats 60 s at 16.7 h"]
    assert outages_table(simulate_day(msgspec.structs.replace(DAY, outages=()))).empty
    plan = plan_site(load_model([folder]), Site())
    shown = plan_table(plan)
    assert shown.columns.tolist() == ["redis_only", "dual_write", "nats_only"]
    assert shown.loc["streams"].tolist() == ["-", *[f"{plan.phases[1].streams}"] * 2]
    assert np.isfinite([item.catch_up_s for item in plan.phases]).all()


@pytest.fixture(scope="module")
def plan(folder):
    return plan_of_site(load_model([folder]), rate_per_s=1e6, workers=10_000, service_ms=5.0)


def test_a_site_is_drawn_with_the_figures_of_its_plan(plan):
    panels = plot_site(plan)
    check_texts(figure_of(panels[0]))
    check_units(figure_of(panels[0]))
    for axes, names in zip(
        panels[:2], (("redis_nodes", "nats_nodes"), ("producers", "workers_needed")), strict=True
    ):
        heights = [bar.get_height() for bar in axes.patches]
        assert axes.get_ylim()[1] > max(heights)
        assert heights == [getattr(item, name) for name in names for item in plan.phases]
    dual = plan.phases[1]
    assert f"{dual.redis_nodes + dual.nats_nodes:,} broker nodes, in dual_write" in title_of(
        panels[0]
    )
    assert "10,000 workers (dotted)" in title_of(panels[1])
    assert "1,000,000 tasks/s at the peak" in plan_text(plan)


def test_a_shard_has_its_share_of_the_site_for_a_day(plan):
    dual = plan.phases[1]
    day = site_day(plan, "dual_write", outages=["workers:600@3600"], maxmemory_mib=100)
    assert day.day.rate_per_s == pytest.approx(1e6 / dual.masters)
    assert day.day.capacity_per_s == pytest.approx(dual.sustained_per_s / dual.masters)
    (effect,) = day.effects
    assert effect.catch_up_s == pytest.approx(dual.catch_up_s, rel=0.05)
    assert effect.peak_waiting == pytest.approx(600 * day.day.rate_per_s, rel=0.01)
    assert day.maxmemory_at_s is not None
    quiet = site_day(plan, "dual_write", night=0.25)
    assert quiet.offered.max() == pytest.approx(day.day.rate_per_s, rel=0.01)
    assert quiet.offered.min() == pytest.approx(0.25 * day.day.rate_per_s, rel=0.01)
    with pytest.raises(SettingError, match="night 0: use a share"):
        site_day(plan, "dual_write", night=0)
    streams = site_day(plan, "nats_only")
    assert streams.day.rate_per_s == pytest.approx(1e6 / plan.phases[-1].streams)
    with pytest.raises(SettingError, match="dual_read: it was not planned; planned are redis_only"):
        site_day(plan, "dual_read")


def test_limits_strike_when_a_day_says_so(plan):
    table = strikes_table(plan, 100)
    assert table.index.tolist() == ["redis_only", "dual_write", "nats_only"]
    assert table.loc["nats_only", "master full without workers"] == "-"
    assert table["unread tasks dropped by max-age"].tolist() == ["-", "after 7.0 days", "-"]
    full_s = strikes_of(plan, 100 * 2**20)[0].full_s
    day = site_day(plan, "redis_only", outages=[f"workers:{int(2 * full_s)}@0"], maxmemory_mib=100)
    assert day.maxmemory_at_s == pytest.approx(full_s, abs=2)


def test_matrices_are_named_by_seed_and_commit(folder, tmp_path):
    (line,) = identify_matrices([folder]).splitlines()
    for word in ("seed 7", "design guide", "commit ", "hookbench ", "python "):
        assert word in line
    with pytest.raises(ResultsError, match=r"no plan\.json"):
        identify_matrices([tmp_path])
