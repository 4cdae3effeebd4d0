"""A real comparison of this tree with a copy of it in which something was made worse."""

import shutil

import pytest

from tests.bench.compare import ROOT, Selection, compare
from tests.bench.judge import Verdict, worse
from tests.bench.plants import plant_round_trip, slow_codec
from tests.bench.trees import Tree, copy_working_tree

ROUNDS = 5
PLANTED = 0.4
"""Twice what the evidence plants: other tests may run beside this one."""


@pytest.fixture
def trees(tmp_path):
    """This tree, and a copy of it."""
    if not (ROOT / ".git").exists():
        pytest.skip("a comparison needs a git checkout")
    base = copy_working_tree(ROOT, tmp_path / "base")
    shutil.copytree(base.folder, tmp_path / "head")
    return base, Tree("planted", tmp_path / "head")


@pytest.mark.timeout(900)
def test_a_slower_codec_and_one_more_round_trip_are_found(trees, tmp_path):
    base, head = trees
    slow_codec(head, PLANTED)
    plant_round_trip(head)
    told = []
    found = compare(
        base, head, tmp_path / "runs",
        Selection(words="test_encode_task or (test_counts and redis_list)"),
        ROUNDS, tell=told.append,
    )  # fmt: skip
    rows = {
        (row.name.partition("::")[2], row.what): (row.verdict, row.change)
        for row in worse(found.rows)
    }
    verdict, change = rows.pop(("test_encode_task", "ratio"))
    assert verdict is Verdict.SLOWER
    assert PLANTED / 2 < change < PLANTED * 2
    counts = {what: change for (name, what), (_verdict, change) in rows.items()}
    assert {name for name, _what in rows} == {"test_counts[redis_list]"}
    assert counts.pop("wire_bytes") > 0
    assert counts == {"redis_turns": 1, "redis_commands": 1}
    assert "may be slower, so measured again: tests/bench/test_codec.py::test_encode_task" in told
