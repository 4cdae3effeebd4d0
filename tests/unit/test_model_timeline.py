"""Days in steps against plain loops and arithmetic by hand."""

import sys

import msgspec
import numpy as np
import pytest

from hookbench.brokers.durability import Durability
from hookbench.clock import SystemClock
from hookbench.errors import SettingError
from hookbench.load.mix import parse_mix
from hookbench.load.payloads import parse_payload
from hookbench.load.repositories import Repositories
from hookbench.load.shapes import parse_shape
from hookbench.load.workload import Workload
from hookbench.migration.phases import Design, Phase
from hookbench.model.arriving import arrivals_per_step
from hookbench.model.fluid import ages_s, first_at_most, lindley, window_sum
from hookbench.model.stored import ENVELOPE_BYTES, Storage
from hookbench.model.timeline import Day, Outage, parse_outage, simulate_day
from hookbench.task import encode_task

GIB = 2.0**30
QUIET = Day(rate_per_s=1000.0, capacity_per_s=1500.0, put_per_s=4000.0, seconds=3600.0)
EACH = Storage(
    redis_waiting_bytes=500.0, nats_waiting_bytes=100.0, redis_base_bytes=0.0, nats_base_bytes=0.0
)


def day(**changes):
    return msgspec.structs.replace(QUIET, **changes)


def outage(text):
    return (parse_outage(text),)


def test_lindleys_recursion_is_that_of_a_loop():
    rng = np.random.default_rng(1)
    for initial in (0.0, 7.5):
        arrivals, service = rng.poisson(5, 500).astype(float), rng.uniform(0, 10, 500)
        waits, by_hand = initial, []
        for come, taken in zip(arrivals, service, strict=True):
            waits = max(0.0, waits + come - taken)
            by_hand.append(waits)
        assert lindley(arrivals, service, initial) == pytest.approx(by_hand, abs=1e-9)
        assert max(by_hand) > 0


def test_windows_and_first_moments_are_those_of_loops():
    values = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    for steps in (1, 2, 5, 9):
        by_hand = [values[max(0, i + 1 - steps) : i + 1].sum() for i in range(5)]
        assert window_sum(values, steps) == pytest.approx(by_hand)
    assert first_at_most(np.array([9.0, 1.0, 9.0, 2.0]), 2.0, 2) == 3
    assert first_at_most(np.array([9.0, 1.0, 9.0]), 2.0, 2) is None


def test_the_age_of_the_oldest_is_that_of_a_list():
    """Five come in each step, and from the fourth on none is taken."""
    arrivals, service = np.full(8, 5.0), np.array([5.0, 5, 5, 0, 0, 0, 0, 0])
    waiting = lindley(arrivals, service)
    assert ages_s(arrivals, waiting, 2.0).tolist() == [0, 0, 0, 2, 4, 6, 8, 10]


@pytest.mark.parametrize(
    "text",
    ["ramp:from=0.5,to=2,over=7", "steps:0.5/0/2,each=3", "diurnal:period=40,low=0.1"],
)
def test_masses_of_many_times_are_those_of_each(text):
    shape = parse_shape(text)
    times_s = np.linspace(0, 100, 1001)
    each = [shape.mass(float(at_s)) for at_s in times_s]
    assert shape.masses(times_s) == pytest.approx(each, abs=1e-9)


def test_arrivals_follow_process_and_shape(tmp_path):
    def of(text, rate=100.0, steps=600):
        rng = np.random.default_rng(3)
        return arrivals_per_step(text, rate, steps=steps, step_s=1.0, rng=rng)

    assert of("constant").tolist() == [100.0] * 600
    stepped = of("constant+steps:0.5/1.5,each=10")
    assert stepped[:20].tolist() == pytest.approx([50.0] * 10 + [150.0] * 10)
    day_long = of("constant+diurnal:period=600,low=0.2")
    assert day_long.sum() == pytest.approx(60_000)
    assert day_long.min() == pytest.approx(20, rel=0.01)
    drawn = of("poisson")
    assert drawn.mean() == pytest.approx(100, rel=0.02)
    assert drawn.var() == pytest.approx(100, rel=0.2)
    burst = of("bursts:size=50")
    assert burst.mean() == pytest.approx(100, rel=0.1)
    assert set(burst % 50) == {0.0}
    trace = tmp_path / "trace.csv"
    trace.write_text("time_s\n0\n0.5\n2.25\n2.5\n2.75\n")
    assert of(f"trace:{trace}", steps=4).tolist() == [2, 0, 3, 0]
    with pytest.raises(SettingError, match="arrivals"):
        of("sometimes")


def test_without_a_fault_all_is_done_and_nothing_waits():
    found = simulate_day(QUIET)
    assert found.done.sum() == pytest.approx(3_600_000)
    assert found.waiting.max() == 0
    assert found.max_age_at_s is None
    assert found.maxmemory_at_s is None


