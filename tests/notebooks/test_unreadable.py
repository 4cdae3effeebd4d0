"""Every file that a report reads: cut off half-way, with a field too few, or of a newer schema."""

import importlib.util
import json
import shutil

import pytest

if importlib.util.find_spec("papermill") is None:  # an import takes seconds, of each test process
    pytest.skip("the extra notebooks is not installed", allow_module_level=True)
pytest.importorskip("pandas", reason="the extra notebooks is not installed")

import pyarrow.parquet as pq

from hookbench.errors import HookbenchError, LedgerError, ResultsError
from hookbench.report import notebook
from hookbench.report.notebook import render_report
from tests.notebooks.faulty_run import make_faulty_run
from tests.notebooks.plain import DATA

OLD = "the report that was there"


@pytest.fixture
def run(tmp_path):
    """A committed run with answers of capacity and a report beside it."""
    folder = tmp_path / "0001-abc1234"
    shutil.copytree(DATA / "guide", folder)
    shutil.copytree(DATA / "capacity", folder / "capacity")
    (folder / "report.html").write_text(OLD)
    return folder


@pytest.fixture(autouse=True)
def executes_nothing(monkeypatch):
    """What cannot be read is known before a cell is executed."""

    def fail(*_arguments):
        pytest.fail("a notebook was executed")

    monkeypatch.setattr(notebook, "_execute", fail)


def report(run):
    return render_report([run], capacity=run / "capacity")


def refused(run, *said, error=ResultsError):
    """One line that names what it is about; the report that was there stays."""
    with pytest.raises(error) as caught:
        report(run)
    assert isinstance(caught.value, HookbenchError)
    text = str(caught.value)
    assert "\n" not in text
    for part in said:
        assert part in text, text
    assert (run / "report.html").read_text() == OLD
    assert [item.name for item in run.iterdir() if item.name.startswith(".")] == []


def cut(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def change(path, edit):
    data = json.loads(path.read_text())
    edit(data)
    path.write_text(json.dumps(data))


def test_what_is_whole_is_executed(run):
    with pytest.raises(pytest.fail.Exception, match="a notebook was executed"):
        report(run)


def test_files_that_are_cut_off(run):
    for name, said in (
        ("run.json", ("run.json: damaged", "copy the run again")),
        ("samples.jsonl", ("samples.jsonl, line 1", "copy the run again")),
        ("tables/tasks.parquet", ("tasks.parquet", "copy the whole run again")),
        ("tables/deliveries.parquet", ("deliveries.parquet", "copy the whole run again")),
        ("capacity/jetstream-lazy-guide.json", ("guide.json", "remove it, or hookbench capacity")),
    ):
        whole = (run / name).read_bytes()
        if name == "samples.jsonl":
            (run / name).write_bytes(whole[whole.index(b"\n") // 2 :])  # its beginning is away
        else:
            cut(run / name)
        refused(run, *said)
        (run / name).write_bytes(whole)


def test_files_that_are_not_there(run):
    for name, said in (
        ("run.json", ("0001-abc1234", "no such run")),
        ("tables/deliveries.parquet", ("deliveries.parquet", "copy the whole run again")),
    ):
        whole = (run / name).read_bytes()
        (run / name).unlink()
        refused(run, *said)
        (run / name).write_bytes(whole)
    (run / "tables" / "tasks.parquet").unlink()
    refused(run, "complete, but", "holds no ledger segments", error=LedgerError)


def test_fields_that_are_not_there(run):
    def without(*keys):
        def edit(data):
            for key in keys[:-1]:
                data = data[key]
            del data[keys[-1]]

        return edit

    for name, keys in (
        ("run.json", ("settings",)),
        ("run.json", ("schema",)),
        ("run.json", ("account", "rows", 0, "name")),
        ("run.json", ("steps", 0, "start_ns")),
        ("run.json", ("resources", 0, "cpu_s")),
        ("capacity/null.json", ("capacity", "judgements", 0, "trials", 0, "sustained")),
        ("capacity/null.json", ("slo",)),
    ):
        whole = (run / name).read_bytes()
        change(run / name, without(*keys))
        refused(run, name, f"missing required field `{keys[-1]}`")
        (run / name).write_bytes(whole)
    lines = (run / "samples.jsonl").read_text().splitlines()
    lines[2] = json.dumps({key: v for key, v in json.loads(lines[2]).items() if key != "time_ns"})
    (run / "samples.jsonl").write_text("\n".join([*lines, ""]))
    refused(run, "samples.jsonl, line 3", "missing required field `time_ns`")


@pytest.mark.parametrize("table", ["tasks", "deliveries"])
def test_every_column_that_is_not_there_is_named(run, table):
    path = run / "tables" / f"{table}.parquet"
    key = pq.read_metadata(run / "tables" / "tasks.parquet").metadata[b"hookbench"]
    whole = pq.read_table(path).replace_schema_metadata({b"hookbench": key})
    for name in whole.column_names:
        pq.write_table(whole.drop_columns([name]), path)
        refused(run, f"{table}.parquet: no column {name};", "copy the whole run again")


def test_newer_schemas(run):
    def newer(data):
        data["schema"] = 99

    for name in ("run.json", "capacity/null.json"):
        whole = (run / name).read_bytes()
        change(run / name, newer)
        refused(run, name, "schema 99, this version reads up to", "the hookbench that wrote it")
        (run / name).write_bytes(whole)
    path = run / "tables" / "tasks.parquet"
    whole = pq.read_table(path)
    key = json.loads(pq.read_metadata(path).metadata[b"hookbench"])
    said = {b"hookbench": json.dumps({"schema": 99, "what": [key]}).encode()}
    pq.write_table(whole.replace_schema_metadata(said), path)
    refused(run, "tables", "schema 99, this version reads up to", "the hookbench that wrote them")


def test_a_last_sample_that_was_cut_off_is_left_out(run):
    with (run / "samples.jsonl").open("ab") as file:
        file.write(b'{"time_ns":7')
    with pytest.raises(pytest.fail.Exception, match="a notebook was executed"):
        report(run)


def test_a_ledger_that_cannot_be_read(tmp_path):
    run = make_faulty_run(tmp_path)
    (run / "report.html").write_text(OLD)
    (run / "capacity").mkdir()
    shutil.copy(DATA / "capacity" / "null.json", run / "capacity")
    shutil.rmtree(run / "tables")
    segments = sorted((run / "ledger").iterdir())
    assert len(segments) >= 3
    for path in segments:
        path.write_bytes(b"junk")
    refused(run, "ledger", error=LedgerError)
    shutil.rmtree(run / "ledger")
    refused(run, "complete, but", "holds no ledger segments", error=LedgerError)
