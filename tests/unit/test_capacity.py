"""The search for a capacity, on trials of which the truth is known, and its objectives."""

import random
import re

import numpy as np
import pytest

from hookbench.errors import SettingError
from hookbench.ledger.backlog import backlog_at, backlog_growth
from hookbench.load.objectives import parse_objective
from hookbench.load.search import Trial, find_capacity
from hookbench.migration.phases import Phase
from hookbench.queues.redis_kind import RedisKind
from hookbench.rehearsal.capacity import NULL, null_trial, route_of

SECOND = 1_000_000_000


def up_to(limit, *, errs=lambda _rate: False, silent=()):
    """Trials of a queue that sustains so much; of some rates a trial errs, or says nothing."""
    made = []

    async def trial(rate_per_s):
        made.append(rate_per_s)
        if any(low <= rate_per_s < high for low, high in silent):
            return Trial(rate_per_s=rate_per_s, sustained=None, why="the producers were late")
        good = (rate_per_s < limit) != errs(rate_per_s)
        return Trial(rate_per_s=rate_per_s, sustained=good, why="" if good else "too slow")

    return trial, made


@pytest.mark.parametrize("limit", [3, 99.9, 500, 777, 12_345, 400_000])
async def test_the_interval_holds_the_truth_and_is_narrow(limit):
    trial, made = up_to(limit)
    found = await find_capacity(trial, first_per_s=500)
    assert found.unknown_because == ""
    assert found.low_per_s < limit <= found.high_per_s
    assert found.width <= 0.1
    assert len(made) <= 2 * 17
    ends = (found.low_per_s, found.high_per_s)
    assert all(made.count(rate) == (3 if rate in ends else 2) for rate in made)


async def test_one_bad_sample_does_not_decide():
    seen = set()

    def first_time(rate):
        """The first trial of each rate errs."""
        first = rate not in seen
        seen.add(rate)
        return first

    trial, made = up_to(700, errs=first_time)
    found = await find_capacity(trial, first_per_s=500)
    assert found.low_per_s < 700 <= found.high_per_s
    assert found.unknown_because == ""
    ends = (found.low_per_s, found.high_per_s)
    assert all(made.count(rate) == (5 if rate in ends else 4) for rate in made)


async def test_rates_that_contradict_each_other_are_tried_again():
    """A rate of which the first trials err is found out by the ones above it."""
    left = [500.0, 500.0]

    def errs(rate):
        return rate in left and left.remove(rate) is None

    trial, made = up_to(550, errs=errs)
    found = await find_capacity(trial, first_per_s=500)
    assert found.unknown_because == ""
    assert made.count(500) > 4
    assert found.low_per_s < 550 <= found.high_per_s


async def test_without_a_majority_a_rate_is_not_judged():
    answers = {500: [True, False, None, True, False]}

    async def trial(rate_per_s):
        return Trial(rate_per_s=rate_per_s, sustained=answers[rate_per_s].pop(0), why="silent")

    found = await find_capacity(trial, first_per_s=500)
    assert answers == {500: []}
    assert found.judgements[0].sustained is None
    assert found.unknown_because == "at 500/s: silent"


async def test_noise_near_the_limit_is_an_answer_or_a_reason():
    for seed in range(50):
        rng = random.Random(seed)

        def errs(rate, rng=rng):
            return rng.random() < 0.3 * (0.9 < rate / 1000 < 1.1)

        trial, _made = up_to(1000, errs=errs)
        found = await find_capacity(trial, first_per_s=300)
        assert 800 < found.low_per_s < 1200
        if not found.unknown_because:
            assert found.width <= 0.1


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ((1050, 1100), "the interval is 30% wide, more than 10%"),  # below, and not sustained
        ((1420, 1440), "the interval is 68% wide, more than 10%"),  # above, and sustained
    ],
)
async def test_neighbours_that_contradict_the_search_make_it_unknown(wrong, told):
    trial, _made = up_to(1200, errs=lambda rate: wrong[0] < rate < wrong[1])
    found = await find_capacity(trial, first_per_s=500)
    assert re.fullmatch(told, found.unknown_because), found.unknown_because
    assert found.width > 0.1


@pytest.mark.parametrize(
    ("limit", "silent", "told"),
    [
        (1e9, (), "every rate up to 1,000,000/s was sustained: begin higher"),
        (0, (), "no rate was sustained; at 0/s: too slow"),
        (1e9, ((3_000, 1e9),), "at 4,000/s: the producers were late"),
        (1e9, ((0, 1e9),), "at 500/s: the producers were late"),
    ],
)
async def test_without_an_answer_there_is_a_reason(limit, silent, told):
    trial, made = up_to(limit, silent=silent)
    found = await find_capacity(trial, first_per_s=500)
    assert found.unknown_because == told
    assert len(made) < 60


