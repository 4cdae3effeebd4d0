"""The plan of a site as figures: machines and processes of each phase, and what they hold."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from hookbench.model.scale import PhasePlan, SitePlan
from hookbench.model.texts import bytes_text
from hookbench.report.axis import from_zero
from hookbench.report.style import (
    COLOUR_OF_ROLE,
    GREY,
    decorate,
    legend_below,
    new_panels,
)

__all__ = ["plot_site"]

_TIB = 2**40
_WIDTH = 0.38
_GAP = 0.02
_ABOVE = 1.18
"""Room for the numbers above the highest bar."""


def plot_site(found: SitePlan) -> list[Axes]:
    """A planned site phase by phase: broker nodes, processes, and stored bytes, above each other.

    Bytes are those of all nodes without replicas, at the end of the phase or of the outage.
    """
    phases = found.phases
    nodes, processes, stored = panels = new_panels([3.1, 3.1, 3.3])
    _bars(nodes, phases, {
        "redis": [item.redis_nodes for item in phases],
        "nats": [item.nats_nodes for item in phases],
    })  # fmt: skip
    _bars(processes, phases, {
        "producer": [item.producers for item in phases],
        "worker": [item.workers_needed for item in phases],
    })  # fmt: skip
    processes.axhline(found.site.workers, color=GREY, linestyle=":", linewidth=1.2)
    processes.set_ylim(0, max(processes.get_ylim()[1], found.site.workers * _ABOVE))
    _bars(stored, phases, {
        "redis": [item.redis_memory_bytes * item.masters / _TIB for item in phases],
        "nats": [item.stream_disk_bytes * item.streams / _TIB for item in phases],
    }, digits=1)  # fmt: skip
    decorate(nodes, title=_nodes_title(found), x="", y="broker nodes for all tasks")
    decorate(processes, title=_workers_title(found), x="", y="processes for all tasks")
    decorate(stored, title=_stored_title(phases), x="", y="TiB of all tasks")
    for name in ("producer", "worker"):  # one legend for all panels
        stored.bar([0.0], [0.0], color=COLOUR_OF_ROLE[name], label=name)
    legend_below(stored, 4)
    return panels


def _bars(
    axes: Axes, phases: Sequence[PhasePlan], sides: dict[str, list[float]], digits: int = 0
) -> None:
    """Two bars for each phase, with their numbers above; none where there is nothing."""
    places = np.arange(len(phases), dtype=np.float64)
    for side, (name, values) in zip((-1, 1), sides.items(), strict=True):
        at = places + side * (_WIDTH + _GAP) / 2
        axes.bar(at, values, _WIDTH, color=COLOUR_OF_ROLE[name], label=name)
        for place, value in zip(at, values, strict=True):
            if value:
                axes.annotate(
                    f"{value:,.{digits}f}",
                    (float(place), value),
                    xytext=(0, 2),
                    textcoords="offset points",
                    ha="center",
                    fontsize=7.5,
                )
    axes.set_xticks(places, [item.phase for item in phases])
    from_zero(axes)
    most = max(max(values) for values in sides.values())
    axes.set_ylim(0, (most or 1.0) * _ABOVE)


def _nodes_title(found: SitePlan) -> str:
    most = max(found.phases, key=lambda item: item.redis_nodes + item.nats_nodes)
    total = most.redis_nodes + most.nats_nodes
    return (
        f"{found.site.rate_per_s:,.0f} tasks per second: at most {total:,} broker nodes, in"
        f" {most.phase}"
    )


def _workers_title(found: SitePlan) -> str:
    most = max(found.phases, key=lambda item: item.workers_needed)
    there, needed = found.site.workers, most.workers_needed
    enough = "suffice" if needed <= there else "are too few"
    return f"{there:,} workers (dotted) {enough}: {needed:,} are needed in {most.phase}"


def _stored_title(phases: Sequence[PhasePlan]) -> str:
    memory = max(item.redis_memory_bytes * item.masters for item in phases)
    disk = max(item.stream_disk_bytes * item.streams for item in phases)
    return f"Redis holds up to {bytes_text(memory)} of memory, streams {bytes_text(disk)} of disk"
