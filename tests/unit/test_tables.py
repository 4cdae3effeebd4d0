"""The Parquet tables of a run: in shares, kept, made anew, and refused."""

import json
from pathlib import Path

import pytest

pytest.importorskip("pandas", reason="the extra notebooks is not installed")

import pandas as pd
import pyarrow.parquet as pq

import hookbench
from hookbench.errors import ResultsError, SettingError
from hookbench.ledger.events import Broker, Event
from hookbench.ledger.read import read_ledger
from hookbench.report.findings import throughput_finding
from hookbench.results import table_columns
from hookbench.results import tables as tables_module
from hookbench.results.store import load_manifest
from hookbench.results.table_columns import DELIVERIES, TASKS
from hookbench.results.tables import make_tables
from tests.unit.test_run import MS, RunByHand, S, ids, run  # noqa: F401 - fixtures

OUTCOMES = ["done", "dead", "failed", "superseded", "skipped", "stale", "given_back"]


@pytest.fixture
def made(run, ids):  # noqa: F811
    """A run with every way in which a delivery ends, and repeats."""
    made = run()
    for number, task in enumerate(ids):
        made.put(task, (number + 1) * 10 * MS)
        at = 300 * MS + number * 20 * MS
        made.do(task, at, Broker.REDIS)
        if number % 3 == 0:
            made.do(task, 2 * S + at, Broker.NATS, writer="worker.3", attempt=2)
    return made


def ended(made, task, at, *events, attempt=1, broker=Broker.NATS):
    made.at("worker.2", at, Event.RECEIVED, task, broker=broker, attempt=attempt)
    for number, event in enumerate(events, 1):
        made.at("worker.2", at + number * MS, event, task, broker=broker)


def test_shares_hold_every_task_once_and_the_same_rows(made, tmp_path):
    stored = made.store()
    manifest = load_manifest(stored.folder)
    shares = make_tables(stored.folder, manifest, folder=tmp_path / "shares", share_records=12)
    for name, keys in (("tasks", ["id"]), ("deliveries", ["id", "received_ns"])):
        whole = stored._tables.read(name).sort_values(keys, ignore_index=True)
        parts = shares.read(name).sort_values(keys, ignore_index=True)
        assert len(whole) > 0
        pd.testing.assert_frame_equal(parts, whole, check_categorical=False)
    assert shares.key == stored._tables.key


def test_a_share_of_the_ledger_has_its_tasks_and_all_records_of_none(made):
    folder = made.store().folder / "ledger"
    whole = read_ledger(folder)
    parts = [read_ledger(folder, share=(number, 7)) for number in range(7)]
    nobody = bytes(16)
    found = [bytes(item) for part in parts for item in part.ids if bytes(item) != nobody]
    assert sorted(found) == sorted(bytes(item) for item in whole.ids if bytes(item) != nobody)
    for part in parts:
        assert (part.writers, part.crashed) == (whole.writers, whole.crashed)
        opened = part.records["event"] == Event.WRITER_OPEN
        assert opened.sum() == (whole.records["event"] == Event.WRITER_OPEN).sum()


