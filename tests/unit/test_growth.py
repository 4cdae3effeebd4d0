"""Slopes of growth, on measurements of which the truth is known."""

import msgspec
import pytest

pytest.importorskip("pandas", reason="the extra notebooks is not installed")

from hookbench.errors import ResultsError, SettingError
from hookbench.report.growth import (
    AXES,
    FIGURES,
    GROWTH_SCHEMA,
    GrowthRow,
    GrowthTable,
    growth_finding,
    growth_slopes,
    growth_table,
    identify_growth,
    plot_growth,
    read_growth,
)
from hookbench.report.style import figure_of
from hookbench.results.environment import read_environment
from tests.bench.growth import __main__ as growth
from tests.bench.growth import plan
from tests.plot_checks import check_texts

VALUES = (1_000, 10_000, 100_000)


def line(axis, figure, slope, queue="jetstream", at_1=1.0):
    """Points of a known slope."""
    return [
        GrowthRow(
            axis=axis, queue=queue, design="guide", value=value, figure=figure,
            measured=at_1 * value**slope,
        )
        for value in VALUES
    ]  # fmt: skip


def table(*lines, missing=()):
    return GrowthTable(
        schema=GROWTH_SCHEMA,
        environment=read_environment(),
        rows=tuple(row for each in lines for row in each),
        missing=missing,
    )


@pytest.mark.parametrize(
    ("axis", "figure", "slope", "worse"),
    [
        ("backlog", "work_per_s", 0.0, False),
        ("backlog", "work_per_s", -0.05, False),
        ("backlog", "work_per_s", -0.2, True),
        ("backlog", "work_per_s", 0.5, False),
        ("backlog", "put_p50_us", 0.2, True),
        ("backlog", "put_p50_us", -0.5, False),
        ("payload", "done_per_s", -1.05, False),
        ("payload", "done_per_s", -1.3, True),
        ("ledger", "check_s", 1.05, False),
        ("ledger", "check_s", 1.5, True),
    ],
)
def test_a_slope_is_found_and_held_against_a_linear_whole(axis, figure, slope, worse):
    (found,) = growth_slopes(table(line(axis, figure, slope))).itertuples()
    assert found.slope == pytest.approx(slope)
    assert found.worse is worse
    assert (found.low, found.high) == (1_000, 100_000)
    text = growth_finding(table(line(axis, figure, slope)), axis)
    said = "Worse than linear" if worse else "Nothing grows worse than linear"
    assert text.startswith(f"{said} from 1,000 to 100,000 {AXES[axis]}")
    label = FIGURES[axis][figure].label.partition(" (")[0]
    assert (label in text) == worse


def test_only_what_is_worse_is_named_with_its_queues():
    text = growth_finding(
        table(
            line("workers", "done_per_s", -0.4, "jetstream"),
            line("workers", "done_per_s", -0.3, "redis_list"),
            line("workers", "p50_ms", 0.0),
            line("workers", "worker_bytes", 1.0),
        ),
        "workers",
    )
    assert text.endswith(": done at saturation (jetstream, guide -0.40; redis_list, guide -0.30)")


def test_a_point_alone_and_a_zero_have_no_slope():
    one = line("ledger", "check_s", 1.0)[:1]
    zero = [msgspec.structs.replace(row, measured=0.0) for row in line("ledger", "check_s", 1)]
    assert growth_slopes(table(one, zero)).empty
    assert growth_finding(table(one), "ledger").startswith("Nothing was measured along events")
    assert len(growth_table(table(one))) == 0


def test_the_table_has_a_line_for_each_slope_with_its_ends():
    found = growth_table(
        table(line("backlog", "work_per_s", -0.5, at_1=2e6), line("ledger", "check_s", 1, queue=""))
    )
    assert list(found["queue"]) == ["jetstream", "-"]
    assert list(found["slope"]) == ["-0.50", "+1.00"]
    assert list(found[""]) == ["WORSE than linear", ""]
    assert found["from"][0] == "1,000: 6.32e+04"


