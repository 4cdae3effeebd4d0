"""A stored run that was passed on without its ledger: its tables are what there is."""

import shutil
import uuid

import pytest

pytest.importorskip("pandas", reason="the extra notebooks is not installed")

import pyarrow.parquet as pq

from hookbench.errors import LedgerError, ResultsError
from hookbench.ledger.events import Broker
from hookbench.migration.phases import Phase
from hookbench.results.run import load
from tests.run_by_hand import MS, RunByHand

TASK = uuid.UUID(int=0x0192_F300_0000_7000_8000_0000_0000_0001)


@pytest.fixture
def folder(tmp_path):
    made = RunByHand(tmp_path / "0001-abc1234", (Phase.REDIS_ONLY,))
    made.put(TASK, 10 * MS)
    made.do(TASK, 20 * MS, Broker.REDIS)
    made.store()
    return made.folder


def test_tables_without_their_ledger_are_read_as_they_are(folder):
    before = load(folder).tasks
    shutil.rmtree(folder / "ledger")
    run = load(folder)
    assert run.tasks.equals(before)
    assert run.latency()["count"].tolist() == [1]
    assert sorted(item.name for item in (folder / "tables").iterdir()) == [
        "deliveries.parquet",
        "tasks.parquet",
    ]


def test_a_ledger_without_segments_is_none_that_was_taken_away(folder):
    for segment in (folder / "ledger").iterdir():
        segment.unlink()
    with pytest.raises(LedgerError, match="complete, but"):
        load(folder)


def test_a_column_that_is_missing_is_named_when_the_run_is_loaded(folder):
    path = folder / "tables" / "deliveries.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["nth", "row"]), path)
    with pytest.raises(ResultsError, match=r"no column nth, row; remove the folder .* made anew"):
        load(folder)
    shutil.rmtree(folder / "ledger")
    with pytest.raises(ResultsError, match=r"no column nth, row; the run has no ledger"):
        load(folder)
    path.unlink()
    with pytest.raises(ResultsError, match=r"deliveries.parquet: .*; the run has no ledger"):
        load(folder)
