"""Predictions of a fitted model: bottlenecks by name, latency by parts, conditions refused."""

import math

import msgspec
import pytest

from hookbench.errors import ResultsError, SettingError
from hookbench.model.fit import fit_model
from hookbench.model.observations import Setup, read_observations
from hookbench.model.predict import Conditions, predict, predict_rates
from tests.unit.measured_by_hand import (
    CLASS,
    DONE_SHARE,
    FIXED_MS,
    KIB_MS,
    SETUP,
    make_measured,
    true_cost_us,
    true_limits_per_s,
)

HERE = Conditions(route="jetstream", payload_bytes=1024.0, rate_per_s=1000.0, setup=SETUP)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = make_measured(tmp_path_factory.mktemp("matrix") / "m")
    return fit_model(read_observations([folder]))


def with_setup(conditions=HERE, **changes):
    return msgspec.structs.replace(
        conditions, setup=msgspec.structs.replace(conditions.setup, **changes)
    )


def test_the_least_limit_is_the_capacity_and_has_a_name(model):
    found = predict(model, HERE)
    names = ("producer", "broker", "worker", "machine")
    limits = dict(zip(names, true_limits_per_s("jetstream", "lazy", 1024), strict=True))
    expected = {name: pytest.approx(DONE_SHARE * value, rel=0.01) for name, value in limits.items()}
    assert found.limits_per_s == expected
    assert found.bottleneck == min(limits, key=limits.get) == "machine"
    assert found.capacity_per_s == expected["machine"]
    assert found.growth_per_s == 0


@pytest.mark.parametrize(
    ("changes", "bottleneck"),
    [
        ({"workers": 8, "cores": 2}, "machine"),
        ({"workers": 8, "cores": 64}, "producer"),
        ({"workers": 8, "producers": 8, "cores": 4}, "machine"),
        ({"workers": 2, "producers": 8, "cores": 64}, "worker"),
        ({"service_ms": 100.0}, "slots"),
    ],
)
def test_more_of_one_makes_another_the_bottleneck(model, changes, bottleneck):
    assert predict(model, with_setup(**changes)).bottleneck == bottleneck


def test_a_redis_is_one_thread_however_many_cores_there_are(model):
    many = {"workers": 100, "producers": 100, "cores": 64}
    found = predict(model, with_setup(msgspec.structs.replace(HERE, route="redis_list"), **many))
    assert found.bottleneck == "broker"
    broker_us = true_cost_us("redis_list", "lazy", "broker", 1024, 1.0)
    assert found.capacity_per_s == pytest.approx(DONE_SHARE * 1e6 / broker_us, rel=0.01), (
        "a hundred callers over a hundred producers: one task under way in each"
    )


def test_latency_is_its_parts(model):
    found = predict(model, HERE).latency_ms["p99_ms"]
    limit = DONE_SHARE * min(true_limits_per_s("jetstream", "lazy", 1024))
    wait_ms = math.log(1000 / limit / 0.01) / (limit - 1000) * 1e3
    expected = FIXED_MS["p99_ms"] * CLASS["lazy"] + KIB_MS + wait_ms
    assert found == pytest.approx(expected, rel=0.02)
    assert _added_ms(model, "jetstream", 0.5, "p99_ms") == pytest.approx(0.5)
    assert _added_ms(model, "dual_write", 0.5, "p99_ms") == pytest.approx(1.0)
    assert _added_ms(model, "dual_write", 0.5, "enqueue_p50_ms") == pytest.approx(1.0)
    assert _added_ms(model, "jetstream", 0.5, "enqueue_p50_ms") == pytest.approx(0.5)


def _added_ms(model, route, rtt_ms, figure):
    near = msgspec.structs.replace(HERE, route=route)
    far = msgspec.structs.replace(near, rtt_ms=rtt_ms)
    return predict(model, far).latency_ms[figure] - predict(model, near).latency_ms[figure]


def test_latency_grows_with_the_rate_up_to_capacity_and_then_there_is_none(model):
    capacity = predict(model, HERE).capacity_per_s
    shares = (0.1, 0.5, 0.9, 0.99, 1.0, 1.5)
    found = predict_rates(model, HERE, [share * capacity for share in shares])
    values = [item.latency_ms["p99_ms"] for item in found]
    assert values[4:] == [None, None]
    assert values[:4] == sorted(values[:4])
    assert values[3] > 10 * values[0]
    assert found[-1].growth_per_s == pytest.approx(0.5 * capacity)
    for item in found[:4]:
        tail = item.latency_ms
        assert tail["p50_ms"] < tail["p99_ms"] < tail["p999_ms"]


