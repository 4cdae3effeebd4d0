"""What README.md says of Redis and NATS is what the books of the matrices say."""

import re

import pytest

pytest.importorskip("pandas", reason="the extra notebooks is not installed")

from hookbench.report.matrix import load_summary
from hookbench.report.matrix_tables import as_markdown
from tests.evidence.matrix_table import BEGIN, END, FOLDER, MATRICES, tables
from tests.evidence.record import ROOT


def plain(text):
    """Without the layout, which prettier makes."""
    return [re.sub(r"[ -]+", " ", line).strip() for line in text.splitlines() if line]


def test_the_readme_has_the_tables_of_the_books():
    _before, begin, rest = (ROOT / "README.md").read_text().partition(BEGIN)
    stored, end, _after = rest.partition(END)
    assert begin
    assert end
    assert plain(stored) == plain(tables())


@pytest.mark.parametrize("name", MATRICES)
def test_a_matrix_is_whole_and_its_report_is_that_of_its_book(name):
    summary, book = load_summary(FOLDER / name)
    assert summary.made == summary.planned
    assert len(book.sessions) >= 1
    assert not any(session.environment.commit.endswith("+") for session in book.sessions)
    assert (FOLDER / name / "matrix.md").read_text() == as_markdown(summary)
    for kind in summary.plan.kinds:
        assert (FOLDER / name / f"{kind}.png").read_bytes().startswith(b"\x89PNG")
