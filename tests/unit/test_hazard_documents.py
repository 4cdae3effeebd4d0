"""What README.md and docs/hazards.md say of the hazards is what the evidence says."""

import re
from pathlib import Path

from tests.evidence import hazards_table

ROOT = Path(__file__).resolve().parents[2]


def plain(text):
    """Without the layout, which prettier makes."""
    return [re.sub(r"[ -]+", " ", line).strip() for line in text.splitlines() if line]


def test_the_document_is_what_the_files_say():
    stored = (ROOT / "docs" / "hazards.md").read_text()
    assert plain(stored) == plain(hazards_table.document())


def test_the_readme_has_both_columns_of_all_rows():
    _before, begin, rest = (ROOT / "README.md").read_text().partition(hazards_table.BEGIN)
    stored, end, _after = rest.partition(hazards_table.END)
    assert begin
    assert end
    assert plain(stored) == plain(hazards_table.table())
    assert len(plain(stored)) == 2 + 38
