"""What a folder of ``hookbench sim`` says: tables by hand, plots that can be read."""

import msgspec
import pytest

pytest.importorskip("pandas", reason="the extra notebooks is not installed")
pytest.importorskip("matplotlib", reason="the extra notebooks is not installed")

from hookbench.errors import ResultsError, SettingError
from hookbench.ledger.model import Verdict
from hookbench.report.api import (
    conformance_table,
    found_table,
    identify_search,
    load_search,
    plot_causes,
    plot_coverage,
    searches_table,
    story_text,
)
from hookbench.report.searches import coverage_of
from hookbench.report.style import figure_of
from hookbench.sim.book import SeedEntry, SimBook
from hookbench.sim.coverage import COVERED_STEPS
from hookbench.sim.replayed import REPLAYS_NAME, Clean, Replay, Replays
from hookbench.sim.schedule import FaultKind, SimFault
from tests.plot_checks import check_texts, check_units
from tests.unit.test_plots import title_of

KINDS = [f"{kind} worker-nats" for kind in FaultKind]
FAULT = SimFault(kind=FaultKind.KILL, target="worker-0", at_s=1.0)


def entry(seed, *causes, scope="guide nats_primary", **cells):
    return SeedEntry(
        seed=seed,
        commit="abc1234",
        scope=scope,
        verdict=Verdict.INVALID if causes else Verdict.VALID,
        digest="",
        faults=(FAULT,) * 3,
        fired=2,
        causes=dict.fromkeys(causes, 1),
        cells=cells,
        accepted=40,
        failing="lost" if causes else "",
        cpu_s=0.5,
    )


def replayed(key, named):
    return Replay(key=key, seeds=1, faults=2, tries=2, named=named, unknown=0)


@pytest.fixture
def folder(tmp_path):
    book = SimBook(tmp_path)
    long = "-/8 # tasks done again although nothing that is known of explains any of them"
    book.add(entry(1, "P10/1", long, **{"kill worker|started": 4, "kill worker|idle": 1}))
    book.add(entry(2, "P10/1", **{"kill worker|started": 1_500, "pause nats|idle": 2}))
    book.add(entry(3))
    book.add(entry(4))
    book.add(entry(1, scope="guide dual_read", **{"pause nats|idle": 5}))
    book.write_totals()
    kept = Replays(
        hardened=Clean(seeds=4, failing=0), causes=(replayed("P10/1", 1), replayed(long, 0))
    )
    (tmp_path / REPLAYS_NAME).write_bytes(msgspec.json.encode(kept))
    for name, text in (("guide_8_1", "another"), ("guide_P10_1_1", "1. it dies\nSo: lost.")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "story.txt").write_text(f"{text}\n")
    return tmp_path


@pytest.fixture
def found(folder):
    return load_search(folder)


def test_each_scope_is_named_and_has_a_row(found):
    assert identify_search(found).splitlines() == [
        "guide nats_primary  hookbench commit abc1234  4 seeds",
        "guide dual_read  hookbench commit abc1234  1 seeds",
    ]
    row = searches_table(found).loc["guide nats_primary"]
    assert (row["seeds"], row["valid"], row["invalid"], row["unknown"]) == ("4", "2", "2", "0")
    assert (row["faults"], row["fired"], row["accepted"]) == ("12", "8", "160")
    assert row["CPU of a seed (s)"] == "0.50"


def test_strikes_of_all_scopes_add_up(found):
    table = coverage_of(found)
    assert list(table.columns) == ["idle", "started"]
    assert table.loc["pause nats"].to_dict() == {"idle": 7, "started": 0}
    axes = plot_coverage(found)
    assert title_of(axes) == "1,512 strikes of faults in 3 of 4 cells of fault and step"
    assert {text.get_text() for text in axes.texts} == {"1", "1k", "7"}


def test_a_whole_table_of_coverage_can_be_read(tmp_path):
    book = SimBook(tmp_path)
    cells = {f"{kind}|{step}": 90 for kind in KINDS for step in COVERED_STEPS}
    book.add(entry(1, **cells))
    book.write_totals()
    axes = plot_coverage(load_search(tmp_path))
    assert len(axes.texts) == len(cells)
    check_texts(figure_of(axes))


def test_what_real_brokers_have_shown_counts(found):
    table = found_table(found)
    assert table["counts"].tolist() == ["found", "not found"]
    assert table["on real brokers"].tolist() == ["1 of 2", "0 of 2"]
    assert set(table["hardened over the same seeds"]) == {"none of 4 failing"}
    axes = plot_causes(found)
    assert [bar.get_width() for bar in axes.patches] == [50, 25]
    assert title_of(axes).endswith("2 causes in 4 seeds, 1 of them shown on real brokers")
    check_texts(figure_of(axes))
    check_units(figure_of(axes))


def test_a_search_without_a_cause_or_a_replay_says_so(tmp_path):
    book = SimBook(tmp_path)
    book.add(entry(1))
    book.write_totals()
    found = load_search(tmp_path)
    assert found_table(found).empty
    assert not plot_causes(found).axison
    assert not plot_coverage(found).axison
    with pytest.raises(SettingError, match="story of anything: there is none; there are none"):
        story_text(found)


def test_a_story_is_found_by_its_hazard(found):
    assert story_text(found) == story_text(found, "P10") == "1. it dies\nSo: lost."
    unknown = msgspec.structs.replace(found, replays=None)
    assert story_text(unknown) == "another"
    with pytest.raises(
        SettingError, match="story of P5: there is none; there are guide_8_1, guide"
    ):
        story_text(found, "P5")


@pytest.mark.parametrize("name", ["sim.json", REPLAYS_NAME])
def test_a_folder_of_something_else_is_named(folder, name):
    (folder / name).write_text('{"a": 1}')
    with pytest.raises(ResultsError, match=name):
        load_search(folder)
    (folder / "sim.json").unlink()
    with pytest.raises(ResultsError, match="hookbench sim --out"):
        load_search(folder)


def test_conformance_is_a_row_per_broker(tmp_path):
    path = tmp_path / "proof.json"
    assert conformance_table(path).empty
    figures = {"Redis": {"operations": 12_000, "differences": 0}, "seconds": 3}
    path.write_bytes(msgspec.json.encode({"name": "x", "figures": figures}))
    table = conformance_table(path)
    assert table.loc["Redis"].to_dict() == {"operations": "12,000", "differences": "0"}
    assert len(table) == 1