@pytest.mark.parametrize(
    "bounds", [{"first_per_s": 0}, {"first_per_s": 1e7}, {"first_per_s": 5, "width": 0}]
)
async def test_a_search_out_of_bounds_is_refused(bounds):
    with pytest.raises(SettingError, match="use "):
        await find_capacity(up_to(5)[0], **bounds)


NONE = dict.fromkeys(("lost", "stuck", "duplicated", "refused", "dead"), 0)


def test_an_objective_says_what_is_missed():
    objective = parse_objective("p99<50ms, p99.9 < 0.2s,backlog=flat,lost=0,dead=0")
    assert objective.percentiles == (99.0, 99.9)
    met = {99.0: 49.9, 99.9: 199.0}
    assert objective.missed([met], growth=0.01, counts=NONE) == []
    above = {99.0: 50.0, 99.9: 201.0}
    assert objective.missed([above], growth=0.2, counts={**NONE, "dead": 3}) == [
        "p99 is 50.0 ms, not below 50 ms",
        "p99.9 is 201.0 ms, not below 200 ms",
        "the backlog grows by 20.0% of what is offered",
        "3 dead",
    ]
    assert parse_objective("p50<100us").missed([{50.0: 0.2}], growth=9.0, counts=NONE) == [
        "p50 is 0.2 ms, not below 0.1 ms"
    ]


@pytest.mark.parametrize(("bad", "missed"), [(0, 0), (2, 0), (3, 1), (4, 1)])
def test_a_percentile_is_met_in_at_least_half_of_the_windows(bad, missed):
    windows = [{99.0: 70.0 if index < bad else 10.0} for index in range(4)]
    found = parse_objective("p99<50ms").missed(windows, growth=0.0, counts=NONE)
    assert len(found) == missed
    if missed:
        assert f", not below 50 ms in {bad} of 4 windows" in found[0]


@pytest.mark.parametrize("text", ["", "p99", "p99<5", "p100<5ms", "backlog=0", "lost=1", "x=0,,"])
def test_what_is_no_objective_is_named(text):
    with pytest.raises(SettingError, match="use terms such as p99<50ms,backlog=flat"):
        parse_objective(text)


def test_queues_have_their_phase():
    assert route_of("redis_list") == (Phase.REDIS_ONLY, RedisKind.LIST)
    assert route_of("redis_stream") == (Phase.REDIS_ONLY, RedisKind.STREAM)
    assert route_of("jetstream")[0] is Phase.NATS_ONLY
    assert route_of(NULL)
    with pytest.raises(
        SettingError, match="'kafka': use redis_list, redis_stream, jetstream, null"
    ):
        route_of("kafka")


async def test_the_harness_sustains_little_and_not_everything():
    objective = parse_objective("p99<10s,backlog=flat")
    little = await null_trial(200.0, seconds=1.0, objective=objective)
    assert little.figures["lag_p99_ms"] > 0
    all_of_it = await null_trial(1e6, seconds=0.05, objective=objective)
    assert all_of_it.sustained is False
    assert "the backlog grows by" in all_of_it.why
    with pytest.raises(SettingError, match=r"p99\.9 of the null queue"):
        await null_trial(1.0, seconds=1.0, objective=parse_objective("p99.9<1s"))


class Columns:
    """Tasks that are accepted at a rate, and done at another."""

    def __init__(self, in_per_s, out_per_s, seconds=10):
        count = int(in_per_s * seconds)
        self.accepted = np.ones(count, dtype=bool)
        self.accepted_ns = (np.arange(count) * SECOND / in_per_s).astype(np.int64)
        rate = min(in_per_s, out_per_s)
        self.done_ns = (np.arange(count) * SECOND / rate).astype(np.int64) + 1000
        self.done_count = np.ones(count, dtype=np.int64)


def test_a_backlog_grows_by_what_comes_in_and_does_not_go_out():
    assert backlog_growth(Columns(1000, 800), 0, 9 * SECOND) == pytest.approx(200, rel=0.02)
    assert backlog_growth(Columns(1000, 2000), 0, 9 * SECOND) == pytest.approx(0, abs=1)
    assert backlog_growth(Columns(1000, 800), 5, 5) == 0
    moments = np.array([-1, 5 * SECOND], dtype=np.int64)
    assert backlog_at(Columns(100, 50), moments).tolist() == [0, 251]
