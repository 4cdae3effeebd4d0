"""Colours, bands and shades: the same in every plot, and told apart by everybody."""

import itertools

import numpy as np
import pytest

pytest.importorskip("pandas", reason="the extra notebooks is not installed")
pytest.importorskip("matplotlib", reason="the extra notebooks is not installed")

from matplotlib.colors import to_hex, to_rgb

import hookbench
from hookbench.report.api import load_answers
from hookbench.report.fault_shades import FAULT
from hookbench.report.plots import plot_depths, plot_repeats, plot_throughput
from hookbench.report.plots_cost import plot_cost, plot_resources
from hookbench.report.plots_knee import plot_knee
from hookbench.report.plots_latency import plot_ecdf, plot_percentiles
from hookbench.report.plots_over_time import plot_latency_over_time
from hookbench.report.style import (
    ACCEPTED,
    COLOUR_OF_QUEUE,
    COLOUR_OF_ROLE,
    COLOUR_OF_RUN,
    DONE,
    EXPLAINED,
    REPEATED,
    STYLE_OF_PHASE,
)
from tests.notebooks.plain import DATA

# Of colour vision without one kind of cone, in linear RGB (Machado, Oliveira and Fernandes,
# IEEE Transactions on Visualization and Computer Graphics 15, 2009, severity 1.0).
SEEN_BY = {
    "all": np.eye(3),
    "protanopes": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopes": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopes": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
TOGETHER = {
    "queues": list(COLOUR_OF_QUEUE.values()),
    "over time": [ACCEPTED, DONE, REPEATED, FAULT],
    "causes of repeats": [COLOUR_OF_QUEUE["jetstream"], EXPLAINED, REPEATED],
    "roles that cost": [COLOUR_OF_ROLE[name] for name in ("redis", "nats", "producer", "worker")],
}
"""Colours that stand in one plot and are told apart by nothing else."""
LEAST_DISTANCE = 15.0
"""In CIELAB; about 2 is seen side by side at all."""
OVER_TIME = [plot_throughput, plot_latency_over_time, plot_depths]


def lab(colour, matrix):
    """CIELAB of a colour as somebody sees it, under D65."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(matrix @ linear, 0, 1)
    to_xyz = np.array(
        [
            [0.4124564, 0.3575761, 0.1804375],
            [0.2126729, 0.7151522, 0.0721750],
            [0.0193339, 0.1191920, 0.9503041],
        ]
    )
    x, y, z = np.cbrt((to_xyz @ seen) / np.array([0.95047, 1.0, 1.08883]))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("eyes", SEEN_BY)
@pytest.mark.parametrize("group", TOGETHER)
def test_colours_of_one_plot_are_told_apart_by_everybody(group, eyes):
    for one, other in itertools.combinations(TOGETHER[group], 2):
        distance = np.linalg.norm(lab(one, SEEN_BY[eyes]) - lab(other, SEEN_BY[eyes]))
        assert distance >= LEAST_DISTANCE, (one, other)


def test_red_and_green_are_not_told_apart_by_everybody():
    red, green = (lab(colour, SEEN_BY["deuteranopes"]) for colour in ("#C0504D", "#777A3A"))
    assert np.linalg.norm(red - green) < LEAST_DISTANCE, "the check finds what it is for"


def test_phases_and_runs_have_dashes_or_colours_of_their_own():
    dashes = [style["linestyle"] for style in STYLE_OF_PHASE.values()]
    assert len(set(dashes)) == len(dashes) == 5
    assert len(set(COLOUR_OF_RUN)) == len(COLOUR_OF_RUN)
    of_queues = {COLOUR_OF_QUEUE[name] for name in ("redis_list", "redis_stream", "jetstream")}
    assert not of_queues & set(COLOUR_OF_RUN)


@pytest.fixture(scope="module")
def queues():
    return [hookbench.load(DATA / name) for name in ("redis_list", "redis_stream", "jetstream")]


@pytest.fixture(scope="module")
def guide():
    return hookbench.load(DATA / "guide")


def colour(artist):
    found = artist.get_facecolor() if hasattr(artist, "get_facecolor") else artist.get_color()
    return to_hex(found).upper()


def test_a_queue_has_its_colour_in_every_plot(queues, guide):
    for plot in (plot_percentiles, plot_ecdf):
        lines = {line.get_label(): colour(line) for line in plot(queues, by="queue").lines}
        assert lines == {name: COLOUR_OF_QUEUE[name] for name in lines}
        assert len(lines) == 3
    depths = {line.get_label(): colour(line) for line in plot_depths(guide).lines}
    shown = {label: value for label, value in depths.items() if not label.startswith("_")}
    expected = {"Redis": "redis_list", "JetStream": "jetstream"}
    assert len(shown) == 4
    for label, value in shown.items():
        queue = next(name for word, name in expected.items() if label.startswith(word))
        assert value == COLOUR_OF_QUEUE[queue]
    (replayed,) = [
        item for item in plot_repeats(guide).containers if "JetStream" in item.get_label()
    ]
    assert {colour(bar) for bar in replayed} == {COLOUR_OF_QUEUE["jetstream"]}
    knee = plot_knee(load_answers(DATA / "capacity"))
    (line,) = [item for item in knee.lines if str(item.get_label()).startswith("jetstream")]
    assert colour(line) == COLOUR_OF_QUEUE["jetstream"]
    costs = {item.get_label(): colour(item[0]) for item in plot_cost(queues).containers}
    assert (costs["redis"], costs["nats"]) == (
        COLOUR_OF_QUEUE["redis_list"], COLOUR_OF_QUEUE["jetstream"],
    )  # fmt: skip
    panel = plot_resources(queues)[0]
    roles = [text.get_text() for text in panel.get_yticklabels()]
    for container in panel.containers:
        bars = [bar for bar in container if bar.get_width()]
        if len(bars) == len(roles):
            assert [colour(bar) for bar in bars] == [COLOUR_OF_ROLE[role] for role in roles]


@pytest.mark.parametrize("plot", OVER_TIME)
def test_phases_are_bands_with_their_names(plot, guide):
    axes = plot(guide)
    texts = [text.get_text() for text in axes.texts]
    assert texts == list(guide.phases["phase"])
    spans = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in axes.patches]
    assert spans == list(zip(guide.phases["start_s"], guide.phases["end_s"], strict=True))


@pytest.mark.parametrize("plot", OVER_TIME)
def test_faults_are_shades_with_their_place_and_a_key(plot):
    run = hookbench.load(DATA / "faults")
    axes = plot(run)
    shades = [bar for bar in axes.patches if colour(bar)[:7] == FAULT]
    spans = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in shades]
    assert spans == list(zip(run.faults["begin_s"], run.faults["end_s"], strict=True))
    assert {"0", "1", "nats_primary"} == {text.get_text() for text in axes.texts}
    key = " ".join(axes.get_legend().get_title().get_text().split())
    assert key == "faults: 0 kill_at_step worker-0; 1 pause nats"
