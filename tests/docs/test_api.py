"""docs/api.md names modules that are there, and the generator makes a page of one."""

import importlib
import importlib.util
import re

import pytest

from tests.documented import ROOT

PAGE = (ROOT / "docs" / "api.md").read_text()


def named_modules():
    """Those in the table; ``.consumer`` behind another one is its neighbour."""
    for row in re.findall(r"^\| (`hookbench.*?) +\|", PAGE, re.MULTILINE):
        first, *others = re.findall(r"`([\w.]+)`", row)
        package = first.rpartition(".")[0]
        yield from (first, *(f"{package}{name}" for name in others))


def test_the_modules_of_the_page_are_there():
    names = list(named_modules())
    assert len(names) > 10
    assert [name for name in names if importlib.util.find_spec(name) is None] == []


def test_a_page_has_every_public_name_with_its_docstring():
    pdoc = pytest.importorskip("pdoc", reason="pdoc is not installed")
    pdoc.render.configure(docformat="google")
    module = importlib.import_module("hookbench.queues.base")
    page = pdoc.pdoc("hookbench.queues.base")
    assert [name for name in module.__all__ if f'id="{name}"' not in page] == []
    assert "One hand-over of one task to a worker" in page
