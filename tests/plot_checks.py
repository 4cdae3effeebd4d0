"""What every plot has to keep: no text is cut off, none covers another, and axes have units."""

import itertools
import re

__all__ = ["check_texts", "check_units"]

UNIT = re.compile(
    r"\((s|ms|MiB|tasks|tasks per second)\)|\b(seconds|CPU seconds|MB written|tasks|executions"
    r"|deliveries|percentile)\b|\bper (second|million|thousand)\b"
)
"""What an axis of numbers counts, in its label."""
OF_TIME = re.compile(r"\b(latency|time|p50|p99|p999)\b")
UNIT_OF_TIME = re.compile(r"\((s|ms)\)")
OF_MEMORY = re.compile(r"\bmemory\b")
UNIT_OF_MEMORY = re.compile(r"\(MiB\)")


def check_texts(figure):
    """Lay a figure out as it is saved, and look at the boxes of all its texts.

    Raises:
        AssertionError: a text lies beyond the figure, or on another one.
    """
    figure.draw_without_rendering()
    boxes = [
        (text.get_text(), text.get_window_extent())
        for text in _texts(figure)
        if text.get_text() and text.get_visible()
    ]
    assert boxes, "a figure without a text"
    inside = figure.bbox.padded(1)
    for name, box in boxes:
        assert inside.containsx(box.x0), f"{name!r} is cut off on the left"
        assert inside.containsx(box.x1), f"{name!r} is cut off on the right"
        assert inside.containsy(box.y0), f"{name!r} is cut off below"
        assert inside.containsy(box.y1), f"{name!r} is cut off above"
    for (name, box), (other, second) in itertools.combinations(boxes, 2):
        assert not box.padded(-1).overlaps(second.padded(-1)), f"{name!r} covers {other!r}"


def check_units(figure):
    """Every axis of numbers says what it counts; one of names (queues, phases) needs no unit.

    Numbers may have the unit themselves, as ``99 %``.

    Raises:
        AssertionError: an axis has numbers alone.
    """
    figure.draw_without_rendering()
    for axes in figure.axes:
        if not axes.axison:
            continue
        for axis in (axes.xaxis, axes.yaxis):
            ticks = [tick.label1.get_text() for tick in axis._update_ticks()]
            ticks = [text for text in ticks if text]
            assert ticks, f"an axis without a tick: {axis.get_label_text()!r}"
            if all(re.fullmatch(r"[-\N{MINUS SIGN}]?[\d.,]+", text) for text in ticks):
                label = axis.get_label_text()
                assert UNIT.search(label), f"numbers without a unit: {label!r}, {ticks}"
                for what, unit in ((OF_TIME, UNIT_OF_TIME), (OF_MEMORY, UNIT_OF_MEMORY)):
                    assert unit.search(label) or not what.search(label), f"no unit: {label!r}"


def _texts(figure):
    texts = list(figure.texts)
    for axes in figure.axes:
        texts += [axes.title, axes._left_title, *axes.texts]
        if axes.axison:
            texts += [axes.xaxis.label, axes.yaxis.label]
            for axis in (axes.xaxis, axes.yaxis):  # only ticks within the limits are drawn
                texts += [tick.label1 for tick in axis._update_ticks()]
        legend = axes.get_legend()
        if legend:
            texts += [*legend.get_texts(), legend.get_title()]
    return texts
