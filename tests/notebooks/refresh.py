"""Executes the committed notebooks on ``notebooks/data`` and stores their outputs.

``python -m tests.notebooks.refresh``; the tests compare what is committed with a fresh execution.
"""

import sys
from pathlib import Path

import matplotlib as mpl

from hookbench.report.choice import NOTEBOOKS
from hookbench.report.execute import execute_notebooks, import_extra

DRAWN_WITH = f"matplotlib {mpl.__version__}"
FOLDER = Path(__file__).resolve().parents[2] / "notebooks"


def execute(*names):
    """Notebooks with outputs, with nothing in them that depends on when or where they were made.

    Of several the kernel is the same one: they are as if each had been executed alone, but that it
    does not count their cells from 1.
    """
    executed = execute_notebooks(
        [(FOLDER / f"{name}.ipynb", {}) for name in names],
        begins=lambda *_numbers: None,
        folder=FOLDER,
    )
    return [_timeless(notebook) for notebook in executed]


def _timeless(notebook):
    notebook.metadata = import_extra()["nbformat"].from_dict(
        {
            "kernelspec": {
                "display_name": "Python 3 (ipykernel)",
                "language": "python",
                "name": "python3",
            },
            "language_info": {"name": "python"},
            "drawn_with": DRAWN_WITH,
        }
    )
    for cell in notebook.cells:
        cell.metadata = {key: value for key, value in cell.metadata.items() if key == "tags"}
    return notebook


def main(names):
    """Those that are named, or all."""
    for name in names or NOTEBOOKS:
        (notebook,) = execute(name)
        text = import_extra()["nbformat"].writes(notebook, version=4)
        (FOLDER / f"{name}.ipynb").write_text(text.rstrip("\n") + "\n", encoding="utf-8")
        print(f"{name}.ipynb")


if __name__ == "__main__":
    main(sys.argv[1:])
