"""Executes notebooks from top to bottom, their parameters set by papermill."""

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hookbench.errors import HookbenchError

__all__ = ["ReportError", "check_extra", "execute_notebooks", "find_notebook", "import_extra"]

_KERNEL = "python3"
_CELL_TIMEOUT_S = 600
_START_TIMEOUT_S = 60
_WANTED = (
    "papermill",
    "nbclient",
    "nbconvert",
    "nbformat",
    "ipykernel",
    "jupyter_client",
    "matplotlib",
    "pandas",
    "pyarrow",
    "scipy",
)
_SLOW = "rfc3987_syntax"
"""jsonschema checks IRIs by it where it is installed, and makes its grammar at the import, which
takes longer than all else here; the schema of notebooks has no IRIs."""
_FORGET = "%reset -f\nimport gc\ngc.collect();"
Places = dict[int, tuple[int, int]]
"""By the place of a cell of code: number of its notebook, and its own among the cells of code."""
CellBegins = Callable[[int, int, int], None]
"""Is told the numbers of a notebook and of its cell of code, from 1, and how many cells it has."""


class ReportError(HookbenchError):
    """A report cannot be made: something is not installed, or a cell of a notebook failed."""


def check_extra() -> None:
    """Tell early what is not installed, without the seconds that an import of it all takes.

    Raises:
        ReportError: a package of the extra ``notebooks``; the text says how to install it.
    """
    for name in _WANTED:
        if find_spec(name) is None:
            raise _not_installed(name)


def import_extra() -> dict[str, Any]:
    """The packages of the extra ``notebooks``, imported only when a report is made.

    Raises:
        ReportError: one is not installed; the text has the command that installs it.
    """
    try:
        with _as_if_missing(_SLOW):
            return {name: import_module(name) for name in _WANTED}
    except ImportError as error:
        raise _not_installed(error.name) from error


def _not_installed(name: str | None) -> ReportError:
    return ReportError(
        f"a report needs {name}, which is not installed; run:"
        f" {sys.executable} -m pip install 'hookbench[notebooks]'"
    )


@contextlib.contextmanager
def _as_if_missing(name: str) -> Iterator[None]:
    """Imports meanwhile do without a module, unless it is imported already."""
    if name in sys.modules:
        yield
        return
    hidden: dict[str, Any] = sys.modules
    hidden[name] = None
    try:
        yield
    finally:
        del hidden[name]


def find_notebook(name: str) -> Path:
    """A notebook of the checkout, else the copy that a wheel carries.

    Raises:
        ReportError: neither is there.
    """
    package = Path(__file__).resolve().parent
    file = f"{name}.ipynb"
    places = (package.parents[1] / "notebooks" / file, package / "notebooks" / file)
    for path in places:
        if path.is_file():
            return path
    raise ReportError(
        f"notebook {file}: neither {places[0]} nor {places[1]}; install hookbench anew"
    )


def execute_notebooks(
    notebooks: Sequence[tuple[Path, dict[str, Any]]],
    *,
    begins: CellBegins,
    folder: Path | None = None,
) -> list[Any]:
    """Execute notebooks one after another; each with its outputs.

    The kernel is the interpreter of this process, whatever kernels are installed. All of them have
    the same one, which forgets every name after each: its imports are what takes longest.

    Args:
        notebooks: path of each, and values for names of its cell ``parameters``; without any it
            stays as it is.
        begins: is told each cell of code as it begins.
        folder: that relative paths in them count from; by default that of this process.

    Raises:
        ReportError: the extra is not installed, one is no notebook, has no such parameter, or a
            cell failed.
    """
    modules = import_extra()
    read = [_parametrised(modules, path, parameters) for path, parameters in notebooks]
    whole, places = _joined(modules, read)
    now = (0, 0)

    def on_cell_start(cell: Any, cell_index: int) -> None:  # noqa: ARG001 - named by nbclient
        nonlocal now
        if cell_index in places:
            now = places[cell_index]
            begins(*now, sum(number == now[0] for number, _cell in places.values()))

    def failed(text: str) -> ReportError:
        number, at = now
        return ReportError(f"notebook {notebooks[number - 1][0].name}, cell {at}: {text}")

    exceptions = modules["nbclient"].exceptions
    with tempfile.TemporaryDirectory(prefix="hookbench-kernel-") as kernels:
        client = modules["nbclient"].NotebookClient(
            whole,
            kernel_manager_class=_own_kernels(modules, Path(kernels)),
            kernel_name=_KERNEL,
            timeout=_CELL_TIMEOUT_S,
            startup_timeout=_START_TIMEOUT_S,
            record_timing=False,
            on_cell_start=on_cell_start,
            resources={"metadata": {"path": str(folder or Path.cwd())}},
        )
        try:
            client.execute()
        except exceptions.CellExecutionError as error:
            raise failed(f"{error.ename}: {error.evalue}") from error
        except (exceptions.CellControlSignal, RuntimeError) as error:
            raise failed(str(error)) from error
    return read


def _joined(modules: dict[str, Any], notebooks: Sequence[Any]) -> tuple[Any, Places]:
    """All cells as one notebook, which share their outputs with those they are from."""
    new = modules["nbformat"].v4
    whole = new.new_notebook()
    places: Places = {}
    for number, notebook in enumerate(notebooks, 1):
        if number > 1:
            whole.cells.append(new.new_code_cell(_FORGET))
        counted = 0
        for cell in notebook.cells:
            if cell.cell_type == "code":
                counted += 1
                places[len(whole.cells)] = (number, counted)
            whole.cells.append(cell)
    return whole, places


def _parametrised(modules: dict[str, Any], path: Path, parameters: dict[str, Any]) -> Any:
    read = import_module("papermill.iorw").load_notebook_node
    try:
        notebook = (
            read(str(path)) if parameters else modules["nbformat"].read(str(path), as_version=4)
        )
    except (OSError, ValueError) as error:
        raise ReportError(f"notebook {path}: {error}") from error
    if not parameters:
        return notebook
    known = modules["papermill"].inspect_notebook(str(path))
    if unknown := sorted(set(parameters) - set(known)):
        raise ReportError(
            f"notebook {path.name}: no parameter {', '.join(unknown)}; it has"
            f" {', '.join(known) or 'none'}"
        )
    parameterize = import_module("papermill.parameterize").parameterize_notebook
    return parameterize(notebook, parameters, kernel_name=_KERNEL, language="python")


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
