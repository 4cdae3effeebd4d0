"""What plots of queues and designs side by side draw, computed again with plain pandas."""

import re
import tomllib
from importlib import resources

import numpy as np
import pytest

pytest.importorskip("pandas", reason="the extra notebooks is not installed")

from hookbench.report.api import (
    load_prices,
    plot_cost,
    plot_designs,
    plot_ecdf,
    plot_percentiles,
    plot_resources,
)
from hookbench.results.run import load
from tests.notebooks.drawn import (
    METERS,
    QUANTILES,
    PlainPlots,
    S,
    bars_of,
    close,
    close_in_text,
    line_of,
    title_of,
)
from tests.notebooks.plain import DATA, HDR_ERROR, at, number, same

QUEUES = ("redis_list", "redis_stream", "jetstream")
BAR = 0.5
"""Bars of two designs beside each other are thinner, those of the key are not."""


@pytest.fixture(scope="module")
def queues():
    names = [DATA / name for name in QUEUES]
    return [PlainPlots(name) for name in names], [load(name) for name in names]


def test_latencies_of_queues(queues):
    plains, runs = queues
    curves = {
        "percentiles": plot_percentiles(runs, by="queue"),
        "ecdf": plot_ecdf(runs, by="queue"),
    }
    p99s, medians = [], []
    for name, plain in zip(QUEUES, plains, strict=True):
        values = plain.synthetic["end_to_end_ns"].dropna()
        tail, shown = line_of(curves["percentiles"], name)
        for quantile in QUANTILES:
            place = np.searchsorted(tail, -np.log10(1 - quantile) - 1e-9)
            assert close(shown[place], at(values, quantile))
        ms, share = line_of(curves["ecdf"], name)
        for quantile in QUANTILES:
            place = np.searchsorted(share, 100 * quantile - 1e-9)
            assert close(ms[place], at(values, quantile))
        p99s.append(at(values, 0.99))
        medians.append(at(values, 0.5))
    for title, values in (
        (title_of(curves["percentiles"]), p99s),
        (title_of(curves["ecdf"]), medians),
    ):
        low, high = (number(text) for text in re.findall(r"([\d.,]*\d) ms", title))
        assert close_in_text(low, min(values))
        assert close_in_text(high, max(values))
        assert f"({QUEUES[values.index(min(values))]}) to" in title
        assert f"({QUEUES[values.index(max(values))]}), " in title


def test_resources(queues):
    plains, runs = queues
    panels = plot_resources(runs)
    columns = {"cpu_s": 1e3, "rss_max_bytes": None, "written_bytes": 1e3 / 1e6}
    totals = []
    for axes, (column, times) in zip(panels, columns.items(), strict=True):
        shown = [bar.get_width() for container in axes.containers for bar in container]
        shown = sorted(value for value in shown if value)
        expected = []
        for plain in plains:
            used = plain.used(column)
            values = used / 2**20 if times is None else used / plain.done * times
            expected += [value for value in values if value]
            if column == "cpu_s":
                totals.append(values.drop([r for r in METERS if r in values]).sum())
        assert shown == pytest.approx(sorted(expected))
    factor = re.search(r"([\d.]+) times the CPU", title_of(panels))
    assert same(factor[1], max(totals) / min(totals), error=0)


def test_cost(queues):
    plains, runs = queues
    axes = plot_cost(runs, load_prices())
    text = (resources.files("hookbench.report") / "prices.toml").read_text()
    prices = tomllib.loads(text)
    shown = bars_of(axes)
    totals = []
    for plain, name in zip(plains, QUEUES, strict=True):
        hours = (plain.end_ns - plain.begin_ns) / S / 3600
        cost = plain.used("cpu_s") / 3600 * prices["vcpu_hour"]
        cost += plain.used("rss_max_bytes") / 2**30 * hours * prices["gib_hour"]
        cost += plain.used("written_bytes") / 1e9 * prices["gb_written"]
        cost = cost.drop([role for role in METERS if role in cost]) / plain.done * 1e6
        for role, value in cost.items():
            (bar,) = [shown[key] for key in shown if key[0] == role and key[1].startswith(name)]
            assert bar == pytest.approx(value), (name, role)
        totals.append(cost.sum())
    said = title_of(axes)
    low, high = re.search(r"^([\d.,]+) \(.*\) to ([\d.,]+) " + prices["currency"], said).groups()
    assert same(low, min(totals), error=0.005)
    assert same(high, max(totals), error=0.005)


def test_designs():
    plains = {name: PlainPlots(name) for name in ("guide", "hardened")}
    panels = plot_designs(*(load(DATA / name) for name in plains))
    figures = {}
    for name, plain in plains.items():
        values = plain.synthetic["end_to_end_ns"]
        cpu = plain.used("cpu_s")
        figures[name] = {
            "rate": plain.done_per_s,
            "p50": at(values, 0.5),
            "p99": at(values, 0.99),
            "lost": len(plain.lost),
            "done again": len(plain.repeats),
            "stuck": len(plain.stuck),
            "left in Redis": plain.left,
            "CPU": cpu.drop([role for role in METERS if role in cpu]).sum() / plain.done * 1e3,
        }
    shown = {}
    for axes in panels[:3]:
        names = [text.get_text() for text in axes.get_yticklabels()]
        bars = [bar for item in axes.containers for bar in item if bar.get_height() < BAR]
        for place, name in enumerate(names):
            shown[name] = [bar.get_width() for bar in bars[2 * place : 2 * place + 2]]
    for name in ("rate", "p50", "p99", "lost", "done again", "stuck", "left in Redis"):
        assert close(shown[name], [figures[design][name] for design in plains]), name
    stacked = {"guide": 0.0, "hardened": 0.0}
    for (_role, design), length in bars_of(panels[3]).items():
        stacked[design] += length
    assert stacked == pytest.approx({design: figures[design]["CPU"] for design in plains})
    said = title_of(panels)
    for name in ("rate", "p50", "p99", "CPU"):
        ratio = re.search(rf"{name} x ([\d.,]*\d)", said)[1]
        expected = figures["hardened"][name] / figures["guide"][name]
        assert same(ratio, expected, error=2 * HDR_ERROR), name
    wrongs = [
        sum(figures[design][name] for name in ("lost", "done again", "stuck", "left in Redis"))
        for design in ("hardened", "guide")
    ]
    assert f"{wrongs[0]:,} in place of {wrongs[1]:,} lost" in said
