"""Executes a notebook on a run and writes it as one HTML file that needs no network."""

import html
import json
import os
import sys
import tempfile
from importlib import import_module, resources
from pathlib import Path
from typing import Any

from hookbench.errors import HookbenchError
from hookbench.results.store import load_manifest, write_aside

__all__ = ["REPORT_NAME", "ReportError", "find_notebook", "render_report"]

REPORT_NAME = "report.html"
_NOTEBOOK = "rehearsal.ipynb"
_KERNEL = "python3"
_CELL_TIMEOUT_S = 600
_START_TIMEOUT_S = 60
_WANTED = ("papermill", "nbconvert", "ipykernel", "jupyter_client", "matplotlib", "pandas")


class ReportError(HookbenchError):
    """A report cannot be made: something is not installed, or a cell of the notebook failed."""


def render_report(run: Path) -> Path:
    """Execute the rehearsal notebook on ``run``; the path of the HTML file in its folder.

    The kernel is the interpreter of this process, whatever kernels are installed. The file is
    written aside and renamed, so that a failure leaves the one that was there.

    Raises:
        ResultsError: the run cannot be read.
        ReportError: the extra is not installed, a cell failed, or the folder is not writable.
    """
    modules = _import_extra()
    folder = run.resolve()
    manifest = load_manifest(folder)
    executed = _execute(modules, find_notebook(), folder)
    title = f"hookbench rehearsal {manifest.run}: design {manifest.design}, {manifest.verdict}"
    path = folder / REPORT_NAME
    try:
        write_aside(path, _as_page(modules["nbconvert"], executed, title).encode())
    except OSError as error:
        raise ReportError(f"report {path}: {error.strerror}") from error
    return path


def find_notebook(name: str = _NOTEBOOK) -> Path:
    """A notebook of the checkout, else the copy that a wheel carries.

    Raises:
        ReportError: neither is there.
    """
    package = Path(__file__).resolve().parent
    places = (package.parents[1] / "notebooks" / name, package / name)
    for path in places:
        if path.is_file():
            return path
    raise ReportError(
        f"notebook {name}: neither {places[0]} nor {places[1]}; install hookbench anew"
    )


def _import_extra() -> dict[str, Any]:
    """The packages of the extra ``notebooks``, imported only when a report is made."""
    try:
        return {name: import_module(name) for name in _WANTED}
    except ImportError as error:
        raise ReportError(
            f"a report needs {error.name}, which is not installed; run:"
            f" {sys.executable} -m pip install 'hookbench[notebooks]'"
        ) from error


def _execute(modules: dict[str, Any], notebook: Path, run: Path) -> Any:
    papermill = modules["papermill"]
    client_error = import_module("nbclient.exceptions").CellControlSignal
    with tempfile.TemporaryDirectory(prefix="hookbench-kernel-") as folder:
        try:
            return papermill.execute_notebook(
                str(notebook),
                None,
                parameters={"run": str(run), "results": str(run.parent)},
                kernel_name=_KERNEL,
                kernel_manager_class=_own_kernels(modules, Path(folder)),
                language="python",
                progress_bar=False,
                execution_timeout=_CELL_TIMEOUT_S,
                start_timeout=_START_TIMEOUT_S,
            )
        except papermill.PapermillExecutionError as error:
            raise ReportError(
                f"notebook {notebook.name} on {run}: cell {error.exec_count} failed:"
                f" {error.ename}: {error.evalue}"
            ) from error
        except (papermill.exceptions.PapermillException, client_error, RuntimeError) as error:
            raise ReportError(f"notebook {notebook.name} on {run}: {error}") from error


def _own_kernels(modules: dict[str, Any], folder: Path) -> type:
    """A kernel manager that knows one kernel: this interpreter."""
    spec = folder / _KERNEL
    spec.mkdir()
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    content = {"argv": command, "display_name": "hookbench", "language": "python"}
    (spec / "kernel.json").write_text(json.dumps(content))
    client = modules["jupyter_client"]
    specs = client.kernelspec.KernelSpecManager(
        kernel_dirs=[str(folder)], ensure_native_kernel=False
    )

    own: dict[str, Any] = {
        "kernel_spec_manager": specs,
        "connection_file": str(folder / "connection.json"),
    }
    if os.name == "posix":  # sockets in a folder of this user's own, instead of TCP ports
        own["transport"] = "ipc"

    def initialise(self: Any, **options: Any) -> None:
        client.AsyncKernelManager.__init__(self, **{**options, **own})

    return type("OwnKernelManager", (client.AsyncKernelManager,), {"__init__": initialise})


def _as_page(nbconvert: Any, executed: Any, title: str) -> str:
    """The outputs and texts, without code, inside of ``page.html`` beside this module.

    nbconvert's own page loads MathJax and more from the network, hence only its cells are taken.
    """
    try:
        exporter = nbconvert.HTMLExporter(
            template_name="basic",
            exclude_input=True,
            exclude_input_prompt=True,
            exclude_output_prompt=True,
            exclude_anchor_links=True,
        )
        body, _resources = exporter.from_notebook_node(executed)
    except ValueError as error:  # its templates are data files beside the environment
        raise ReportError(f"nbconvert cannot make a page, install it anew: {error}") from error
    page = (resources.files("hookbench.report") / "page.html").read_text(encoding="utf-8")
    return page.replace("@TITLE@", html.escape(title)).replace("@BODY@", body)
