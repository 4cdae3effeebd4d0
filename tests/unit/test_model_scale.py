"""The plan of a site, by arithmetic that can be done by hand."""

import math

import msgspec
import pytest

from hookbench.brokers.durability import Durability
from hookbench.errors import ResultsError, SettingError
from hookbench.migration.phases import Design
from hookbench.model.fit import fit_model
from hookbench.model.observations import read_observations
from hookbench.model.scale import Site, plan_site
from hookbench.model.stored import ENVELOPE_BYTES, Storage
from hookbench.model.timeline import Day, parse_outage, simulate_day
from tests.unit.measured_by_hand import (
    DONE_SHARE,
    PLAN,
    make_measured,
    true_cost_us,
)

SITE = Site(storage=Storage(redis_waiting_bytes=500.0, redis_base_bytes=0.0))


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    return read_observations([make_measured(tmp_path_factory.mktemp("matrix") / "m")])


@pytest.fixture(scope="module")
def model(measured):
    return fit_model(measured)


def phases_of(model, site=SITE):
    return {item.phase: item for item in plan_site(model, site).phases}


def test_shards_and_nodes_by_hand(model):
    plan = plan_site(model, SITE)
    one = {
        route: DONE_SHARE * 1e6 / true_cost_us(route, "lazy", "broker", 256, 100)
        for route in ("redis_list", "jetstream")
    }
    assert plan.one_master_per_s == pytest.approx(one["redis_list"], rel=0.01)
    assert plan.one_stream_per_s == pytest.approx(one["jetstream"], rel=0.01)
    assert plan.left_out == ("dual_read", "nats_primary")
    found = {item.phase: item for item in plan.phases}
    masters = math.ceil(1e6 / (plan.one_master_per_s * 0.6))
    streams = math.ceil(1e6 / (plan.one_stream_per_s * 0.6))
    both = found["dual_write"]
    assert (both.masters, both.redis_nodes, both.streams) == (masters, 2 * masters, streams)
    assert both.nats_nodes == math.ceil(streams * 3 / 8)
    assert both.per_stream_per_s == pytest.approx(1e6 / streams)
    assert (found["redis_only"].streams, found["redis_only"].nats_nodes) == (0, 0)
    assert (found["nats_only"].masters, found["nats_only"].redis_memory_bytes) == (0, 0)
    assert found["nats_only"].workers_per_shard == pytest.approx(10_000 / streams)
    assert both.workers_per_shard == pytest.approx(10_000 / masters), "Redis is read"


def test_processes_by_hand(model):
    found = phases_of(model)["nats_only"]
    producer_us = true_cost_us("jetstream", "lazy", "producer", 256, 100)
    worker_us = true_cost_us("jetstream", "lazy", "worker", 256, 32)
    assert found.producers == pytest.approx(producer_us / 0.6, rel=0.02)
    assert found.workers_needed == pytest.approx(worker_us / 0.6, rel=0.02)
    alone_us = true_cost_us("jetstream", "lazy", "worker", 256, 1)
    assert found.workers_busy == pytest.approx(100 * alone_us / 1e6, rel=0.03), "one at a wake-up"


def test_a_longer_task_takes_slots_and_more_pending_acknowledgements(model):
    slow = msgspec.structs.replace(SITE, service_ms=200.0)
    found = phases_of(model, slow)["nats_only"]
    assert found.workers_needed == math.ceil(1e6 * 0.2005 / 32 / 0.6)
    assert found.workers_busy == pytest.approx(100 * 0.2005 / 32)
    assert found.ack_pending == math.ceil(found.per_stream_per_s * 0.2005 / 0.6)
    text = " ".join(found.notes)
    assert "max-ack-pending 100 is too little" in text
    assert "leave no margin" in text
    few = phases_of(model, msgspec.structs.replace(slow, workers=5000))["nats_only"]
    assert "5,000 workers are too few" in " ".join(few.notes)
    assert few.catch_up_s == math.inf


def test_an_outage_by_hand_and_as_the_timeline_has_it(model):
    site = SITE
    found = phases_of(model, site)["dual_write"]
    stored = 256 + ENVELOPE_BYTES
    assert found.outbox_bytes == pytest.approx(1e6 * 600 * stored)
    assert found.redis_memory_bytes == pytest.approx(found.per_master_per_s * 600 * 500)
    assert found.stream_disk_bytes == pytest.approx(found.per_stream_per_s * 86_400 * (stored + 36))
    plan = plan_site(model, site)
    sustained = min(found.masters * plan.one_master_per_s, found.streams * plan.one_stream_per_s)
    assert found.catch_up_s == pytest.approx(600 * 1e6 / (sustained - 1e6), rel=1e-6)
    day = Day(
        rate_per_s=1e6,
        capacity_per_s=sustained,
        put_per_s=1e9,
        outages=(parse_outage("workers:600@3600"),),
        seconds=10_000.0,
    )
    assert simulate_day(day).effects[0].catch_up_s == pytest.approx(found.catch_up_s, abs=1.0)


def test_notes_of_what_goes_wrong(tmp_path):
    plan = msgspec.structs.replace(PLAN, phases=("dual_write", "dual_read"), payload=(64, 4096))
    model = fit_model(read_observations([make_measured(tmp_path / "m", plan=plan)]))
    guide = msgspec.structs.replace(SITE, design=Design.GUIDE, max_age_s=3600.0, workers=10)
    found = phases_of(model, guide)
    assert found["dual_write"].outbox_bytes == 0
    assert "max-age is shorter than the phase" in " ".join(found["dual_write"].notes)
    assert "P8" in " ".join(found["dual_read"].notes)
    assert found["dual_read"].redis_memory_bytes == pytest.approx(
        found["dual_read"].per_master_per_s * 86_400 * 500
    )
    assert "fewer workers than shards" in " ".join(found["redis_only"].notes)
    assert found["dual_write"].stream_disk_bytes == pytest.approx(
        found["dual_write"].per_stream_per_s * 3600 * (256 + ENVELOPE_BYTES + 36)
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rate_per_s": 0.0}, "rate_per_s 0: use more than 0"),
        ({"workers": -1}, "workers -1"),
        ({"busy": 1.0}, "busy 1: use between 0 and 1"),
        ({"rtt_ms": -1.0}, "rtt_ms -1"),
        ({"rate_per_s": 1e10}, "more than 16,384 masters take"),
    ],
)
def test_a_site_that_cannot_be_is_refused(model, changes, said):
    with pytest.raises(SettingError, match=said):
        plan_site(model, msgspec.structs.replace(SITE, **changes))


def test_a_queue_that_was_not_measured_alone_is_named(measured):
    model = fit_model([item for item in measured if item.route != "jetstream"])
    with pytest.raises(ResultsError, match="jetstream lazy was not measured, and a shard is one"):
        plan_site(model, SITE)
    with pytest.raises(ResultsError, match="redis_list replicated was not measured"):
        plan_site(model, msgspec.structs.replace(SITE, durability=Durability.REPLICATED))
