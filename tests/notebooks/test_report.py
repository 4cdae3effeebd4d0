"""The report of two runs that really took place, made by ``hookbench rehearse --report``."""

import html.parser
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

if importlib.util.find_spec("papermill") is None:  # an import takes seconds, of each test process
    pytest.skip("the extra notebooks is not installed", allow_module_level=True)
pytest.importorskip("pandas", reason="the extra notebooks is not installed")

import pyarrow.parquet as pq

from hookbench.cli.report import make_reports
from hookbench.report import execute, notebook
from hookbench.report.api import (
    answer_text,
    load_answers,
    load_prices,
    plot_cost,
    plot_depths,
    plot_designs,
    plot_ecdf,
    plot_knee,
    plot_latency,
    plot_latency_over_time,
    plot_percentiles,
    plot_recovery,
    plot_redeliveries,
    plot_repeats,
    plot_resources,
    plot_stuck,
    plot_throughput,
)
from hookbench.report.execute import find_notebook
from hookbench.report.notebook import ReportError, render_report
from hookbench.report.plots import count_repeats
from hookbench.report.style import figure_of
from hookbench.results.run import load
from hookbench.results.store import encode_manifest, load_manifest, resolve_run
from tests.forks import Forks
from tests.notebooks.faulty_run import make_faulty_run
from tests.plot_checks import check_texts, check_units

pytestmark = pytest.mark.timeout(400)
ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "notebooks" / "data"
OF_PHASES = (
    plot_repeats,
    plot_depths,
    plot_stuck,
    plot_throughput,
    plot_latency,
    plot_latency_over_time,
)
OF_FAULTS = (plot_recovery, plot_throughput, plot_latency_over_time, plot_redeliveries)
OFFLINE_TAGS = {"script", "link", "iframe", "object", "embed"}


@pytest.fixture(scope="session")
def rehearsed(tmp_path_factory):
    """Both designs through all five phases on embedded brokers: what the command said, results."""
    results = tmp_path_factory.mktemp("results")
    command = [
        sys.executable, "-m", "hookbench", "rehearse", "--quick", "--design", "both", "--report",
        "--phase-seconds", "1.5", "--rate", "100", "--producers", "1", "--workers", "1",
        "--out", str(results),
    ]  # fmt: skip
    answer = subprocess.run(command, capture_output=True, text=True, timeout=380, check=False)
    assert answer.returncode in {0, 1}, answer.stderr  # an answer about the design, not a failure
    return answer, results


@pytest.fixture(scope="session")
def stored_run(rehearsed):
    return resolve_run("0001", rehearsed[1])


@pytest.fixture(scope="session")
def hardened_run(rehearsed):
    return resolve_run("0002", rehearsed[1])


@pytest.fixture(scope="session")
def frames(stored_run):
    return load(stored_run)


@pytest.fixture(scope="session")
def page(hardened_run):
    assert [item.name for item in hardened_run.iterdir() if item.name.startswith(".")] == []
    return (hardened_run / "report.html").read_text(encoding="utf-8")


