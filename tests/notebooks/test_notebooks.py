"""The committed notebooks: executed again on the committed runs, they say and show the same."""

import base64
import importlib.util
import io
import json
import re

import numpy as np
import pytest

if importlib.util.find_spec("papermill") is None:  # an import takes seconds, of each test process
    pytest.skip("the extra notebooks is not installed", allow_module_level=True)
pytest.importorskip("pandas", reason="the extra notebooks is not installed")
pytest.importorskip("matplotlib", reason="the extra notebooks is not installed")

import matplotlib.image

from hookbench.report.choice import NOTEBOOKS
from hookbench.report.execute import ReportError, execute_notebooks
from hookbench.results.store import load_manifest
from tests.notebooks.refresh import FOLDER, execute

MOST_PIXELS = 0.02
"""Mean difference of the pixels of an image, of a range of 1: fonts are drawn a little otherwise
from one version of matplotlib to the next. What it lets through test_figures_plots.py does not."""
MOST_PIXELS_ALIKE = 1e-4
"""The same where the version is that of the committed images."""
MOST_DATA_BYTES = 2_000_000
MACHINE = re.compile(rb"/(tmp|home|root|work|Users)/|\\\\Users\\\\")


def committed(name):
    return json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))


def code(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def text_of(value):
    return "".join(value)


def picture(output):
    data = base64.b64decode(text_of(output["data"]["image/png"]))
    return matplotlib.image.imread(io.BytesIO(data), format="png")


def said(output):
    """Everything of an output but its pixels."""
    if output["output_type"] == "stream":
        return output["name"], text_of(output["text"])
    data = {
        kind: text_of(value)
        for kind, value in output["data"].items()
        if not kind.startswith("image/")
    }
    return output["output_type"], data, dict(output["metadata"])


@pytest.fixture(scope="module")
def executed():
    """All of them by name, by one kernel, whose start and imports take longer than a notebook."""
    return dict(zip(NOTEBOOKS, execute(*NOTEBOOKS), strict=True))


@pytest.mark.parametrize("name", list(NOTEBOOKS))
def test_committed_outputs_are_those_of_a_fresh_execution(name, executed):
    stored_notebook, fresh_notebook = committed(name), executed[name]
    alike = stored_notebook["metadata"]["drawn_with"] == fresh_notebook["metadata"]["drawn_with"]
    most = MOST_PIXELS_ALIKE if alike else MOST_PIXELS
    before, after = code(stored_notebook), code(fresh_notebook)
    assert len(before) == len(after)
    counts = [cell["execution_count"] for cell in before]
    assert counts == list(range(1, len(before) + 1)), "run from top to bottom"
    shown = 0
    for old, new in zip(before, after, strict=True):
        where = text_of(old["source"])
        assert where == new["source"]
        assert [said(item) for item in old["outputs"]] == [said(item) for item in new["outputs"]]
        for stored, fresh in zip(old["outputs"], new["outputs"], strict=True):
            assert stored.get("name") != "stderr", "a warning is no part of a notebook"
            if "image/png" not in stored.get("data", {}):
                continue
            shown += 1
            assert picture(stored).shape == picture(fresh).shape, where
            assert np.abs(picture(stored) - picture(fresh)).mean() < most, where
    assert shown or name == "00_method", "no plot was shown"


@pytest.mark.parametrize("name", list(NOTEBOOKS))
def test_notebooks_have_parameters_and_no_logic(name):
    cells = code(committed(name))
    (parameters,) = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    assert parameters is cells[0]
    for cell in cells:
        source = text_of(cell["source"])
        assert not re.search(r"^\s*(for|if|while|def|class|try|with)\b", source, re.MULTILINE)
        assert not re.search(r"\bfor \w+ in\b|\blambda\b", source)
        modules = set(re.findall(r"^(?:from|import) (\S+)", source, re.MULTILINE))
        assert modules <= {"hookbench.report.api"}


_MANY_SEEDS = ("04_capacity", "08_growth")
"""What they show is of no seed in particular."""


@pytest.mark.parametrize("name", list(NOTEBOOKS))
def test_first_output_says_what_is_shown(name):
    cells = code(committed(name))
    first = next(cell for cell in cells if cell["outputs"])
    text = text_of(first["outputs"][0]["text"])
    for word in ("commit", "hookbench", *(() if name in _MANY_SEEDS else ("seed",))):
        assert word in text


def test_names_are_those_that_the_report_knows():
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == list(NOTEBOOKS)


def test_nothing_committed_names_this_machine():
    files = [*FOLDER.glob("*.ipynb"), *(FOLDER / "data").rglob("*")]
    files = [path for path in files if path.is_file()]
    assert len(files) > len(NOTEBOOKS)
    for path in files:
        assert not MACHINE.search(path.read_bytes()), path
    data = [path for path in files if (FOLDER / "data") in path.parents]
    assert sum(path.stat().st_size for path in data) < MOST_DATA_BYTES


def test_committed_runs_are_whole_but_for_their_ledger():
    for name in ("guide", "hardened", "faults", "redis_list", "redis_stream", "jetstream"):
        manifest = load_manifest(FOLDER / "data" / name)
        assert manifest.status == "complete"
        assert not (FOLDER / "data" / name / "ledger").exists()
    assert load_manifest(FOLDER / "data" / "guide").verdict == "invalid"
    assert load_manifest(FOLDER / "data" / "hardened").verdict == "valid"


def test_a_cell_that_fails_is_named(tmp_path):
    broken = committed("05_verdict")
    broken["cells"][-1]["source"] = ["raise ValueError('of this test')"]
    broken["cells"][-1]["outputs"] = []
    path = tmp_path / "05_verdict.ipynb"
    path.write_text(json.dumps(broken))
    count = len(code(broken))
    with pytest.raises(ReportError, match=rf"05_verdict.ipynb, cell {count}: ValueError: of this"):
        execute_notebooks([(path, {})], begins=lambda *_numbers: None, folder=FOLDER)


def test_a_parameter_that_a_notebook_does_not_have_is_named():
    with pytest.raises(ReportError, match=r"no parameter runz; it has run, results"):
        execute_notebooks(
            [(FOLDER / "02_phases.ipynb", {"runz": ["x"]})], begins=lambda *_numbers: None
        )


def test_no_name_of_one_notebook_is_known_to_the_next(tmp_path):
    def notebook(name, *sources):
        cells = [
            {
                "cell_type": "code",
                "execution_count": None,
                "id": f"{name}-{number}",
                "metadata": {},
                "outputs": [],
                "source": source,
            }
            for number, source in enumerate(sources)
        ]
        path = tmp_path / f"{name}.ipynb"
        whole = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
        path.write_text(json.dumps(whole))
        return path, {}

    told = []
    with pytest.raises(ReportError, match=r"second.ipynb, cell 2: NameError"):
        execute_notebooks(
            [notebook("first", "here = 1"), notebook("second", "1", "print(here)")],
            begins=lambda *numbers: told.append(numbers),
        )
    assert told == [(1, 1, 1), (2, 1, 2), (2, 2, 2)]
