import io
import os

import pytest
from rich.console import Console

from hookbench.errors import ResultsError
from hookbench.ledger.model import Verdict
from hookbench.report.table import print_run
from hookbench.results.environment import read_environment
from hookbench.results.store import (
    MANIFEST_NAME,
    MANIFEST_SCHEMA,
    Manifest,
    create_run,
    load_manifest,
    resolve_run,
)


def make_manifest(run="0001-abc"):
    return Manifest(
        schema=MANIFEST_SCHEMA,
        run=run,
        status="complete",
        design="guide",
        seed=7,
        durability="lazy",
        settings={},
        environment=read_environment(),
        started="2026-01-31T12:00:00Z",
        brokers=[],
    )


def store(results, commit="abc"):
    folder = create_run(results, commit)
    folder.save(make_manifest(folder.name))
    return folder.finish()


def test_runs_are_numbered_and_the_latest_is_linked(tmp_path):
    first, second = store(tmp_path), store(tmp_path, "def+")
    assert (first.name, second.name) == ("0001-abc", "0002-def")
    assert resolve_run("latest", tmp_path) == second
    assert resolve_run("0001", tmp_path) == first
    assert resolve_run(str(first), tmp_path) == first


def test_a_run_being_made_is_marked_and_its_number_taken(tmp_path):
    folder = create_run(tmp_path, "abc")
    assert folder.path.name == "0001-abc.partial"
    assert create_run(tmp_path, "abc").name == "0002-abc"


def test_a_manifest_is_read_as_it_was_written(tmp_path):
    run = store(tmp_path)
    manifest = load_manifest(run)
    assert manifest == make_manifest("0001-abc")
    assert manifest.verdict is Verdict.UNKNOWN


@pytest.mark.parametrize("run", ["0009", "nothing", "/no/such/place", "*", "["])
def test_a_run_that_is_not_there_lists_those_that_are(tmp_path, run):
    store(tmp_path)
    with pytest.raises(ResultsError, match="0001-abc"):
        resolve_run(run, tmp_path)


def test_several_runs_that_begin_alike(tmp_path):
    store(tmp_path)
    store(tmp_path)
    with pytest.raises(ResultsError, match="several runs"):
        resolve_run("00", tmp_path)


def test_no_results_folder(tmp_path):
    with pytest.raises(ResultsError, match="none is there"):
        resolve_run("latest", tmp_path / "results")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "damaged"),
        ("{", "damaged"),
        ('{"schema": 1}', "damaged"),
        ('{"schema": 999, "surprise": 1}', "schema 999"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_named(tmp_path, content, message):
    run = store(tmp_path)
    (run / MANIFEST_NAME).write_text(content)
    with pytest.raises(ResultsError, match=message):
        load_manifest(run)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match="--out"):
        create_run(tmp_path / "file" / "results", "abc")
    if os.geteuid() != 0:
        closed = tmp_path / "closed"
        closed.mkdir(mode=0o500)
        with pytest.raises(ResultsError, match="--out"):
            create_run(closed, "abc")


def test_a_cut_off_run_is_shown_as_unknown():
    manifest = make_manifest()
    manifest.unknown_because = ["cut off: interrupted"]
    out = io.StringIO()
    print_run(Console(file=out, width=80), manifest)
    assert "unknown   cut off: interrupted" in out.getvalue()
    assert "UNKNOWN" in out.getvalue()