def test_an_outage_of_workers_by_hand():
    """60 s at 1,000/s are 60,000; 500/s beyond what comes in take 120 s for them."""
    found = simulate_day(day(outages=outage("workers:60@600")))
    effect = found.effects[0]
    assert effect.peak_waiting == pytest.approx(60_000)
    assert effect.catch_up_s == pytest.approx(120, abs=1.0)
    assert (effect.refused, effect.one_broker_only, effect.outbox_peak_bytes) == (0, 0, 0)
    assert found.oldest_s.max() == pytest.approx(60, abs=1.0)
    assert found.done.sum() == pytest.approx(3_600_000)
    assert found.waiting[659] == pytest.approx(60_000)


def test_what_a_redis_that_is_away_means_in_dual_write_by_design():
    away = {"phase": Phase.DUAL_WRITE, "outages": outage("redis:60@600")}
    guide = simulate_day(day(**away)).effects[0]
    assert guide.one_broker_only == pytest.approx(60_000)
    assert (guide.refused, guide.catch_up_s) == (0, 0)
    hardened = simulate_day(day(design=Design.HARDENED, **away))
    effect = hardened.effects[0]
    assert (effect.refused, effect.one_broker_only) == (0, 0)
    # The outbox is empty after 60,000 / (4,000 - 1,000) s; workers then still have their backlog.
    assert effect.outbox_empty_s == pytest.approx(20, abs=1.0)
    assert effect.catch_up_s == pytest.approx(120, abs=1.0)
    assert effect.outbox_peak_bytes == pytest.approx(60_000 * (256 + ENVELOPE_BYTES))
    assert hardened.done.sum() == pytest.approx(3_600_000)
    assert hardened.outbox["redis"].max() == pytest.approx(60_000)
    assert hardened.outbox["nats"].max() == 0


def test_a_nats_that_is_away_in_dual_write_keeps_no_worker_waiting():
    found = simulate_day(day(design=Design.HARDENED, outages=outage("nats:60@600")))
    effect = found.effects[0]
    assert found.waiting.max() == 0
    assert effect.catch_up_s == 0
    assert effect.outbox_empty_s == pytest.approx(20, abs=1.0)
    assert found.stored["nats"][-1] == pytest.approx(3_600_000)


def test_one_broker_alone_refuses_while_it_is_away():
    found = simulate_day(day(phase=Phase.NATS_ONLY, outages=outage("nats:60.5@600.25")))
    assert found.effects[0].refused == pytest.approx(60_500)
    assert found.done.sum() == pytest.approx(3_600_000 - 60_500)


def test_dual_read_goes_on_with_the_other_broker():
    for design in Design:
        both = day(phase=Phase.DUAL_READ, design=design, outages=outage("nats:60@600"))
        assert simulate_day(both).waiting.max() == pytest.approx(0, abs=1e-6)
    neither = (*outage("nats:60@600"), *outage("redis:60@600"))
    found = simulate_day(day(phase=Phase.DUAL_READ, design=Design.HARDENED, outages=neither))
    assert found.effects[0].peak_waiting == pytest.approx(60_000)
    assert found.effects[0].catch_up_s == pytest.approx(120, abs=1.0)


def test_what_is_not_caught_up_on_that_day_has_no_time():
    slow = day(capacity_per_s=1001.0, outages=outage("workers:60@600"))
    assert simulate_day(slow).effects[0].catch_up_s is None
    grows = simulate_day(day(capacity_per_s=900.0))
    assert grows.waiting[-1] == pytest.approx(100 * 3600)


def test_the_stream_keeps_what_is_done_until_its_max_age():
    found = simulate_day(day(max_age_s=600.0, storage=EACH))
    assert found.stored["nats"][599] == pytest.approx(600_000)
    assert found.stored["nats"][-1] == pytest.approx(600_000)
    assert found.disk_bytes["nats"].max() == pytest.approx(600_000 * (256 + ENVELOPE_BYTES + 36))
    assert found.memory_bytes["nats"].max() == pytest.approx(600_000 * 100)
    assert found.max_age_at_s is None, "nothing that waits is that old"
    in_memory = simulate_day(day(durability=Durability.MEMORY))
    assert in_memory.disk_bytes["nats"].max() == in_memory.disk_bytes["redis"].max() == 0
    redis = simulate_day(day(phase=Phase.REDIS_ONLY))
    assert redis.stored["nats"].max() == 0


def test_max_age_strikes_what_nobody_has_done_for_so_long():
    """What came when the workers went is 300 s old 300 s later, and is the next to go."""
    long = day(phase=Phase.NATS_ONLY, max_age_s=300.0, outages=outage("workers:400@1000"))
    found = simulate_day(long)
    assert found.max_age_at_s == pytest.approx(1301, abs=1)
    # At 1,400 s those of the first 100 s are gone; those after them are taken at 1,500/s.
    assert found.aged_out == pytest.approx(100_000, rel=0.02)
    short = simulate_day(msgspec.structs.replace(long, outages=outage("workers:299@1000")))
    assert short.max_age_at_s is None
    assert short.aged_out == 0


