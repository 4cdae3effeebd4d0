"""Fluid queues in steps of time, as cumulative sums: no loop over the steps."""

import numpy as np

from hookbench.model.terms import Floats

__all__ = ["ages_s", "first_at_most", "lindley", "window_sum"]


def lindley(arrivals: Floats, service: Floats, initial: float = 0.0) -> Floats:
    """What waits at the end of each step: ``q = max(0, q + arrivals - service)``, at once.

    Lindley's recursion is the sum of the differences less its lowest point so far (Lindley, The
    theory of queues with a single server, 1952; the reflection of Skorokhod, 1961).

    Args:
        arrivals: of each step, tasks.
        service: tasks that could be taken in each step.
        initial: what waits before the first one.
    """
    sums = initial + np.cumsum(arrivals - service)
    return np.asarray(sums - np.minimum(0.0, np.minimum.accumulate(sums)))


def window_sum(per_step: Floats, steps: int) -> Floats:
    """The sum over each step and those before it, as many as ``steps`` in all."""
    sums = np.cumsum(per_step)
    gone = np.zeros_like(sums)
    if steps < len(sums):
        gone[steps:] = sums[:-steps]
    return np.asarray(sums - gone)


def ages_s(arrivals: Floats, waiting: Floats, step_s: float) -> Floats:
    """How long the oldest task has waited at the end of each step, s, where the first goes first.

    Args:
        arrivals: of each step.
        waiting: at the end of each step.
        step_s: length of a step.
    """
    ends_s = np.arange(1, len(arrivals) + 1) * step_s
    come = np.concatenate([[0.0], np.cumsum(arrivals)])
    gone = come[1:] - waiting
    came_s = np.interp(gone, come, np.concatenate([[0.0], ends_s]))
    least = 1e-9 * max(1.0, float(come[-1]))
    return np.where(waiting > least, ends_s - came_s, 0.0)


def first_at_most(values: Floats, bound: float, begin: int) -> int | None:
    """The first step from ``begin`` on at whose end a value is within a bound."""
    within = values[begin:] <= bound
    return begin + int(np.argmax(within)) if within.any() else None