def test_each_figure_has_a_panel_and_each_line_its_slope():
    names = list(FIGURES["backlog"])
    lines = [line("backlog", name, 0.1, queue) for name in names for queue in plan.QUEUES]
    axes = plot_growth(table(*lines), "backlog")
    check_texts(figure_of(axes))
    panels = axes.figure.axes
    assert len(panels) == len(names)
    for panel in panels:
        labels = [text.get_text() for text in panel.get_legend().get_texts()]
        assert labels == [f"{queue}, guide: slope +0.10" for queue in plan.QUEUES]
        assert panel.get_xlabel() == "tasks that wait"
        assert panel.get_ylabel()
    assert "Nothing" in plot_growth(table(), "ledger").get_title(loc="left")


def test_what_is_stored_is_read_and_what_is_not_is_refused(tmp_path):
    path = tmp_path / "growth.json"
    with pytest.raises(ResultsError, match=r"growth .*: No such file"):
        read_growth(path)
    stored = table(line("ledger", "check_s", 1), missing=("a point: too slow",))
    path.write_bytes(msgspec.json.encode(stored))
    assert read_growth(path) == stored
    assert "not measured: a point: too slow" in identify_growth(stored)
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(stored, schema=2)))
    with pytest.raises(ResultsError, match="schema 2 is newer than 1: update hookbench"):
        read_growth(path)
    path.write_bytes(b'{"schema": 1}')
    with pytest.raises(ResultsError, match="damaged, or something else"):
        read_growth(path)


def test_points_are_the_first_ones_or_all_and_of_known_names():
    small = plan.points_of(["backlog"], ["jetstream"], whole=False)
    assert [point.value for point in small] == [1_000, 10_000, 100_000]
    whole = plan.points_of(list(plan.AXES), list(plan.QUEUES), whole=True)
    assert len(set(whole)) == len(whole)
    assert {point.queue for point in whole if point.axis == "ledger"} == {""}
    hardened = {point.queue for point in whole if point.design == "hardened"}
    assert hardened == {"redis_list", "jetstream"}
    assert set(plan.AXES) == set(AXES)
    for axes, queues in ((["depth"], ["jetstream"]), (["ledger"], ["kafka"])):
        with pytest.raises(SettingError, match="use "):
            plan.points_of(axes, queues, whole=False)


@pytest.fixture
def measured(monkeypatch):
    """Points that were measured, in place of a measurement; one of ``broken`` fails."""
    points, broken = [], set()

    def measure(point):
        points.append(point.value)
        if point.value in broken:
            raise ResultsError("too slow")
        return {"check_s": point.value / 1e6, "memory_bytes": 1e8}

    monkeypatch.setattr(growth, "_measure_one", measure)
    monkeypatch.setattr(growth, "read_environment", lambda: environment("abc1234"))
    return points, broken


def environment(commit):
    return msgspec.structs.replace(read_environment(), commit=commit)


def test_a_measurement_that_ended_early_goes_on_with_what_it_lacks(measured, tmp_path, capsys):
    points, broken = measured
    broken.add(1_000_000)
    assert growth.main(["--axis=ledger", f"--out={tmp_path}"]) == growth.TROUBLE
    (folder,) = tmp_path.iterdir()
    assert [item.split(":")[1] for item in read_growth(folder / "growth.json").missing] == [
        " too slow"
    ]
    points.clear()
    broken.clear()
    assert growth.main(["--axis=ledger", "--whole", f"--resume={folder}"]) == 0
    assert points == [1_000_000, 10_000_000]
    stored = read_growth(folder / "growth.json")
    assert not stored.missing
    values = [row.value for row in stored.rows if row.figure == "check_s"]
    assert values == [10_000, 100_000, 1_000_000, 10_000_000]
    assert (folder / "ledger.png").exists()
    assert "10,000,000: 10" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("commit", "said"),
    [("def5678", "measured with commit abc1234, and here"), ("abc1234+", "commit first")],
)
def test_a_measurement_of_other_code_does_not_go_on(
    measured, monkeypatch, tmp_path, capsys, commit, said
):
    points, _broken = measured
    assert growth.main(["--axis=ledger", f"--out={tmp_path}"]) == 0
    (folder,) = tmp_path.iterdir()
    before = (folder / "growth.json").read_bytes()
    points.clear()
    monkeypatch.setattr(growth, "read_environment", lambda: environment(commit))
    assert growth.main(["--axis=ledger", "--whole", f"--resume={folder}"]) == growth.TROUBLE
    assert said in capsys.readouterr().err
    assert not points
    assert (folder / "growth.json").read_bytes() == before
