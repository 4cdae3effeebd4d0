"""Medians of rounds with the least and the most of them, as a proof records them."""

import statistics

__all__ = ["spread", "spread_of"]


def spread(values, digits=3):
    """``median``, ``least`` and ``most`` of the rounds, rounded; whole numbers for 0 digits."""
    found = {"median": statistics.median(values), "least": min(values), "most": max(values)}
    return {name: round(value, digits) if digits else round(value) for name, value in found.items()}


def spread_of(name, values, digits=3):
    """The same among other figures: ``name``, ``name_least`` and ``name_most``."""
    found = spread(values, digits)
    return {
        name: found["median"],
        f"{name}_least": found["least"],
        f"{name}_most": found["most"],
    }
