import io
import os
from pathlib import Path

import pytest
from rich.console import Console

from hookbench.brokers.classify import BrokerReport, FoundDurability
from hookbench.errors import ResultsError
from hookbench.ledger.model import Verdict
from hookbench.report.table import print_run
from hookbench.results.environment import read_environment
from hookbench.results.store import (
    MANIFEST_NAME,
    MANIFEST_SCHEMA,
    Manifest,
    ResourceUse,
    create_run,
    load_manifest,
    remove_run,
    resolve_run,
)

RECORDED = Path(__file__).parent / "data" / "manifests"


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


def test_latest_is_a_run_that_is_there(tmp_path):
    first, second, third = store(tmp_path), store(tmp_path), store(tmp_path)
    remove_run(first)
    assert resolve_run("latest", tmp_path) == third
    create_run(tmp_path, "being-made")
    remove_run(third)
    assert resolve_run("latest", tmp_path) == second
    remove_run(second)
    assert not (tmp_path / "latest").is_symlink()


def test_a_run_being_made_is_marked_and_its_number_taken(tmp_path):
    folder = create_run(tmp_path, "abc")
    assert folder.path.name == "0001-abc.partial"
    assert create_run(tmp_path, "abc").name == "0002-abc"


def test_a_manifest_is_read_as_it_was_written(tmp_path):
    run = store(tmp_path)
    manifest = load_manifest(run)
    assert manifest == make_manifest("0001-abc")
    assert manifest.verdict is Verdict.UNKNOWN


def test_a_run_of_the_first_schema_is_still_read(tmp_path):
    manifest = load_manifest_of_schema_1(tmp_path)
    assert (manifest.schema, manifest.run, manifest.verdict) == (1, "0001-1923de9", "invalid")
    assert manifest.durability == "lazy"
    assert manifest.account.rows[0].name == "redis_only"
    assert manifest.account.tasks == 313
    assert manifest.broker_reports == []
    assert {(use.received_bytes, use.sent_bytes) for use in manifest.resources} == {(None, None)}
    out = io.StringIO()
    print_run(Console(file=out, width=160), manifest)
    assert "nats 0.2 s CPU" in out.getvalue()
    assert "B/task" not in out.getvalue()


@pytest.mark.parametrize(
    ("count", "told"), [(0, "done, 0 dead letters, 0 not tasks"), (204, "204 superseded, 0 not")]
)
def test_tasks_that_were_superseded_are_told(tmp_path, count, told):
    manifest = load_manifest_of_schema_1(tmp_path)
    manifest.account.superseded = count
    out = io.StringIO()
    print_run(Console(file=out, width=160), manifest)
    assert told in out.getvalue().replace("\n", " ")


def test_a_run_says_what_its_brokers_were_and_what_went_over_the_network(tmp_path):
    manifest = make_manifest()
    manifest.account = load_manifest_of_schema_1(tmp_path).account
    manifest.broker_reports = [
        BrokerReport(
            name="redis",
            version="8.2.3",
            origin="redis at redis://h",
            durability=FoundDurability.UNREADABLE,
            problem="not readable: NOPERM",
        )
    ]
    manifest.resources = [
        ResourceUse(
            name=name,
            processes=1,
            cpu_s=1.0,
            rss_max_bytes=1,
            read_bytes=0,
            written_bytes=0,
            received_bytes=received,
            sent_bytes=3130,
        )
        for name, received in (("worker-0", 31300), ("worker-1", 62600), ("producer-0", None))
    ]
    out = io.StringIO()
    print_run(Console(file=out, width=160), manifest)
    assert "broker    redis 8.2.3: durability unreadable, not readable: NOPERM" in out.getvalue()
    assert "300 / 20 B/task received / sent; producer" in out.getvalue()
    assert out.getvalue().count("B/task") == 1  # no figure for a half


def load_manifest_of_schema_1(tmp_path):
    run = tmp_path / "schema-1"
    run.mkdir()
    (run / MANIFEST_NAME).write_bytes((RECORDED / "schema-1.json").read_bytes())
    return load_manifest(run)


@pytest.mark.parametrize("run", ["0009", "nothing", "/no/such/place", "*", "["])
def test_a_run_that_is_not_there_lists_those_that_are(tmp_path, run):
    store(tmp_path)
    with pytest.raises(ResultsError, match="0001-abc"):
        resolve_run(run, tmp_path)


def test_the_latest_of_runs_that_have_no_end_names_them(tmp_path):
    create_run(tmp_path, "abc")
    with pytest.raises(ResultsError, match=r"none has come to its end.*0001-abc\.partial"):
        resolve_run("latest", tmp_path)


@pytest.mark.parametrize(
    ("status", "told"),
    [("running", "not at its end"), ("cut off", "cut off before its end"), ("complete", None)],
)
def test_a_run_without_an_end_says_so(status, told):
    manifest = make_manifest()
    manifest.status = status
    out = io.StringIO()
    print_run(Console(file=out, width=160), manifest)
    assert ("status " in out.getvalue()) == (told is not None)
    assert told is None or f"status    {told}" in out.getvalue()
    assert ("hookbench check 0001-abc" in out.getvalue()) == (told is not None)


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
