import itertools
import random

import pytest

from hookbench.errors import SettingError
from hookbench.load.arrivals import constant, poisson
from hookbench.load.open_loop import OpenLoop
from tests.virtual import VirtualClock

SECOND = 1_000_000_000


def test_constant_arrivals():
    assert list(constant(4, 5)) == [0, SECOND // 4, SECOND // 2, 3 * SECOND // 4, SECOND]


def test_poisson_arrivals_come_from_the_seed_and_have_the_rate():
    first = list(poisson(1000, 20_000, random.Random(1)))
    assert first == list(poisson(1000, 20_000, random.Random(1)))
    assert first != list(poisson(1000, 20_000, random.Random(2)))
    assert first == sorted(first)
    assert first[-1] / 20_000 == pytest.approx(SECOND / 1000, rel=0.05)
    gaps = [later - earlier for earlier, later in itertools.pairwise(first)]
    short = sum(gap < SECOND / 1000 for gap in gaps) / len(gaps)
    assert short == pytest.approx(0.632, abs=0.02)  # 1 - 1/e: exponential, not constant


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf"), 2_000_000])
def test_rates_that_cannot_be_made_are_refused(rate):
    with pytest.raises(SettingError, match="rate of"):
        next(constant(rate, 1))


async def test_tasks_are_sent_when_they_are_due_however_slow_those_before_are():
    clock = VirtualClock()
    sent = []

    async def send(number, intended_ns):
        sent.append((number, intended_ns, clock.now_ns))
        await clock.sleep(10.0)  # far longer than the distance of two tasks

    start_ns = clock.now_ns
    totals = await OpenLoop(send, clock=clock).run(constant(10, 20), start_ns)
    assert totals.offered == 20
    assert [intended - start_ns for _, intended, _ in sent] == list(constant(10, 20))
    assert all(now - intended < SECOND // 100 for _, intended, now in sent)


async def test_falling_behind_shows_as_lag_and_drops_nothing():
    clock = VirtualClock()
    sent = []

    async def send(number, _intended_ns):
        sent.append(number)
        await clock.sleep(1.0)

    loop = OpenLoop(send, clock=clock, max_in_flight=1)
    totals = await loop.run(constant(10, 20), clock.now_ns)
    assert sent == list(range(20))
    assert totals.blocked >= 18
    assert totals.lag_max_ns >= 15 * SECOND


async def test_a_stop_ends_the_offers_and_waits_for_what_is_out():
    clock = VirtualClock()
    ended = []

    async def send(number, _intended_ns):
        if number == 4:
            loop.request_stop()
        await clock.sleep(3.0)
        ended.append(number)

    loop = OpenLoop(send, clock=clock)
    totals = await loop.run(constant(10, 100), clock.now_ns)
    assert totals.offered == 5
    assert sorted(ended) == [0, 1, 2, 3, 4]


async def test_a_defect_of_send_is_not_swallowed():
    clock = VirtualClock()

    async def send(_number, _intended_ns):
        raise RuntimeError("defect")

    with pytest.raises(RuntimeError, match="defect"):
        await OpenLoop(send, clock=clock).run(constant(10, 5), clock.now_ns)
