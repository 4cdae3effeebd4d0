"""Which notebooks are executed on which runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from hookbench.errors import SettingError
from hookbench.migration.phases import Phase
from hookbench.results.store import Manifest

__all__ = ["NOTEBOOKS", "Part", "choose_parts", "queue_of"]

NOTEBOOKS = {
    "00_method": "How it was measured",
    "01_queues_compared": "Queues compared",
    "02_phases": "Phases",
    "03_faults": "Faults",
    "04_capacity": "Capacity",
    "05_verdict": "Verdict",
    "06_simulation": "Simulation",
    "07_scale": "Scale",
    "08_growth": "Growth",
}
"""Names of the notebooks in their order, and what each is about."""
_PER_RUN = ("02_phases", "03_faults")


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One execution of a notebook.

    Attributes:
        notebook: its name.
        title: for the table of contents and for progress.
        parameters: that it is executed with.
    """

    notebook: str
    title: str
    parameters: dict[str, Any]


def choose_parts(
    runs: Sequence[tuple[Path, Manifest]],
    *,
    capacity: Path | None = None,
    simulation: Path | None = None,
    matrix: Path | None = None,
    growth: Path | None = None,
    notebooks: Sequence[str] = (),
) -> list[Part]:
    """The notebooks that make sense for runs, in their order.

    ``00_method`` and ``05_verdict`` always do; ``01_queues_compared`` with runs of several queues
    alone; ``02_phases`` for each run with more than one phase, and for a single run; ``03_faults``
    for each run in which a fault fired; ``04_capacity`` with answers of ``hookbench capacity``;
    ``06_simulation`` with a folder of ``hookbench sim``; ``07_scale`` with one of ``hookbench
    matrix``; ``08_growth`` with a measurement of ``make growth``.

    Args:
        runs: folder and manifest of each, the newest last.
        capacity: folder of answers.
        simulation: folder of a search.
        matrix: folder of a matrix.
        growth: file of a measurement.
        notebooks: those that are wanted, by name or by the beginning of one; all without any.

    Raises:
        SettingError: no such notebook, or it has nothing to show of these runs.
    """
    wanted = {_name_of(text) for text in notebooks}
    beside: dict[str, dict[str, Any]] = {
        "04_capacity": {"capacity": capacity and str(capacity)},
        "06_simulation": {"search": simulation and str(simulation)},
        "07_scale": {"matrices": matrix and [str(matrix)]},
        "08_growth": {"growth": growth and str(growth)},
    }
    parts = [
        part
        for name in NOTEBOOKS
        for part in _parts_of(name, runs, beside.get(name), asked=name in wanted)
        if not wanted or name in wanted
    ]
    if missing := wanted - {part.notebook for part in parts}:
        name = min(missing)
        raise SettingError(f"--notebook {name}: {_NOTHING[name]}")
    return parts


_NOTHING = {
    "01_queues_compared": "it compares queues: give runs that use one queue alone, of two queues at"
    " least",
    "03_faults": "no fault fired in any of these runs",
    "04_capacity": "give --capacity FOLDER with answers of hookbench capacity",
    "06_simulation": "give --sim FOLDER, in which hookbench sim has searched",
    "07_scale": "give --matrix FOLDER of a matrix with two payloads",
    "08_growth": "give --growth FILE, a growth.json of make growth",
}


def _name_of(text: str) -> str:
    name = text.removesuffix(".ipynb")
    found = [item for item in NOTEBOOKS if name and item.startswith(name)]
    if len(found) != 1:
        raise SettingError(f"--notebook {text!r}: use one of {', '.join(NOTEBOOKS)}")
    return found[0]


def _parts_of(
    name: str,
    runs: Sequence[tuple[Path, Manifest]],
    beside: dict[str, Any] | None,
    *,
    asked: bool,
) -> list[Part]:
    """The parts of one notebook; ``beside`` are its parameters if it shows no runs."""
    if beside is not None:
        if not all(beside.values()):
            return []
        return [Part(notebook=name, title=NOTEBOOKS[name], parameters=beside)]
    if name in _PER_RUN:
        chosen = [
            (path, manifest)
            for path, manifest in runs
            if (_fired(manifest) if name == "03_faults" else _phased(manifest, runs) or asked)
        ]
        return [
            Part(
                notebook=name,
                title=f"{NOTEBOOKS[name]}: {manifest.design}, run {manifest.run}",
                parameters={"run": str(path)},
            )
            for path, manifest in chosen
        ]
    paths = [str(path) for path, _manifest in runs]
    if name == "01_queues_compared":
        alone = {str(path): queue_of(manifest) for path, manifest in runs}
        paths = [path for path, queue in alone.items() if queue is not None]
        if len({alone[path] for path in paths}) < 2:  # noqa: PLR2004 - two can be compared
            return []
    return [Part(notebook=name, title=NOTEBOOKS[name], parameters={"runs": paths})]


def queue_of(manifest: Manifest) -> str | None:
    """The queue that a run uses alone, ``None`` for a run that uses several."""
    phases = manifest.settings.get("phases")
    used = set(phases) if isinstance(phases, list) else set()
    if used == {int(Phase.REDIS_ONLY)}:
        return f"redis_{manifest.settings.get('redis_kind', 'list')}"
    return "jetstream" if used == {int(Phase.NATS_ONLY)} else None


def _fired(manifest: Manifest) -> bool:
    return any(record.begin_ns is not None for record in manifest.faults)


def _phased(manifest: Manifest, runs: Sequence[tuple[Path, Manifest]]) -> bool:
    phases = manifest.settings.get("phases")
    planned = len(phases) if isinstance(phases, list) else len(manifest.steps)
    return planned > 1 or len(runs) == 1