class Tags(html.parser.HTMLParser):
    """Every tag of a page with its attributes, its text, and the cells of its tables by row."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.text = []
        self.rows = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        elif tag in {"th", "td"}:
            self.rows[-1].append("")

    def handle_data(self, data):
        data = data.replace("\N{NO-BREAK SPACE}", " ")
        self.text.append(data)
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip()


def hookbench(*arguments, cwd=None, **environment):
    return subprocess.run(
        [sys.executable, "-m", "hookbench", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
        cwd=cwd,
        env={**os.environ, **environment},
    )


@pytest.fixture(scope="module")
def forked(tmp_path_factory):
    """The same for reports that are refused: most of each would be its imports."""
    needed = ("hookbench.cli.main", "hookbench.cli.report", "hookbench.report.api")
    forks = Forks(needed, tmp_path_factory.mktemp("forks"))
    yield lambda *arguments: forks.call("hookbench", arguments)
    forks.close()


def titles(plots, *arguments):
    """The findings that plots have as titles, on one line each."""
    found = set()
    for plot in plots:
        axes = plot(*arguments)
        first = axes[0] if isinstance(axes, list) else axes
        found.add(" ".join(first.get_title(loc="left").split()))
    return found


def test_a_rehearsal_ends_by_naming_its_report(rehearsed, stored_run, hardened_run):
    answer, _results = rehearsed
    last = answer.stdout.splitlines()[-1]
    assert last == f"report    {hardened_run / 'report.html'}"
    assert not (stored_run / "report.html").exists()
    assert "report    notebook 1 of 4, cell 1 of " in answer.stderr
    assert "--report $(ARGS)" in (ROOT / "Makefile").read_text()


def test_page_needs_no_network(page):
    tags = Tags(page).found
    assert {tag for tag, _ in tags} & OFFLINE_TAGS == set()
    addresses = [
        attributes[name]
        for _, attributes in tags
        for name in ("src", "href", "srcset", "data")
        if name in attributes
    ]
    assert addresses, "the plots have addresses"
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert "@import" not in page
    assert "url(" not in page
    assert "mathjax" not in page.lower()


def test_page_holds_plots_with_their_findings_and_no_code(page, frames, hardened_run):
    images = [attributes for tag, attributes in Tags(page).found if tag == "img"]
    assert len(images) == 2 * len(OF_PHASES) + 1
    assert all(image["src"].startswith("data:image/png;base64,") for image in images)
    hardened = load(hardened_run)
    expected = titles(OF_PHASES, frames) | titles(OF_PHASES, hardened)
    expected |= titles([plot_designs], frames, hardened)
    assert {image["alt"] for image in images} == expected
    assert "load_runs" not in page


def test_page_begins_with_the_answer_and_its_contents(page, frames, hardened_run):
    text = "".join(Tags(page).text)
    answers = answer_text([frames]).removesuffix("."), answer_text([load(hardened_run)])
    assert "may not go into dual_read" in answers[0]
    assert "may go on, through all 4 changes of phase" in answers[1]
    for answer in answers:
        assert text.count(answer) >= 1
    links = re.findall(r'<a href="#(part\d+)">([^<]+)</a>', page)
    runs = [frames.manifest.run, load_manifest(hardened_run).run]
    assert links == [
        ("part1", "How it was measured"),
        ("part2", f"Phases: guide, run {runs[0]}"),
        ("part3", f"Phases: hardened, run {runs[1]}"),
        ("part4", "Verdict"),
    ]
    assert [name for name, _title in links] == re.findall(r'<section id="(part\d+)">', page)
    headings = re.findall(r"<h1\b[^<>]*>([^<>]*)</h1>", page)
    assert headings[1:] == [*(title for _name, title in links[:3]), "May we go on?"]


def test_page_says_where_the_run_comes_from_and_its_verdict(page, frames):
    manifest = frames.manifest
    tags = Tags(page)
    text = "".join(tags.text)
    for said in (
        manifest.run,
        f"seed       {manifest.seed}",
        manifest.environment.commit,
        f"hookbench {manifest.environment.hookbench}",
        f"durability {manifest.durability}",
        f"design {manifest.design}: {manifest.verdict.upper()}",
    ):
        assert said in text
    number = next(i for i, row in enumerate(tags.rows) if row[:3] == ["phase", "verdict", "tasks"])
    headings, count = tags.rows[number], len(manifest.account.rows)
    rows = tags.rows[number + 1 : number + 1 + count]
    table = {row[0]: dict(zip(headings, row, strict=True)) for row in rows}
    assert list(table) == [row.name for row in manifest.account.rows]
    for row in manifest.account.rows:
        assert table[row.name]["verdict"].lower() == row.verdict
        assert table[row.name]["duplicated"] == f"{row.duplicated:,}"
        assert table[row.name]["tasks"] == f"{row.tasks:,}"
    for finding in manifest.account.findings:
        assert finding.text in text


def test_frames_agree_with_the_account(frames):
    account = frames.manifest.account
    tasks = frames.tasks
    assert tasks["offered"].sum() == account.tasks
    assert tasks["accepted"].sum() == account.accepted
    assert tasks["refused"].sum() == account.refused
    assert tasks["doubtful"].sum() == account.doubtful
    assert (tasks["done_count"] > 0).sum() == account.done
    assert tasks["dead"].sum() == account.dead
    assert (tasks["offered"] & tasks["pushed"]).sum() == account.pushed_tasks
    assert (frames.deliveries["nth"] > 0).sum() == tasks["done_count"].sum()
    assert len(frames.repeats) == account.duplicated
    assert account.duplicated > 0, "guide replays the stream: the run proves nothing without"
    assert frames.row_names == [row.name for row in account.rows]
    repeats = count_repeats(frames).reindex(frames.row_names, fill_value=0)
    per_phase = tasks.groupby("phase", observed=True).size()
    for row in account.rows:
        assert repeats.loc[row.name].sum() == row.duplicated, row.name
        assert repeats.loc[row.name, "explained"] == row.explained, row.name
        if row.transition:
            crossing = tasks[(tasks["step"] < row.step) & (tasks["done_step"] == row.step)]
            assert len(crossing) == row.tasks
            continue
        assert per_phase[row.name] == row.tasks
        synthetic = tasks[tasks["offered"] & ~tasks["pushed"]]
        here = synthetic[synthetic["phase"] == row.name]
        for column in ("enqueue_ns", "end_to_end_ns"):
            values = np.sort(here[column].dropna().astype("int64"))
            stored = getattr(row, column)
            for name, quantile in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999)):
                rank = max(1, int(quantile * len(values) + 0.5))
                # Three significant digits: the upper end of a bucket.
                assert values[rank - 1] <= stored[name] <= values[rank - 1] * 1.001
            assert values[-1] == stored["max"]


def test_timeline_loses_nothing(frames):
    for freq, seconds in (("100ms", 0.1), ("1s", 1.0)):
        timeline = frames.timeline(freq)
        sums = (timeline.set_index("time_s") * seconds).sum()
        assert sums["accepted_per_s"] == pytest.approx(frames.manifest.account.accepted)
        assert sums["done_per_s"] == pytest.approx((frames.deliveries["nth"] > 0).sum())
        assert sums["repeated_per_s"] == pytest.approx(frames.manifest.account.duplicated)
        synthetic = frames.tasks[frames.tasks["offered"] & ~frames.tasks["pushed"]]
        assert timeline["max_ns"].max() == synthetic["end_to_end_ns"].max()


def test_samples_end_with_what_was_left(frames):
    residue = frames.manifest.residue
    last = frames.samples.iloc[-1]
    assert last["redis_pending"] == len(residue.places["redis-pending"])
    assert frames.samples["time_ns"].is_monotonic_increasing


@pytest.mark.parametrize("plot", OF_PHASES)
def test_no_text_of_a_plot_is_cut_off_or_covers_another(plot, frames, hardened_run):
    check_texts(figure_of(plot(frames)))
    check_texts(figure_of(plot(load(hardened_run))))


def test_no_text_of_a_committed_plot_is_cut_off_or_covers_another():
    runs = {name: load(DATA / name) for name in ("guide", "hardened", "faults")}
    queues = [load(DATA / name) for name in ("redis_list", "redis_stream", "jetstream")]
    shown = [plot(run) for run in runs.values() for plot in (*OF_PHASES, *OF_FAULTS)]
    shown += [plot(queues, by="queue") for plot in (plot_percentiles, plot_ecdf)]
    shown += [plot_cost(queues, load_prices()), plot_knee(load_answers(DATA / "capacity"))]
    shown += [plot_designs(runs["guide"], runs["hardened"]), plot_resources(queues)]
    for axes in shown:
        figure = figure_of(axes[0] if isinstance(axes, list) else axes)
        check_texts(figure)
        check_units(figure)


def test_a_failing_cell_is_an_error_and_leaves_the_report(
    stored_run, hardened_run, page, tmp_path, monkeypatch
):
    broken = json.loads(find_notebook("05_verdict").read_text())
    broken["cells"][-1]["source"] = ["raise ValueError('of this test')"]
    path = tmp_path / "05_verdict.ipynb"
    path.write_text(json.dumps(broken))
    monkeypatch.setattr(notebook, "find_notebook", lambda _name: path)
    with pytest.raises(ReportError, match="ValueError: of this test"):
        render_report([stored_run, hardened_run], notebooks=["05"])
    assert (hardened_run / "report.html").read_text(encoding="utf-8") == page


def test_one_notebook_goes_to_a_file_of_ones_choice(stored_run, tmp_path):
    target = tmp_path / "verdict.html"
    answer = hookbench("report", stored_run, "--notebook", "05", "--to", target)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout == f"{target}\n"
    page = target.read_text(encoding="utf-8")
    assert page.count("<section") == 1
    text = "".join(Tags(page).text)
    assert "No price: it takes a guide and a hardened run" in text
    assert "No gate was asked: the measures of guide leave the gates out." in text


def test_missing_extra_names_the_command(stored_run, monkeypatch):
    monkeypatch.setitem(sys.modules, "papermill", None)
    with pytest.raises(ReportError, match=r"papermill.*pip install 'hookbench\[notebooks\]'"):
        render_report([stored_run])


def test_a_run_cut_off_half_way_has_a_report_that_says_so(stored_run, tmp_path):
    run = tmp_path / "0003-cut"
    shutil.copytree(stored_run, run, ignore=shutil.ignore_patterns("tables", "report.html"))
    manifest = load_manifest(run)
    manifest.status, manifest.run = "cut off", "0003-cut"
    manifest.account = manifest.residue = None
    manifest.steps = manifest.steps[:2]
    manifest.verdict = "unknown"
    manifest.unknown_because = ["cut off: CancelledError"]
    (run / "run.json").write_bytes(encode_manifest(manifest))
    answer = hookbench("report", run)
    assert answer.returncode == 0, answer.stderr
    text = "".join(Tags((run / "report.html").read_text(encoding="utf-8")).text)
    assert "Whether guide (run 0003-cut) may go on is not known: cut off: CancelledError." in text
    assert "Nothing was checked: the run has no account (cut off)." in text
    assert "No phase was changed in these runs." in text


def test_a_run_whose_harness_was_killed_has_a_report_that_claims_nothing(tmp_path):
    run = make_faulty_run(tmp_path)
    manifest = load_manifest(run)
    manifest.status, manifest.verdict, manifest.unknown_because = "running", "unknown", []
    manifest.account = manifest.residue = None
    manifest.steps = []
    killed = run.rename(run.with_name(f"{run.name}.partial"))
    (killed / "run.json").write_bytes(encode_manifest(manifest))
    shutil.rmtree(killed / "tables")
    for path in (killed / "ledger").iterdir():  # as if it was full in the middle of a write
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 + 7])
    (killed / "samples.jsonl").write_text('{"time_ns":10')
    page = render_report([killed]).read_text(encoding="utf-8")
    text = "".join(Tags(page).text)
    assert "may go on is not known: it has no account (running)." in text
    assert text.count("damaged    segment ") == len(list((killed / "ledger").iterdir()))
    assert text.count("Nothing was checked: the run has no account (running).") == 4
    for claim in ("Nothing was lost", "No process died", "There was no such window", "No findings"):
        assert claim not in text


def one_line(answer, *said):
    """An error of one line that says so, with its exit code and nothing else."""
    assert answer.returncode == 2, answer.stderr
    (line,) = answer.stderr.splitlines()
    for text in said:
        assert text in line
    assert answer.stdout == ""


def test_what_cannot_be_read_is_one_line(tmp_path, forked):
    run = tmp_path / "0001-abc1234"
    shutil.copytree(DATA / "guide", run)
    manifest = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**manifest, "schema": 99}))
    one_line(hookbench("report", run), "schema 99, this version reads up to", "newer one")
    (run / "run.json").write_text(json.dumps(manifest)[:-100])
    one_line(forked("report", run), "run.json: damaged")
    (run / "run.json").write_text(json.dumps(manifest))

    path = run / "tables" / "tasks.parquet"
    table, key = pq.read_table(path), pq.read_metadata(path).metadata[b"hookbench"]

    def write(part, **changes):
        changed = json.dumps({**json.loads(key), **changes}).encode()
        pq.write_table(part.replace_schema_metadata({b"hookbench": changed}), path)

    write(table.drop_columns(["done_ns"]))
    one_line(forked("report", run), "tasks.parquet: no column done_ns", "copy the whole run")
    (run / "ledger").mkdir()  # with a ledger it could be made anew; here it holds nothing
    one_line(forked("report", run), "complete, but", "holds no ledger segments")
    (run / "ledger").rmdir()
    write(table, schema=99)
    one_line(forked("report", run), "schema 99, this version reads up to")
    write(table, schema=0)
    one_line(forked("report", run), "schema 0, and there is no ledger")
    pq.write_table(table.replace_schema_metadata({}), path)
    one_line(forked("report", run), "it does not say what it is of", "copy the whole run")
    path.write_bytes(b"junk")
    one_line(forked("report", run), "tasks.parquet", "copy the whole run")
    one_line(forked("report", "none", "--out", tmp_path), "run 'none'", "no such run")
    one_line(forked("report", DATA / "guide", "--notebook", "09"), "--notebook '09': use one of")
    one_line(forked("report", DATA / "guide", "--notebook", "03"), "no fault fired in any of these")
    one_line(
        forked("report", DATA / "guide", "--capacity", tmp_path / "none"),
        "answers ",
        "no such folder",
    )
    assert not list((DATA / "guide").glob("*.html"))


def test_a_report_that_fails_is_said_and_takes_no_verdict_back(tmp_path, capfd):
    make_reports(["0001-abc1234"], tmp_path, json=False)
    said = capfd.readouterr()
    assert "no such run" in said.err
    again = "hookbench report 0001-abc1234"
    assert f"report    none, it ended with 2; once mended: {again}" in said.err
    assert said.out == ""


def test_without_a_browser_there_is_no_pdf_and_that_is_said(stored_run, tmp_path):
    target = tmp_path / "page.html"
    common = ("report", stored_run, "--notebook", "00", "--to", target, "--pdf")
    answer = hookbench(*common, PATH=str(tmp_path), HOOKBENCH_CHROMIUM="")
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout == f"{target}\n"
    assert answer.stderr.splitlines()[-1].startswith("no PDF: no Chromium or Chrome on PATH")
    target.unlink()
    answer = hookbench(*common, HOOKBENCH_CHROMIUM="no-such-browser")
    one_line(answer, "HOOKBENCH_CHROMIUM 'no-such-browser': no such program")
    assert not target.exists(), "it is known before the notebooks are executed"


def test_a_browser_that_fails_is_named_and_leaves_the_page(tmp_path):
    browser = tmp_path / "chromium"
    browser.write_text("#!/bin/sh\necho 'no display' >&2\nexit 7\n")
    browser.chmod(0o755)
    target = tmp_path / "page.html"
    answer = hookbench(
        "report", DATA / "guide", "--notebook", "00", "--to", target, "--pdf",
        HOOKBENCH_CHROMIUM=str(browser),
    )  # fmt: skip
    assert answer.returncode == 2
    assert "ended with 7 (no display); the page is" in answer.stderr
    assert target.exists()
    assert sorted(item.name for item in tmp_path.iterdir()) == ["chromium", "page.html"]


def test_notebooks_of_a_checkout_are_those_that_are_used():
    assert find_notebook("02_phases") == ROOT / "notebooks" / "02_phases.ipynb"
    with pytest.raises(ReportError, match=r"notebook 07_none\.ipynb: neither"):
        execute.find_notebook("07_none")