def test_each_delivery_ends_in_its_own_way(run, ids):  # noqa: F811
    made = run()
    for number, task in enumerate(ids[:8]):
        made.put(task, (number + 1) * MS)
    ended(made, ids[0], 100 * MS, Event.STARTED, Event.DONE, Event.ACK_SENT)
    ended(made, ids[1], 200 * MS, Event.STARTED, Event.FAILED, Event.DEAD, Event.TERM)
    ended(made, ids[2], 300 * MS, Event.STARTED, Event.FAILED, Event.NAK)
    ended(made, ids[3], 400 * MS, Event.SUPERSEDED, Event.ACK_SENT)
    ended(made, ids[4], 500 * MS, Event.SKIPPED, Event.ACK_SENT)
    ended(made, ids[5], 600 * MS, Event.STARTED, Event.STALE, Event.NAK)
    ended(made, ids[6], 700 * MS, Event.NAK)
    ended(made, ids[7], 800 * MS, broker=Broker.REDIS)
    made.at("worker.2", 850 * MS, Event.DONE, ids[7], broker=Broker.NATS)  # of no delivery
    ended(made, ids[2], 900 * MS, Event.STARTED, Event.DONE, Event.ACK_SENT, attempt=2)
    made.at("worker.3", 950 * MS, Event.DONE, ids[2], broker=Broker.NATS)  # of no delivery
    frame = made.store().deliveries.sort_values("received_ns", ignore_index=True)
    assert frame["outcome"].tolist()[:7] == [
        "done", "dead", "failed", "superseded", "skipped", "stale", "given_back"
    ]  # fmt: skip
    assert frame["outcome"].isna().tolist() == [False] * 7 + [True, False]
    assert list(frame["outcome"].cat.categories) == OUTCOMES
    last = frame.iloc[8]
    assert (last["id"], last["attempt"], last["outcome"]) == (str(ids[2]), 2, "done")
    begin = last["received_ns"]
    assert (last["started_ns"], last["ended_ns"], last["acked_ns"]) == (
        begin + MS,
        begin + 2 * MS,
        begin + 3 * MS,
    )
    assert frame["acked_ns"].isna().tolist() == [
        False, True, True, False, False, True, True, True, False
    ]  # fmt: skip
    assert frame["worker"].tolist() == ["worker.00002"] * 9


def test_columns_are_the_documented_ones(made):
    stored = made.store()
    assert list(stored.tasks.columns) == TASKS.names
    assert list(stored.deliveries.columns) == DELIVERIES.names
    source = Path(table_columns.__file__).read_text(encoding="utf-8")
    for name in (*TASKS.names, *DELIVERIES.names):
        assert f"``{name}``" in source, name


def test_tables_are_kept_and_made_anew_when_the_ledger_changes(made):
    stored = made.store()
    path = stored.folder / "tables" / "tasks.parquet"
    before, count = path.stat().st_mtime_ns, len(stored.deliveries)
    hookbench.load(stored.folder)
    assert path.stat().st_mtime_ns == before
    segment = next((stored.folder / "ledger").glob("worker.00003*"))
    segment.unlink()
    assert len(hookbench.load(stored.folder).deliveries) == count - 7
    assert path.stat().st_mtime_ns > before
    assert [item.name for item in stored.folder.iterdir() if item.name.startswith(".")] == []


@pytest.mark.parametrize("name", ["tasks", "deliveries"])
def test_a_missing_column_is_named_with_what_to_do(made, name):
    stored = made.store()
    path = stored.folder / "tables" / f"{name}.parquet"
    table = pq.read_table(path)
    metadata = pq.read_metadata(path).metadata
    with pq.ParquetWriter(path, table.drop_columns(["phase"]).schema) as writer:
        writer.write_table(table.drop_columns(["phase"]))
        if b"hookbench" in metadata:
            writer.add_key_value_metadata({b"hookbench": metadata[b"hookbench"]})
    said = f"{name}.parquet: no column phase; remove the folder"
    with pytest.raises(ResultsError, match=said):
        hookbench.load(stored.folder)
    with pytest.raises(ResultsError, match=said):  # of a run that was loaded before
        getattr(stored, name)
    with pytest.raises(ResultsError, match=said):
        list(stored.parts(name, ["id", "phase"]))


@pytest.mark.parametrize("content", [b"", b"junk", b"PAR1junkPAR1"])
def test_a_damaged_table_is_named_with_what_to_do(made, content):
    stored = made.store()
    (stored.folder / "tables" / "tasks.parquet").write_bytes(content)
    with pytest.raises(ResultsError, match=r"tasks\.parquet: .*; remove the folder"):
        hookbench.load(stored.folder)
    other = stored.folder / "tables" / "deliveries.parquet"
    other.write_bytes(content)
    with pytest.raises(ResultsError, match=r"deliveries\.parquet: .*; remove the folder"):
        _ = stored.deliveries