def test_percentiles_that_were_measured_the_wrong_way_round_are_ordered(tmp_path):
    def change(record):
        if record.trial.kind == "throughput":
            return {}
        return {"figures": record.figures | {"p99_ms": 0.1, "p50_ms": 5.0, "p999_ms": 1.0}}

    model = fit_model(read_observations([make_measured(tmp_path / "m", change=change)]))
    found = predict(model, HERE).latency_ms
    assert found["p50_ms"] == found["p99_ms"] == found["p999_ms"] == pytest.approx(5.0, rel=0.1)


def test_batches_grow_and_costs_fall_with_the_rate(model):
    capacity = predict(model, HERE).capacity_per_s
    found = predict_rates(model, HERE, [100.0, 0.5 * capacity, 0.99 * capacity])
    batches = [item.batch["worker"] for item in found]
    assert batches == sorted(batches)
    assert batches[0] == pytest.approx(1, abs=0.01)
    assert batches[-1] > 1.5
    costs = [item.cpu_us["worker"] for item in found]
    assert costs == sorted(costs, reverse=True)
    for item in found:
        assert item.cpu_us["worker"] == pytest.approx(
            true_cost_us("jetstream", "lazy", "worker", 1024, item.batch["worker"]), rel=0.03
        )
        busy = item.conditions.rate_per_s * item.cpu_us["worker"] / 1e6
        assert item.busy["worker"] == pytest.approx(busy)


def test_slots_are_what_the_consumer_allows(model):
    slow = with_setup(workers=50, producers=4, cores=64, service_ms=100.0)
    assert predict(model, slow).limits_per_s["slots"] == pytest.approx(100 / 0.1)
    on_redis = msgspec.structs.replace(slow, route="redis_list")
    assert predict(model, on_redis).limits_per_s["slots"] == pytest.approx(50 * 32 / 0.1)
    at_half = msgspec.structs.replace(slow, rate_per_s=500.0)
    longer = predict(model, at_half).latency_ms["p50_ms"]
    quick = msgspec.structs.replace(slow.setup, service_ms=0.0)
    short = predict(model, msgspec.structs.replace(at_half, setup=quick)).latency_ms["p50_ms"]
    assert longer - short == pytest.approx(100, abs=1)


def test_what_waits_for_a_disk_is_not_helped_by_cores(tmp_path):
    def change(record):
        if str(record.trial.cell.durability) != "fsync" or record.trial.kind != "throughput":
            return {}
        slow = record.figures["done_per_s"] / 10
        return {"figures": record.figures | {"done_per_s": slow, "accepted_per_s": slow}}

    model = fit_model(read_observations([make_measured(tmp_path / "m", change=change)]))
    synced = msgspec.structs.replace(HERE, durability="fsync", rate_per_s=100.0)
    found = predict(model, synced)
    assert found.bottleneck == "disk or waiting"
    more = predict(model, with_setup(synced, workers=8, producers=4, cores=16))
    assert more.capacity_per_s == pytest.approx(found.capacity_per_s)
    assert "more processes or cores do not raise that" in " ".join(more.notes)
    assert predict(model, HERE).bottleneck == "machine"


def test_notes_say_what_goes_beyond_the_measurement(model):
    assert predict(model, HERE).notes == (
        "waits are those of Poisson arrivals and exponential service: no rates fitted",
    )
    far = msgspec.structs.replace(with_setup(workers=3), payload_bytes=1e6)
    text = " ".join(predict(model, far).notes)
    assert "payload 1,000,000 B is beyond what was measured (64 to 16,384 B)" in text
    assert "other processes" in text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rate_per_s": 0.0}, "rate 0: use more than 0"),
        ({"setup": Setup(workers=0)}, "workers 0: use more than 0"),
        ({"setup": Setup(cores=-1)}, "cores -1"),
        ({"payload_bytes": -1.0}, "payload -1: use 0 or more"),
        ({"rtt_ms": -0.5}, "round-trip time -0.5"),
    ],
)
def test_conditions_that_cannot_be_are_refused(model, change, said):
    with pytest.raises(SettingError, match=said):
        predict(model, msgspec.structs.replace(HERE, **change))


def test_a_route_that_was_not_measured_is_refused(model):
    with pytest.raises(ResultsError, match="redis_stream lazy was not measured"):
        predict(model, msgspec.structs.replace(HERE, route="redis_stream"))
