"""The columns that docs/python.md tells are those of the frames."""

import re
from pathlib import Path

import pytest

pytest.importorskip("pandas", reason="the extra notebooks is not installed")

import hookbench
from tests.notebooks.faulty_run import make_faulty_run

PAGE = (Path(hookbench.__file__).parents[1] / "docs" / "python.md").read_text(encoding="utf-8")
PERCENTILES = ["p50_ns", "p90_ns", "p99_ns", "p999_ns"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return hookbench.load(make_faulty_run(tmp_path_factory.mktemp("faulty")))


def names_in(text):
    """Those in backticks, with the percentiles between two of them."""
    text = text.replace("`p50_ns` to `p999_ns`", ", ".join(f"`{name}`" for name in PERCENTILES))
    return re.findall(r"`(\w+)`", text)


def section(title):
    """Rows of a table below a heading: first cell and the rest."""
    found = PAGE.split(f"## {title}", 1)[1].split("\n## ", 1)[0]
    rows = [line.strip("| ").split(" | ") for line in found.splitlines() if line.startswith("| `")]
    assert rows, title
    return rows


@pytest.mark.parametrize("table", ["tasks", "deliveries"])
def test_columns_of_tables(run, table):
    rows = section(f"`run.{table}`: one row per {'task' if table == 'tasks' else 'delivery'}")
    told = [name for first, *_rest in rows for name in names_in(first)]
    assert told == list(getattr(run, table).columns)


def frames(run):
    return {
        "run.timeline(freq)": run.timeline("100ms"),
        "run.latency(by, what=)": run.latency("phase").drop(columns="phase"),
        "run.distributions(by, what=)": run.distributions("phase")[0][1],
        "run.phases": run.phases,
        "run.samples": run.samples,
        "run.faults": run.faults,
        "run.resources": run.resources,
        "run.attributions": run.attributions,
        "run.stuck": run.stuck,
        "run.gates": run.gates,
        "run.verdicts": run.verdicts,
    }


def test_columns_of_the_others(run):
    made = frames(run)
    rows = {first.strip().strip("`"): rest for first, *rest in section("The others")}
    assert rows.keys() == made.keys()
    for name, (_one, text) in rows.items():
        told = names_in(text)
        columns = list(made[name].columns)
        if name.startswith("run.latency"):  # which begins with what it is by, and ends with choices
            told = told[told.index("count") : told.index("max_ns") + 1]
        if name == "run.verdicts":
            assert set(told) <= set(columns)
            continue
        assert set(told) == set(columns), name


def test_every_column_of_numbers_has_its_unit(run):
    """In its name, or it counts tasks, executions, processes or places."""
    counts = {
        "accepted", "asked", "attempt", "count", "deliveries", "done_count", "duplicated",
        "exposed", "fault_index", "index", "lost", "nth", "percentile", "processes", "repository",
        "step", "stuck", "done_step",
    }  # fmt: skip
    depths = set(run.samples.columns) - {"time_ns", "time_s"}
    units = ("_ns", "_s", "_bytes", "_per_s", "_per_million", "_per_task")
    made = {name: frame for name, frame in frames(run).items() if name != "run.verdicts"}
    for name, frame in {**made, "tasks": run.tasks, "deliveries": run.deliveries}.items():
        numbers = frame.select_dtypes("number").columns
        bare = {column for column in numbers if not column.endswith(units)}
        assert bare <= counts | depths, name
