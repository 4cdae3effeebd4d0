"""Arrival processes, shapes, sizes and repositories: what a load is made of."""

import collections
import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookbench.errors import SettingError
from hookbench.load.arrivals import parse_arrivals
from hookbench.load.payloads import parse_payload
from hookbench.load.repositories import Repositories
from hookbench.load.shapes import Diurnal, Ramp, Steps, parse_shape
from tests.unit.test_load import SECOND, arriving

SHAPES = [
    "ramp:from=0,to=2,over=60",
    "ramp:from=3,to=0.1,over=5",
    "ramp:from=1,to=1,over=10",
    "steps:0.5/1/2,each=10",
    "steps:0/1/0/3,each=0.5",
    "diurnal:period=60,low=0.2",
    "diurnal:period=7,low=0",
    "diurnal:period=7,low=1",
]


@pytest.mark.parametrize("text", SHAPES)
@given(mass=st.floats(min_value=1e-6, max_value=1e4))
def test_a_moment_is_the_one_at_which_that_mass_has_come(text, mass):
    shape = parse_shape(text)
    moment = shape.moment(mass)
    assert moment >= 0
    assert shape.mass(moment) == pytest.approx(mass, rel=1e-6, abs=1e-6)
    assert shape.moment(mass * 1.001) >= moment


@pytest.mark.parametrize("text", SHAPES)
def test_a_shape_reads_what_it_writes_and_starts_at_zero(text):
    shape = parse_shape(text)
    assert parse_shape(shape.text).text == shape.text
    assert shape.mass(0.0) == 0
    assert shape.moment(0.0) >= 0


def rates(text, rate, edges):
    """Tasks per second between the edges, in s."""
    offsets = itertools.takewhile(
        lambda at: at < edges[-1] * SECOND,
        parse_arrivals(text).offsets(rate, random.Random(3)),
    )
    seconds = [offset / SECOND for offset in offsets]
    return [
        sum(low <= at < high for at in seconds) / (high - low)
        for low, high in itertools.pairwise(edges)
    ]


@pytest.mark.parametrize("process", ["constant", "poisson"])
def test_the_rate_follows_the_shape(process):
    near = pytest.approx
    found = rates(f"{process}+ramp:from=0,to=2,over=40", 500, [0, 10, 20, 30, 40, 50])
    assert found == [near(rate, rel=0.1) for rate in (125, 375, 625, 875, 1000)]
    found = rates(f"{process}+steps:0.5/0/2,each=10", 500, [0, 10, 20, 30, 40])
    assert found == [near(250, rel=0.1), 0, near(1000, rel=0.1), near(250, rel=0.1)]
    found = rates(f"{process}+diurnal:period=40,low=0.2", 500, [0, 4, 18, 22, 36, 40])
    assert found[0] == near(0.233 * 500, rel=0.15)  # night, then the peak at noon
    assert found[2] == near(1.787 * 500, rel=0.1)
    assert found[4] == near(found[0], rel=0.2)


@pytest.mark.parametrize(
    ("text", "rate", "seconds", "count"),
    [
        ("constant", 100, 10, 1000),
        ("poisson", 100, 10, 1000),
        ("bursts:size=50", 100, 10, 1000),
        ("constant+ramp:from=0,to=2,over=10", 100, 10, 1000),
        ("constant+ramp:from=0,to=2,over=10", 100, 15, 2000),
        ("poisson+steps:1/3,each=5", 100, 20, 4000),
    ],
)
def test_how_many_come_within_a_time_is_known_before(text, rate, seconds, count):
    assert parse_arrivals(text).count(rate, seconds) == count
    came = rates(text, rate, [0, seconds])[0] * seconds
    assert came == pytest.approx(count, rel=0.25 if text.startswith("bursts") else 0.06)


