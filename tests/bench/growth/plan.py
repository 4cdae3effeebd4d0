"""The points of each axis, small for a look and whole for the record."""

import itertools
from typing import NamedTuple

from hookbench.errors import SettingError

__all__ = ["AXES", "QUEUES", "Point", "points_of"]

QUEUES = ("redis_list", "redis_stream", "jetstream")
AXES = {
    "backlog": (1_000, 10_000, 100_000, 1_000_000, 10_000_000),
    "payload": (64, 512, 4_096, 32_768, 524_288),
    "workers": (1, 2, 4, 8, 16, 32, 64),
    "repositories": (1, 10, 100, 1_000, 10_000, 100_000),
    "ledger": (10_000, 100_000, 1_000_000, 10_000_000),
}
"""Tasks that wait; bytes; processes; of the tasks; events."""
_SMALL = 3
"""Points of a small plan: the first ones."""
_DESIGNS = {"repositories": ("guide", "hardened")}
"""Only the hardened design keeps something for each repository."""


class Point(NamedTuple):
    """One point of an axis.

    Attributes:
        axis: one of ``AXES``.
        queue: one of ``QUEUES``; empty where no broker takes part.
        design: guide or hardened.
        value: on the axis.
    """

    axis: str
    queue: str
    design: str
    value: int


def points_of(axes, queues, *, whole):
    """All points, those of an axis and a queue one after the other, the smallest first.

    Args:
        axes: names, in the order of the measurement.
        queues: names.
        whole: every point of an axis, in place of the first few.

    Raises:
        SettingError: a name that is none.
    """
    for name, known in (*((axis, AXES) for axis in axes), *((queue, QUEUES) for queue in queues)):
        if name not in known:
            raise SettingError(f"{name!r}: use {', '.join(known)}")
    points = []
    for axis in axes:
        values = AXES[axis] if whole else AXES[axis][:_SMALL]
        of_queues = ("",) if axis == "ledger" else queues
        for queue, design in itertools.product(of_queues, _DESIGNS.get(axis, ("guide",))):
            if design == "hardened" and queue == "redis_stream":
                continue  # the hardened design is of the queues that migrate
            points += [Point(axis, queue, design, value) for value in values]
    return points