def test_tables_of_a_newer_schema_are_refused(made, monkeypatch):
    folder = made.store().folder
    monkeypatch.setattr(tables_module, "TABLES_SCHEMA", 0)
    with pytest.raises(ResultsError, match=r"schema 1, this version reads up to 0; use the"):
        hookbench.load(folder)


def test_a_folder_that_cannot_be_written_to_has_its_tables_elsewhere(made, monkeypatch):
    folder = made.store().folder
    for path in (folder / "tables").iterdir():
        path.unlink()
    original = tables_module.make_tables

    def refuses(run_folder, manifest, *, folder=None, **more):
        if folder is None or folder.parent == run_folder:
            try:
                raise PermissionError(13, "Permission denied")
            except PermissionError as error:
                raise ResultsError("tables: Permission denied") from error
        return original(run_folder, manifest, folder=folder, **more)

    monkeypatch.setattr(tables_module, "make_tables", refuses)
    stored = hookbench.load(folder)
    assert len(stored.tasks) == 20
    assert list((folder / "tables").iterdir()) == []


def test_unknown_tables_columns_and_groups_are_named(made):
    stored = made.store()
    with pytest.raises(SettingError, match="table 'jobs': use tasks, deliveries"):
        stored.parts("jobs", [])
    with pytest.raises(SettingError, match="column 'when' of tasks: use id, offered"):
        stored.parts("tasks", ["when"])
    with pytest.raises(SettingError, match="latency by 'worker': use phase, step, queue, second"):
        stored.latency("worker")
    with pytest.raises(SettingError, match="latency 'ack': use end_to_end, enqueue"):
        stored.latency(what="ack")


def test_latencies_by_group_add_up(made):
    stored = made.store()
    (whole,) = stored.latency([]).to_dict("records")
    for by in ("phase", "step", "queue", "second", ["phase", "queue"]):
        found = stored.latency(by)
        assert found["count"].sum() == whole["count"] == 20
        assert found["max_ns"].max() == whole["max_ns"]
        names = [by] if isinstance(by, str) else by
        assert list(found.columns) == [
            *names, "count", "mean_ns", "p50_ns", "p90_ns", "p99_ns", "p999_ns", "max_ns"
        ]  # fmt: skip
        keys = [key for key, _frame in stored.distributions(by)]
        assert keys == found[names].to_dict("records")
    (only,) = stored.distributions([])
    assert only[1]["count"].sum() == 20
    assert only[1]["percentile"].iloc[-1] == 100


def test_what_was_superseded_and_never_done_is_told(run, ids):  # noqa: F811
    made = run()
    for task in ids[:3]:
        made.put(task, 10 * MS)
    made.do(ids[0], 300 * MS, Broker.NATS)
    made.do(ids[1], 300 * MS, Broker.NATS)
    ended(made, ids[1], S, Event.SUPERSEDED)
    ended(made, ids[2], S, Event.SUPERSEDED)
    stored = made.store()
    assert stored.totals == {"offered": 3, "accepted": 3, "done": 2, "superseded": 1}
    assert "; 2 of 3 done, 1 superseded" in throughput_finding(stored)


def test_what_the_manifest_says_stands_in_frames(made):
    stored = made.store()
    assert stored.faults.empty
    assert stored.resources.empty
    assert stored.verdicts.empty
    assert stored.gates.empty
    assert stored.attributions.empty
    assert stored.stuck.empty
    assert stored.totals == {"offered": 20, "accepted": 20, "done": 20, "superseded": 0}
    assert throughput_finding(stored).startswith("4 tasks/s accepted on average; 20 of 20 done")
    assert json.loads((stored.folder / "run.json").read_text())["run"] in repr(stored)
