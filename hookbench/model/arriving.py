"""Arrivals of a day, per step: the processes and shapes of the load, as counts."""

from pathlib import Path

import numpy as np

from hookbench.clock import NS_PER_S
from hookbench.load.arrivals import check_rate, parse_arrivals
from hookbench.load.parameters import split_name
from hookbench.load.shapes import parse_shape
from hookbench.load.traces import read_trace
from hookbench.model.terms import Floats

__all__ = ["arrivals_per_step"]


def arrivals_per_step(
    text: str, rate_per_s: float, *, steps: int, step_s: float, rng: np.random.Generator
) -> Floats:
    """Tasks that arrive in each step.

    Of ``constant`` they are the mean; of ``poisson`` and ``bursts`` they are drawn; those of a
    trace are counted, and its rate is its own.

    Args:
        text: see ``parse_arrivals``.
        rate_per_s: mean, which a shape changes over time.
        steps: how many.
        step_s: length of each.
        rng: of what is drawn.

    Raises:
        SettingError, TraceError: see ``parse_arrivals`` and ``check_rate``.
    """
    parse_arrivals(text)
    edges_s = np.arange(steps + 1, dtype=np.float64) * step_s
    name, rest = split_name(text)
    if name == "trace":
        offsets_s = np.asarray(read_trace(Path(rest)).offsets_ns) / NS_PER_S
        return np.diff(np.searchsorted(offsets_s, edges_s)).astype(np.float64)
    process, plus, shaped = text.partition("+")
    masses = parse_shape(shaped).masses(edges_s) if plus else edges_s
    means = np.maximum(0.0, check_rate(rate_per_s) * np.diff(masses))
    if process == "constant":
        return means
    size = float(process.partition("size=")[2] or 20) if process.startswith("bursts") else 1.0
    return np.asarray(rng.poisson(means / size) * size, dtype=np.float64)
