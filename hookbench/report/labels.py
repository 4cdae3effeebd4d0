"""Names by which several runs in one plot are told apart."""

from collections.abc import Callable, Sequence

from hookbench.errors import SettingError
from hookbench.results.run import Run

__all__ = ["run_labels"]


def run_labels(runs: Sequence[Run]) -> list[str]:
    """One per run, by the first thing in which all of them differ, else by run and folder.

    Raises:
        SettingError: there is no run.
    """
    if not runs:
        raise SettingError("runs []: give at least one, as hookbench.load reads it")
    for name in _NAMES:
        labels = [name(run) for run in runs]
        if len(set(labels)) == len(runs):
            return labels
    return [f"{number} {run.manifest.run}" for number, run in enumerate(runs, start=1)]


def _queue(run: Run) -> str:
    phases = list(dict.fromkeys(run.phases["phase"]))
    if phases == ["redis_only"]:
        return f"redis_{run.manifest.settings.get('redis_kind', 'list')}"
    if phases and set(phases) <= {"nats_primary", "nats_only"}:
        return "jetstream"
    return phases[0] if len(phases) == 1 else f"{len(phases)} phases"


def _rate(run: Run) -> str:
    rate = run.manifest.settings.get("rate_per_s")
    return "no rate" if rate is None else f"{rate:,g} tasks/s"


_NAMES: tuple[Callable[[Run], str], ...] = (
    lambda run: run.manifest.design,
    lambda run: run.manifest.durability,
    _queue,
    _rate,
    lambda run: f"{run.manifest.design}, {run.manifest.durability}",
    lambda run: f"{run.manifest.design}, {_queue(run)}",
    lambda run: run.manifest.run,
    lambda run: f"{run.folder.parent.name}/{run.manifest.run}",
)