def test_bursts_come_at_one_moment_and_have_the_rate():
    offsets = arriving("bursts:size=20", 1000, 40_000)
    sizes = collections.Counter(offsets)
    assert set(sizes.values()) == {20}
    assert offsets[-1] / SECOND == pytest.approx(40, rel=0.1)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("random", "arrivals 'random': use constant, poisson, bursts, trace"),
        ("poison", "did you mean 'poisson'"),
        ("poisson:rate=3", "parameter 'rate': use "),
        ("bursts:size=0", "bursts of 0 tasks"),
        ("bursts:size=1.5", r"bursts of 1\.5 tasks"),
        ("bursts:size=many", "size 'many': use a number"),
        ("bursts:20", "use name=number, as in size=20"),
        ("constant+slope", "shape of the load 'slope'"),
        ("constant+ramp:to=0", "ramp: to 0: use between"),
        ("constant+ramp:to=nan", "ramp: to 'nan': use a number"),
        ("constant+ramp:from=1,from=2", "from is given twice"),
        ("constant+ramp:form=1", "did you mean 'from'"),
        ("constant+steps:0/0", "steps 0/0: use one above 0"),
        ("constant+steps:1/x", "factor 'x': use a number"),
        ("constant+diurnal:low=2", "diurnal: low 2: use between 0 and 1"),
        ("constant+diurnal:period=0", "diurnal: period 0"),
    ],
)
def test_what_is_no_arrival_process_is_named(text, told):
    with pytest.raises(SettingError, match=told):
        parse_arrivals(text)


@pytest.mark.parametrize(
    "text",
    ["poisson", "bursts:size=7", "constant+ramp:from=0.5,to=2.0,over=9.0"],
)
def test_arrivals_read_what_they_write(text):
    assert parse_arrivals(text).text == text


def drawn(text, count=20_000):
    rng = random.Random(5)
    sizes = parse_payload(text)
    found = [sizes.draw(rng) for _ in range(count)]
    assert max(found) <= sizes.largest
    assert parse_payload(sizes.text).text == sizes.text
    return found


def test_payloads_have_the_sizes_that_are_asked_for():
    assert set(drawn("256", 100)) == {256}
    assert set(drawn("0", 100)) == {0}
    even = drawn("uniform:min=100,max=199")
    assert (min(even), max(even)) == (100, 199)
    assert sum(even) / len(even) == pytest.approx(149.5, rel=0.02)
    skewed = sorted(drawn("lognormal:median=500,sigma=1,max=100000"))
    assert skewed[10_000] == pytest.approx(500, rel=0.05)
    # 84 % of a log-normal distribution lie below e times its median, with a sigma of 1.
    assert skewed[16_827] == pytest.approx(500 * math.e, rel=0.08)
    assert max(drawn("lognormal:median=500,sigma=3,max=1000")) <= 1000
    two = collections.Counter(drawn("choice:64=9,65536=1"))
    assert set(two) == {64, 65536}
    assert two[65536] / 20_000 == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("-1", "payload '-1'"),
        ("100000000", r"100000000|1e\+08 bytes"),
        ("normal", "did you mean 'lognormal'"),
        ("uniform:min=5,max=4", "min 5 is more than max 4"),
        ("uniform:min=1.5", r"payload of 1\.5 bytes"),
        ("lognormal:median=0", "median 0"),
        ("lognormal:sigma=9", "sigma 9"),
        ("choice:64", "use size=weight"),
        ("choice:64=0", "one above"),
        ("choice:64=-1,1=2", "from 0 on"),
        ("choice:", "use size=weight"),
    ],
)
def test_what_is_no_size_is_named(text, told):
    with pytest.raises(SettingError, match=told):
        parse_payload(text)


def test_repositories_come_in_turn_or_by_zipfs_law():
    rng = random.Random(1)
    even = Repositories(4)
    assert [even.choose(number, rng) for number in range(6)] == [0, 1, 2, 3, 0, 1]
    skewed = Repositories(1000, 1.0)
    counts = collections.Counter(skewed.choose(number, rng) for number in range(50_000))
    assert counts[0] / counts[1] == pytest.approx(2, rel=0.1)
    assert counts[0] / counts[9] == pytest.approx(10, rel=0.2)
    assert max(counts) < 1000


@pytest.mark.parametrize(("count", "skew"), [(0, 0), (5, -1), (5, math.nan), (5, 11), (10**8, 0)])
def test_repositories_out_of_bounds_are_named(count, skew):
    with pytest.raises(SettingError, match=r"repositories|skew"):
        Repositories(count, skew)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Ramp(first=-1, last=1, over_s=1),
        lambda: Ramp(first=1, last=1, over_s=0),
        lambda: Steps((1.0,), each_s=0),
        lambda: Diurnal(period_s=1, low=-1),
    ],
)
def test_shapes_out_of_bounds_are_refused(make):
    with pytest.raises(SettingError, match="use between"):
        make()
