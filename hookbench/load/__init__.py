"""Load: open-loop arrivals through the reference producer.

``hookbench.load(path)`` reads a stored run. Whoever imports a module of this package makes
``hookbench.load`` the package, so the package can be called as well, and does the same.
"""

import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hookbench.results.run import Run

__all__: list[str] = []


class _Package(ModuleType):
    """A package that is called like ``hookbench.results.run.load``."""

    def __call__(self, run: str | Path = "latest", results: str | Path = "results") -> "Run":
        """Read a stored run, see there."""
        from hookbench.results.run import load  # noqa: PLC0415 - needs the extra, and half a second

        return load(run, results)


sys.modules[__name__].__class__ = _Package
