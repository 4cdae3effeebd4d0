"""What axes show, read off their marks, and the series of a run that it is held against."""

import numpy as np
import pandas as pd
import pytest

from tests.notebooks.plain import HDR_ERROR, Plain

__all__ = [
    "BIN_S",
    "METERS",
    "QUANTILES",
    "PlainPlots",
    "S",
    "bars_of",
    "close",
    "close_in_text",
    "edges_of",
    "first_of",
    "line_of",
    "title_of",
]

S = 1e9
BIN_S = 0.25
QUANTILES = (0.5, 0.9, 0.99)
METERS = {"proxy", "harness"}


class PlainPlots(Plain):
    """Series that plots show, of one run."""

    def __init__(self, folder):
        super().__init__(folder)
        self.begin_ns = min(step["start_ns"] for step in self.steps)
        self.end_ns = max(step["end_ns"] for step in self.steps)
        self.executions = self.deliveries[self.deliveries["nth"] > 0]
        self.repeats = self.deliveries[self.deliveries["nth"] > 1]
        self.redelivered = self.deliveries[self.deliveries["attempt"] > 1]
        self.faults = [item for item in self.manifest["faults"] if item["begin_ns"] is not None]

    def rates(self, times_ns, edges_s):
        """Events per second between edges since the start."""
        seconds = (times_ns.dropna() - self.begin_ns) / S
        return np.histogram(seconds, edges_s)[0] / np.diff(edges_s)

    def longest_s(self, times_ns, fault):
        """The longest time between two of these that reaches into a fault; NaN for none after."""
        times = np.sort(times_ns.dropna().astype("int64"))
        end_ns = fault["end_ns"]
        first = max(0, np.searchsorted(times, fault["begin_ns"]) - 1)
        near = times[first : np.searchsorted(times, end_ns, "right") + 1]
        return np.diff(near).max() / S if len(near) > 1 else np.nan

    def used(self, column):
        """By role, over all of its processes."""
        frame = pd.DataFrame(self.manifest["resources"])
        role = frame["name"].str.replace(r"-\d+$", "", regex=True)
        return frame.groupby(role)[column].sum()


def first_of(axes):
    return axes[0] if isinstance(axes, list) else axes


def title_of(axes):
    text = " ".join(first_of(axes).get_title(loc="left").split())
    return text.replace("\N{NO-BREAK SPACE}", " ")


def line_of(axes, label):
    (line,) = [line for line in axes.lines if line.get_label() == label]
    return np.asarray(line.get_xdata(), dtype=float), np.asarray(line.get_ydata(), dtype=float)


def edges_of(seconds):
    return np.append(seconds, seconds[-1] + BIN_S)


def bars_of(axes):
    """Lengths of the bars of each label, by the name of their row."""
    names = [text.get_text() for text in axes.get_yticklabels()]
    ticks = axes.get_yticks()
    found = {}
    for container in axes.containers:
        for bar in container:
            if bar.get_width():
                middle = bar.get_y() + bar.get_height() / 2
                name = names[int(np.abs(ticks - middle).argmin())].replace("\n", " ")
                key = (container.get_label(), name)
                found[key] = found.get(key, 0.0) + bar.get_width()
    return found


def close(value, expected):
    return value == pytest.approx(expected, rel=2 * HDR_ERROR)


def close_in_text(shown, value):
    """A number of a title has two digits or a whole number."""
    return abs(shown - value) <= (0.051 if value < 10 else 0.51) + HDR_ERROR * value
