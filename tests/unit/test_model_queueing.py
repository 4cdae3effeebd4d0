"""Waits and batches against what is known exactly, and against plain loops."""

import math
import random

import numpy as np
import pytest

from hookbench.model.batching import mean_batch
from hookbench.model.observations import Setup
from hookbench.model.queueing import chance_to_wait, mean_wait, wait_percentile
from hookbench.model.saturation import flood_of, limits_per_s


@pytest.mark.parametrize("load", [0.2, 0.5, 0.9])
def test_one_server_with_exponential_service_is_exact(load):
    service_s = 0.01
    rate = load / service_s
    assert mean_wait(rate, service_s, 1, 1.0) == pytest.approx(
        load / (1 - load) * service_s, rel=1e-12
    )
    for percentile in (50, 90, 99.9):
        beyond = 1 - percentile / 100
        exact = max(0.0, math.log(load / beyond) / (1 / service_s - rate))
        assert wait_percentile(percentile, rate, service_s, 1) == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize(("servers", "load"), [(2, 0.5), (2, 0.9), (8, 0.8), (32, 0.95)])
def test_several_servers_are_near_erlangs_formula(servers, load):
    offered = servers * load
    terms = [offered**k / math.factorial(k) for k in range(servers)]
    last = offered**servers / math.factorial(servers) / (1 - load)
    erlang = last / (sum(terms) + last)
    exact_s = erlang / (servers * (1 - load))
    assert mean_wait(offered, 1.0, servers, 1.0) == pytest.approx(exact_s, rel=0.1)
    assert chance_to_wait(load, servers) == pytest.approx(erlang, rel=0.1)


def test_the_wait_of_a_constant_service_is_half_as_long():
    assert mean_wait(50, 0.01, 1, 0.5) == pytest.approx(0.5 * 0.01 / 2 / 0.5)


def test_from_capacity_on_the_wait_has_no_end_and_arrays_are_taken():
    rates = np.array([0.0, 50.0, 100.0, 150.0])
    waits = wait_percentile(99, rates, 0.01, 1)
    assert waits[0] == 0
    assert np.isfinite(waits).tolist() == [True, True, False, False]


def batches_by_hand(rate_per_s, task_us, wakeup_us, rounds):
    """A server in a loop: what arrives while it works is its next batch."""
    rng = np.random.default_rng(3)
    batch, seen = 1, []
    for _ in range(rounds):
        seen.append(batch)
        busy_s = (wakeup_us + batch * task_us) / 1e6
        batch = max(1, int(rng.poisson(rate_per_s * busy_s)))
    return sum(seen) / len(seen)


@pytest.mark.parametrize("rate", [100, 3000, 8000, 14_000, 18_000])
def test_mean_batches_are_those_of_a_server_in_a_loop(rate):
    by_hand = batches_by_hand(rate, 50, 150, 20_000)
    assert mean_batch(rate, 50, 150, 1e9) == pytest.approx(by_hand, rel=0.08)


def test_a_batch_is_one_at_a_low_rate_and_the_most_from_capacity_on():
    assert mean_batch(1.0, 50, 150, 32) == pytest.approx(1, abs=1e-6)
    assert mean_batch(20_000.0, 50, 150, 32) == 32
    assert mean_batch(np.array([19_900.0, 1e9]), 50, 150, 100).tolist() == [100, 100]


def test_processes_that_always_have_work_share_the_cores():
    """Each of the three has two thirds of a core."""
    costs = {"producer": 10.0, "broker": 1000.0, "worker": 20.0}
    flood = flood_of("redis_list", costs, Setup(cores=2))
    # The broker is what limits: half of its cost for each put, half for each task that is done.
    assert 0.5 * (flood.accepted_per_s + flood.done_per_s) * 1000e-6 == pytest.approx(1, rel=1e-6)
    costs = {"producer": 10.0, "broker": 1e-9, "worker": 20.0}
    flood = flood_of("redis_list", costs, Setup(cores=1))
    assert flood.accepted_per_s == pytest.approx(50_000, rel=1e-6)
    assert flood.done_per_s == pytest.approx(25_000, rel=1e-6)


def test_workers_that_are_faster_than_producers_do_what_is_put():
    costs = {"producer": 100.0, "broker": 1.0, "worker": 10.0}
    flood = flood_of("jetstream", costs, Setup(cores=8))
    assert (flood.accepted_per_s, flood.done_per_s) == (10_000, 10_000)


def test_no_flood_uses_more_than_the_cores():
    rng = random.Random(2)
    for _ in range(200):
        costs = {role: rng.uniform(1, 200) for role in ("producer", "broker", "worker")}
        setup = Setup(
            producers=rng.randint(1, 4), workers=rng.randint(1, 8), cores=rng.randint(1, 8)
        )
        flood = flood_of("redis_list", costs, setup)
        broker = (flood.accepted_per_s + flood.done_per_s) / 2 * costs["broker"] / 1e6
        used = [
            flood.accepted_per_s * costs["producer"] / 1e6,
            flood.done_per_s * costs["worker"] / 1e6,
        ]
        assert sum(used) + broker <= setup.cores * (1 + 1e-9)
        assert used[0] <= setup.producers * (1 + 1e-9)
        assert used[1] <= setup.workers * (1 + 1e-9)
        assert broker <= 1 + 1e-9
        assert flood.done_per_s <= flood.accepted_per_s * (1 + 1e-9)


def test_limits_by_hand():
    costs = {"producer": 10.0, "broker": 20.0, "worker": 50.0}
    setup = Setup(producers=2, workers=3, cores=2)
    assert limits_per_s("redis_list", costs, setup) == pytest.approx(
        {"producer": 200_000, "broker": 50_000, "worker": 60_000, "machine": 25_000}
    )
    apart = limits_per_s("jetstream", costs, setup, shared=False)
    assert apart == pytest.approx({"producer": 200_000, "broker": 100_000, "worker": 60_000})
