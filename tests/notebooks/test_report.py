"""The rehearsal notebook on a run that really took place."""

import html.parser
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("papermill", reason="the extra notebooks is not installed")
pytest.importorskip("pandas", reason="the extra notebooks is not installed")

import hookbench
from hookbench.report import notebook
from hookbench.report.notebook import ReportError, find_notebook, render_report
from hookbench.report.plots import (
    count_repeats,
    plot_depths,
    plot_latency,
    plot_repeats,
    plot_throughput,
)
from hookbench.report.style import figure_of
from hookbench.results.store import resolve_run
from tests.plot_checks import check_texts

ROOT = Path(__file__).resolve().parents[2]
PLOTS = (plot_throughput, plot_latency, plot_depths, plot_repeats)
OFFLINE_TAGS = {"script", "link", "iframe", "object", "embed"}


@pytest.fixture(scope="session")
def stored_run(tmp_path_factory):
    """A small run of all five phases on embedded brokers."""
    results = tmp_path_factory.mktemp("results")
    command = [
        sys.executable, "-m", "hookbench", "rehearse", "--quick",
        "--phase-seconds", "1.5", "--rate", "200", "--producers", "1", "--workers", "1",
        "--out", str(results),
    ]  # fmt: skip
    answer = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert answer.returncode in {0, 1}, answer.stderr  # an answer about the design, not a failure
    return resolve_run("latest", results)


@pytest.fixture(scope="session")
def frames(stored_run):
    return hookbench.load(stored_run)


@pytest.fixture(scope="session")
def page(stored_run):
    path = render_report(stored_run)
    assert path == stored_run / "report.html"
    assert [item.name for item in stored_run.iterdir() if item.name.startswith(".")] == []
    return path.read_text(encoding="utf-8")


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
        self.text.append(data)
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip()


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


def test_page_holds_plots_with_their_findings_and_no_code(page, frames):
    images = [attributes for tag, attributes in Tags(page).found if tag == "img"]
    assert len(images) == len(PLOTS)
    assert all(image["src"].startswith("data:image/png;base64,") for image in images)
    titles = {" ".join(plot(frames).get_title(loc="left").split()) for plot in PLOTS}
    assert {image["alt"] for image in images} == titles
    assert "hookbench.load" not in page


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
    headings = next(row for row in tags.rows if row[:1] == ["phase"])
    table = {row[0]: dict(zip(headings, row, strict=True)) for row in tags.rows[1:10]}
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


@pytest.mark.parametrize("plot", PLOTS)
def test_no_text_of_a_plot_is_cut_off_or_covers_another(plot, frames):
    check_texts(figure_of(plot(frames)))


def test_a_failing_cell_is_an_error_and_leaves_the_report(stored_run, page, tmp_path, monkeypatch):
    broken = json.loads(find_notebook().read_text())
    broken["cells"][-1]["source"] = ["raise ValueError('of this test')"]
    path = tmp_path / "rehearsal.ipynb"
    path.write_text(json.dumps(broken))
    monkeypatch.setattr(notebook, "find_notebook", lambda: path)
    with pytest.raises(ReportError, match="ValueError: of this test"):
        render_report(stored_run)
    assert (stored_run / "report.html").read_text(encoding="utf-8") == page


def test_missing_extra_names_the_command(stored_run, monkeypatch):
    monkeypatch.setitem(sys.modules, "papermill", None)
    with pytest.raises(ReportError, match=r"papermill.*pip install 'hookbench\[notebooks\]'"):
        render_report(stored_run)


def test_notebook_is_committed_without_outputs_and_with_parameters():
    cells = json.loads(find_notebook().read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    (parameters,) = [cell for cell in code if "parameters" in cell["metadata"].get("tags", [])]
    values = {}
    exec("".join(parameters["source"]), values)  # noqa: S102 - two assignments of this project
    assert (values["run"], values["results"]) == ("latest", "../results")


def test_notebook_of_a_checkout_is_the_one_that_is_used():
    assert find_notebook() == ROOT / "notebooks" / "rehearsal.ipynb"