def test_copies_that_nobody_trims_fill_redis():
    """P8: 1,000 copies of 500 bytes a second are 1 GiB after 2,148 s."""
    full = day(phase=Phase.DUAL_READ, storage=EACH, maxmemory_bytes=GIB)
    found = simulate_day(full)
    assert found.maxmemory_at_s == pytest.approx(GIB / 500 / 1000, abs=1)
    assert found.stored["redis"][-1] == pytest.approx(3_600_000)
    trimmed = simulate_day(msgspec.structs.replace(full, design=Design.HARDENED))
    assert trimmed.maxmemory_at_s is None
    assert trimmed.stored["redis"].max() == 0


def test_redis_fills_up_with_what_waits():
    found = simulate_day(
        day(outages=outage("workers:600@600"), storage=EACH, maxmemory_bytes=0.1 * GIB)
    )
    assert found.maxmemory_at_s == pytest.approx(600 + 0.1 * GIB / 500 / 1000, abs=1)
    assert found.memory_bytes["redis"].max() == pytest.approx(600_000 * 500)


def test_an_aof_is_rewritten_when_it_has_doubled():
    storage = Storage()
    tasks, put = np.array([0.0, 0.0, 1e6]), np.array([1e3, 1e9, 1e9])
    sizes = storage.redis_disk(tasks, put, 256.0, Durability.LAZY)
    each = 256 + ENVELOPE_BYTES + 30
    assert sizes.tolist() == pytest.approx([1e3 * each, 64 * 2**20, 2e6 * each])


def test_the_envelope_is_that_of_the_codec():
    workload = Workload(
        task_type="sync",
        mix=parse_mix("plain=1"),
        payloads=parse_payload("256"),
        repositories=Repositories(100, skew=0.0),
        clock=SystemClock(),
        seed=1,
    )
    sizes = [len(encode_task(workload(number))) for number in range(0, 20_000, 500)]
    assert np.mean(sizes) - 256 == pytest.approx(ENVELOPE_BYTES, abs=10)


def calls_of(simulated):
    """Calls of Python functions and of builtins that a day takes."""
    count = 0

    def profile(_frame, event, _argument):
        nonlocal count
        count += event in ("call", "c_call")

    simulate_day(simulated)  # imports
    sys.setprofile(profile)
    try:
        simulate_day(simulated)
    finally:
        sys.setprofile(None)
    return count


def test_a_day_at_ten_thousand_tasks_a_second_is_no_loop_over_steps():
    """It has 86,400 steps, and makes as many calls as one of 100: all is done in arrays."""
    long = Day(
        rate_per_s=10_000.0,
        capacity_per_s=20_000.0,
        put_per_s=40_000.0,
        arrivals="poisson+diurnal:period=86400,low=0.2",
        design=Design.HARDENED,
        outages=(*outage("nats:600@36000"), *outage("redis:60@40000")),
    )
    found = simulate_day(long)
    assert len(found.time_s) == long.steps == 86_400
    assert found.done.sum() == pytest.approx(864e6, rel=1e-3)
    assert found.effects[1].catch_up_s > 0
    short = msgspec.structs.replace(
        long, seconds=100.0, outages=(*outage("nats:6@36"), *outage("redis:6@50"))
    )
    assert calls_of(long) == calls_of(short) < 2000


@pytest.mark.parametrize("text", ["nats", "nats:", "nats:x", "nats:5@", "moon:5@1", "nats:0@1",
                                  "nats:5@-1", "nats:inf@0"])  # fmt: skip
def test_an_outage_in_another_form_is_refused(text):
    with pytest.raises(SettingError, match="outage"):
        parse_outage(text)


def test_an_outage_is_read_as_it_is_written():
    assert parse_outage("nats:60@3600") == Outage(target="nats", begin_s=3600.0, length_s=60.0)
    assert parse_outage("redis:2.5").begin_s == 0
    assert parse_outage("nats:60@3600").text == "nats:60@3600"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rate_per_s": 0.0}, "rate_per_s 0: use more than 0"),
        ({"capacity_per_s": -1.0}, "capacity_per_s -1"),
        ({"step_s": 1e-9}, "steps of 1e-09 s"),
        ({"maxmemory_bytes": -1.0}, "maxmemory_bytes -1"),
        ({"outages": outage("nats:60@3599")}, "nats:60@3599: it ends after the day"),
    ],
)
def test_a_day_that_cannot_be_is_refused(changes, said):
    with pytest.raises(SettingError, match=said):
        simulate_day(day(**changes))
