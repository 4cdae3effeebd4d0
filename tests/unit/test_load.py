import asyncio
import itertools
import random

import pytest
import uvloop

from hookbench.errors import SettingError
from hookbench.load.arrivals import parse_arrivals
from hookbench.load.fine_clock import FineClock, open_alarm
from hookbench.load.generator import GeneratorSettings, LoadGenerator
from hookbench.load.open_loop import OpenLoop
from hookbench.migration.phases import Phase
from tests.virtual import VirtualClock

SECOND = 1_000_000_000


def arriving(text, rate, count, *, seed=1):
    offsets = parse_arrivals(text).offsets(rate, random.Random(seed))
    return list(itertools.islice(offsets, count))


def constant(rate, count):
    return arriving("constant", rate, count)


def test_constant_arrivals():
    assert constant(4, 5) == [0, SECOND // 4, SECOND // 2, 3 * SECOND // 4, SECOND]


def test_poisson_arrivals_come_from_the_seed_and_have_the_rate():
    first = arriving("poisson", 1000, 20_000)
    assert first == arriving("poisson", 1000, 20_000)
    assert first != arriving("poisson", 1000, 20_000, seed=2)
    assert first == sorted(first)
    assert first[-1] / 20_000 == pytest.approx(SECOND / 1000, rel=0.05)
    gaps = [later - earlier for earlier, later in itertools.pairwise(first)]
    short = sum(gap < SECOND / 1000 for gap in gaps) / len(gaps)
    assert short == pytest.approx(0.632, abs=0.02)  # 1 - 1/e: exponential, not constant


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf"), 2_000_000])
def test_rates_that_cannot_be_made_are_refused(rate):
    with pytest.raises(SettingError, match="rate of"):
        constant(rate, 1)


async def test_tasks_are_sent_when_they_are_due_however_slow_those_before_are():
    clock = VirtualClock()
    sent = []

    async def send(number, intended_ns):
        sent.append((number, intended_ns, clock.now_ns))
        await clock.sleep(10.0)  # far longer than the distance of two tasks

    start_ns = clock.now_ns
    totals = await OpenLoop(send, clock=clock).run(constant(10, 20), start_ns)
    assert totals.offered == 20
    assert [intended - start_ns for _, intended, _ in sent] == constant(10, 20)
    assert all(now - intended < SECOND // 100 for _, intended, now in sent)


async def test_a_resumed_run_leaves_out_what_was_due_before_it():
    clock = VirtualClock()
    sent, left_out = [], []

    async def send(number, _intended_ns):
        sent.append(number)

    start_ns = clock.now_ns
    await clock.sleep(0.55)
    loop = OpenLoop(send, clock=clock)
    totals = await loop.run(constant(10, 20), start_ns, skip=left_out.append)
    assert left_out == list(range(6))  # the one of 0.5 s was due
    assert sent == list(range(6, 20))
    assert (totals.skipped, totals.offered) == (6, 14)
    assert totals.lag_max_ns < SECOND // 100


@pytest.mark.parametrize("arrivals", ["constant", "poisson"])
async def test_a_resumed_producer_offers_the_tasks_that_the_first_would_have(arrivals):
    async def offered(*, resumed_at_s):
        clock = VirtualClock()
        generator = LoadGenerator(
            GeneratorSettings(
                phase=Phase.REDIS_ONLY,
                rate_per_s=10.0,
                count=50,
                arrivals=arrivals,
                mix="plain=1,idempotent=1",
                seed=3,
                start_ns=clock.now_ns,
                resume=resumed_at_s > 0,
            ),
            clock=clock,
        )
        tasks = []

        class Service:
            async def send(self, task, *, intended_ns):
                tasks.append((intended_ns - generator_start_ns, task.repo_id, task.id.int % 2**62))

        async def nothing(*_args, **_kwargs):
            return None

        generator_start_ns = clock.now_ns
        generator._enter = nothing
        generator._service = Service()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("hookbench.load.generator.check_brokers", nothing)
            await clock.sleep(resumed_at_s)
            await generator.run()
        return tasks

    whole, rest = await offered(resumed_at_s=0), await offered(resumed_at_s=2.0)
    assert len(whole) == 50
    assert 10 < len(rest) < 40
    assert rest == whole[-len(rest) :]
    assert rest[0][0] >= 2 * SECOND


async def test_progress_has_the_largest_lag_and_the_end_its_percentiles():
    clock = VirtualClock()
    said, sent = [], []
    generator = LoadGenerator(
        GeneratorSettings(
            phase=Phase.REDIS_ONLY, rate_per_s=10.0, count=200, start_ns=clock.now_ns
        ),
        clock=clock,
        announce=said.append,
    )  # fmt: skip

    class Slow:
        async def send(self, _task, *, intended_ns):
            sent.append(intended_ns)
            if len(sent) in (50, 120):
                clock.now_ns += len(sent) * SECOND // 50  # it stands still for a while

    async def nothing(*_args, **_kwargs):
        return None

    generator._enter = nothing
    generator._service = Slow()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hookbench.load.generator.check_brokers", nothing)
        await generator.run()
    *progress, stopped = [item for item in said if item["event"] in ("progress", "stopped")]
    lags = [item["lag_max_ns"] for item in progress]
    assert lags == sorted(lags)
    assert (lags[1] < SECOND / 10, SECOND / 2 < lags[9] < SECOND, lags[-1] > 2 * SECOND) == (
        True, True, True
    )  # fmt: skip
    assert "lag_p99_ns" not in progress[-1], "what is not known yet is not said to be nought"
    assert stopped["lag_p50_ns"] < SECOND / 10
    assert SECOND < stopped["lag_p99_ns"] <= stopped["lag_max_ns"]


async def test_falling_behind_shows_as_lag_and_drops_nothing():
    clock = VirtualClock()
    sent, seen_ns = [], []

    async def send(number, _intended_ns):
        sent.append(number)
        seen_ns.append(loop.so_far().lag_max_ns)
        await clock.sleep(1.0)

    loop = OpenLoop(send, clock=clock, max_in_flight=1)
    totals = await loop.run(constant(10, 20), clock.now_ns)
    assert sent == list(range(20))
    assert totals.blocked >= 18
    assert totals.lag_max_ns >= 15 * SECOND
    assert seen_ns == sorted(seen_ns)
    assert seen_ns[10] >= 8 * SECOND, "it is told while it happens"


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


async def test_a_defect_of_the_schedule_is_not_swallowed():
    clock = VirtualClock()
    sent = []

    def offsets():
        yield from constant(10, 3)
        raise RuntimeError("a hole in the trace")

    async def send(number, _intended_ns):
        sent.append(number)

    with pytest.raises(RuntimeError, match="a hole in the trace"):
        await OpenLoop(send, clock=clock).run(offsets(), clock.now_ns)
    assert sent == [0, 1, 2]


async def test_a_stop_while_nothing_is_due_ends_the_run():
    clock = VirtualClock()

    async def send(_number, _intended_ns):
        raise AssertionError("nothing was due")

    loop = OpenLoop(send, clock=clock)
    run = asyncio.ensure_future(loop.run([3600 * SECOND], clock.now_ns))
    await clock.sleep(2.0)
    loop.request_stop()
    await clock.sleep(1.0)
    assert run.done()
    assert (await run).offered == 0


async def test_one_that_is_behind_lets_others_have_their_turn():
    clock = VirtualClock()
    turns, most = [0], 0
    sent_since = [0]

    async def other():
        while True:
            turns[0] += 1
            sent_since[0] = 0
            await asyncio.sleep(0)

    async def send(_number, _intended_ns):
        nonlocal most
        sent_since[0] += 1
        most = max(most, sent_since[0])

    beside = asyncio.ensure_future(other())
    totals = await OpenLoop(send, clock=clock).run([0] * 10_000, clock.now_ns - SECOND)
    beside.cancel()
    assert totals.accepted == 0
    assert totals.offered == 10_000
    assert most < 200


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_on_the_machines_own_time_no_task_is_early_and_none_is_left(run):
    """With a timer of the system: in bursts, with pauses, and with less room than tasks."""
    offsets_ns = sorted(
        random.Random(3).choice([1, 20, 40]) * 1_000_000 + number * 20_000 for number in range(500)
    )
    early, sent = [], []

    async def main():
        clock = FineClock()

        async def send(number, intended_ns):
            early.append(min(0, clock.monotonic_ns() - intended_ns))
            await clock.sleep(0.0005)
            sent.append(number)

        totals = await OpenLoop(send, clock=clock, max_in_flight=7).run(
            offsets_ns, clock.monotonic_ns()
        )
        clock.close()
        return totals

    totals = run(main())
    assert set(early) == {0}
    assert sorted(sent) == list(range(500))
    assert totals.offered == 500
    assert totals.blocked > 0


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_timer_that_was_not_set_anew_is_quiet(run):
    """It is not read when it rings, so that it has to be disarmed, or it would ring for ever."""
    rung = []

    async def main():
        clock = FineClock()
        alarm = open_alarm(clock, lambda: rung.append(clock.monotonic_ns()))
        over = asyncio.get_running_loop().create_future()
        served = asyncio.ensure_future(alarm.serve(over))
        moment_ns = clock.monotonic_ns() + 2_000_000
        alarm.set(moment_ns - 1_000_000)
        alarm.set(moment_ns)  # in place of the one before
        await asyncio.sleep(0.05)
        assert len(rung) == 1
        assert rung[0] >= moment_ns
        alarm.set(moment_ns)  # is over, so at once
        await asyncio.sleep(0.05)
        assert len(rung) == 2
        over.set_result(None)
        await served
        alarm.close()
        clock.close()

    run(main())
