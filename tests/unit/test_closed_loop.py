"""Callers that wait for an outcome, and what becomes of a stall in their eyes."""

import itertools

import pytest

from hookbench.errors import SettingError
from hookbench.load.closed_loop import ClosedLoop
from hookbench.load.generator import GeneratorSettings, LoadGenerator
from hookbench.load.open_loop import OpenLoop
from hookbench.migration.phases import Phase
from tests.unit.test_load import SECOND, constant
from tests.virtual import FixedClock, VirtualClock


async def test_each_caller_has_one_task_under_way():
    clock = VirtualClock()
    under_way, most, sent = set(), [0], []

    async def send(number, intended_ns):
        assert intended_ns == clock.now_ns
        under_way.add(number)
        most[0] = max(most[0], len(under_way))
        sent.append(number)
        await clock.sleep(0.1 + number % 3 / 10)
        under_way.remove(number)

    totals = await ClosedLoop(send, callers=4, clock=clock).run(50, clock.now_ns)
    assert sent == list(range(50))
    assert (totals.offered, most[0]) == (50, 4)


async def test_callers_keep_their_rate_and_do_not_catch_up():
    clock = VirtualClock()
    sent = []

    async def send(number, intended_ns):
        sent.append((intended_ns - start_ns) / SECOND)
        await clock.sleep(5.0 if number == 10 else 0.01)

    start_ns = clock.now_ns
    await ClosedLoop(send, callers=2, pause_s=1.0, clock=clock).run(40, start_ns)
    assert sent[:4] == pytest.approx([0, 0.5, 1, 1.5], abs=0.02)
    gaps = [b - a for a, b in itertools.pairwise(sent)]
    assert min(gaps) > 0.3  # after the stall as before
    assert sent[-1] > 20.5


async def test_a_stall_is_many_samples_in_an_open_loop_and_few_in_a_closed_one():
    """Both at 100 tasks/s for 20 s; for two of them nothing has an outcome."""

    async def slow(make):
        clock = VirtualClock()
        start_ns = clock.now_ns
        waits = []

        async def send(_number, intended_ns):
            at_s = (clock.now_ns - start_ns) / SECOND
            await clock.sleep(12.0 - at_s if 10 <= at_s < 12 else 0.001)
            waits.append((clock.now_ns - intended_ns) / SECOND)

        await make(send, clock, start_ns)
        return sum(wait > 0.1 for wait in waits)

    async def run_open(send, clock, start_ns):
        await OpenLoop(send, clock=clock).run(constant(100, 2000), start_ns)

    async def run_closed(send, clock, start_ns):
        loop = ClosedLoop(send, callers=5, pause_s=0.05, clock=clock)
        await loop.run(1800, start_ns)

    assert await slow(run_open) == pytest.approx(190, abs=5)
    assert await slow(run_closed) == 5


async def test_a_stop_ends_the_callers():
    clock = VirtualClock()
    ended = []

    async def send(number, _intended_ns):
        if number == 4:
            loop.request_stop()
        await clock.sleep(1.0)
        ended.append(number)

    loop = ClosedLoop(send, callers=3, pause_s=30.0, clock=clock)
    totals = await loop.run(1000, clock.now_ns)
    assert totals.offered == len(ended) == 5


async def test_a_defect_of_send_is_not_swallowed():
    clock = VirtualClock()

    async def send(_number, _intended_ns):
        raise RuntimeError("defect")

    with pytest.raises(ExceptionGroup) as caught:
        await ClosedLoop(send, callers=2, clock=clock).run(5, clock.now_ns)
    assert caught.value.subgroup(RuntimeError) is not None


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"loop": "half"}, "loop 'half': use open, closed, windowed"),
        ({"loop": "closed", "resume": True}, "cannot be resumed"),
        ({"loop": "windowed", "arrivals": "poisson"}, "only an open one has arrivals"),
        ({"loop": "closed", "callers": 0}, "0 callers"),
        ({"arrivals": "often"}, "arrivals 'often'"),
        ({"payload": "big"}, "payload 'big'"),
        ({"skew": -1.0}, "skew -1"),
    ],
)
def test_a_load_that_cannot_be_made_is_refused_at_once(changes, told):
    settings = GeneratorSettings(phase=Phase.REDIS_ONLY, **changes)
    with pytest.raises(SettingError, match=told):
        LoadGenerator(settings, clock=FixedClock())
