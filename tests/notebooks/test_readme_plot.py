"""README's first picture says what the committed runs say."""

import pytest

pytest.importorskip("matplotlib", reason="the extra notebooks is not installed")

from tests.notebooks.readme_plot import PICTURE, ROOT, described, draw, runs


def test_the_words_of_the_picture_are_those_of_the_runs():
    picture = f"![{described(runs())}]({PICTURE.relative_to(ROOT)})"
    assert picture in (ROOT / "README.md").read_text()
    assert PICTURE.read_bytes().startswith(b"\x89PNG")


def test_it_can_be_drawn_again(tmp_path):
    path = tmp_path / "images" / "again.png"
    assert "done again" in draw(path)
    assert path.stat().st_size > 10_000
