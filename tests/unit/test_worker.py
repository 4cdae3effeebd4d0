"""The worker over the memory queue, through the real consumer, in virtual time."""

import asyncio

import pytest

from hookbench.errors import BrokerUnreachableError, LeaseLostError
from hookbench.ledger.events import Broker, Event
from hookbench.migration.consumer import RedisConsumer
from hookbench.migration.phases import AckMode
from hookbench.migration.received import decode_delivery
from hookbench.queues.memory import MemoryQueue
from hookbench.task import encode_task
from hookbench.worker.dead_letters import MemoryDeadLetters
from hookbench.worker.loop import Worker, WorkerLimits
from tests.conftest import eventually
from tests.fakes import MemoryRecorder
from tests.virtual import VirtualClock


class _Ack:
    """What ``make_nats_consume`` hands out, over a delivery of the memory queue."""

    def __init__(self, delivery):
        self.attempt = delivery.attempt
        self.sequence = delivery.sequence
        self.nak = delivery.nak
        self.term = delivery.term
        self._ack = delivery.ack

    async def __call__(self):
        await self._ack()


class Bench:
    """A worker and what surrounds it."""

    def __init__(self, handler, *, ack=AckMode.AFTER_PROCESSING, **limits):
        self.clock = VirtualClock()
        self.queue = MemoryQueue(self.clock)
        self.recorder = MemoryRecorder()
        self.letters = MemoryDeadLetters()
        self.read_errors = []
        self.worker = Worker(
            RedisConsumer.nats_only(self._consume, ack=ack, recorder=self.recorder),
            handler,
            dead_letters=self.letters,
            clock=self.clock,
            limits=WorkerLimits(**limits),
            recorder=self.recorder,
        )

    async def _consume(self, _subject, batch):
        if self.read_errors:
            raise self.read_errors.pop()
        deliveries = await self.queue.receive(batch, 1.0)
        return [(delivery.payload, _Ack(delivery)) for delivery in deliveries]

    async def put(self, *tasks):
        for task in tasks:
            await self.queue.put(encode_task(task))

    async def run_until(self, condition):
        running = asyncio.ensure_future(self.worker.run())
        for _ in range(100_000):
            if condition():
                break
            await asyncio.sleep(0)
        else:
            pytest.fail("the condition did not come true")
        self.worker.request_stop()
        return await running


async def test_every_task_is_done_once_and_acknowledged(make_task):
    seen = []

    async def handler(task, _execution):
        seen.append(task)

    bench = Bench(handler)
    tasks = [make_task() for _ in range(50)]
    await bench.put(*tasks)
    totals = await bench.run_until(lambda: len(seen) == 50)
    assert seen == tasks
    assert totals.done == 50
    depth = await bench.queue.depth()
    assert (depth.pending, depth.in_flight) == (0, 0)
    assert bench.recorder.kinds(tasks[0].id.bytes) == [
        Event.RECEIVED,
        Event.STARTED,
        Event.DONE,
        Event.ACK_SENT,
    ]


async def test_immediate_acknowledges_before_the_work(make_task):
    async def handler(_task, _execution):
        pass

    bench = Bench(handler, ack=AckMode.IMMEDIATE)
    task = make_task()
    await bench.put(task)
    await bench.run_until(lambda: bench.worker.totals.done == 1)
    assert bench.recorder.kinds(task.id.bytes) == [
        Event.RECEIVED,
        Event.ACK_SENT,
        Event.STARTED,
        Event.DONE,
    ]


async def test_concurrency_is_bounded_and_used(make_task):
    running = 0
    highest = 0

    async def handler(_task, _execution):
        nonlocal running, highest
        running += 1
        highest = max(highest, running)
        await bench.clock.sleep(1.0)
        running -= 1

    bench = Bench(handler, concurrency=4)
    await bench.put(*[make_task() for _ in range(20)])
    await bench.run_until(lambda: bench.worker.totals.done == 20)
    assert highest == 4


async def test_a_failing_task_is_tried_again_and_then_a_dead_letter(make_task):
    attempts = []

    async def handler(task, _execution):
        attempts.append(bench.clock.now_ns)
        raise ValueError(f"no luck with {task.repo_id}")

    bench = Bench(handler, max_attempts=3, retry_delay_s=2.0)
    task = make_task()
    await bench.put(task)
    totals = await bench.run_until(lambda: bench.letters.letters)
    assert len(attempts) == 3
    assert attempts[1] - attempts[0] >= 2_000_000_000
    assert (totals.failed, totals.retried, totals.dead) == (3, 2, 1)
    (letter,) = bench.letters.letters
    assert letter.payload == encode_task(task)
    assert "ValueError: no luck with" in letter.reason
    assert letter.attempts == 3
    assert (await bench.queue.depth()).in_flight == 0


async def test_a_failure_after_an_early_ack_is_lost_and_counted(make_task):
    async def handler(_task, _execution):
        raise ValueError

    bench = Bench(handler, ack=AckMode.IMMEDIATE)
    await bench.put(make_task())
    totals = await bench.run_until(lambda: bench.worker.totals.failed)
    assert totals.lost_after_early_ack == 1
    assert totals.retried == 0


@pytest.mark.parametrize("ack", list(AckMode))
async def test_junk_goes_to_the_dead_letters_and_the_worker_goes_on(make_task, ack):
    async def handler(_task, _execution):
        pass

    bench = Bench(handler, ack=ack)
    await bench.queue.put(b"\xffjunk")
    await bench.put(make_task())
    totals = await bench.run_until(lambda: bench.worker.totals.done and bench.worker.totals.dead)
    assert (totals.done, totals.dead) == (1, 1)
    assert bench.letters.letters[0].payload == b"\xffjunk"
    assert "no task" in bench.letters.letters[0].reason
    assert (await bench.queue.depth()).in_flight == 0


async def test_a_letter_that_cannot_be_stored_keeps_the_delivery(make_task):
    class Broken:
        async def bury(self, _letter):
            raise BrokerUnreachableError("down")

    async def handler(_task, _execution):
        raise ValueError

    bench = Bench(handler, max_attempts=1)
    bench.worker._dead_letters = Broken()
    await bench.put(make_task())
    await bench.run_until(lambda: bench.worker.totals.failed)
    assert bench.worker.totals.dead == 0
    assert (await bench.queue.depth()).in_flight == 1


class _LeasedDelivery:
    """A delivery of the memory queue whose lease may end."""

    broker = Broker.REDIS
    sequence = 0

    def __init__(self, delivery, *, lost):
        self.payload, self.attempt = delivery.payload, delivery.attempt
        self._delivery = delivery
        self._lost = lost
        self.tried = []

    async def _try(self, name, *args):
        self.tried.append(name)
        if self._lost:
            raise LeaseLostError("ended")
        if name != "ensure_held":
            await getattr(self._delivery, name)(*args)

    async def ensure_held(self):
        await self._try("ensure_held")

    async def ack(self):
        await self._try("ack")

    async def nak(self, delay_s=0.0):
        await self._try("nak", delay_s)

    async def term(self, reason):
        await self._try("term", reason)


class LeasedBench(Bench):
    """A worker whose deliveries are under a lease."""

    def __init__(self, handler, *, lost, **limits):
        super().__init__(handler, **limits)
        self.lost = lost
        self.deliveries = []
        self.worker.switch(self)

    async def receive(self, _task_type, limit):
        found = [
            _LeasedDelivery(delivery, lost=self.lost)
            for delivery in await self.queue.receive(limit, 1.0)
        ]
        self.deliveries += found
        return [decode_delivery(delivery, self.recorder) for delivery in found]

    async def close(self):
        pass


async def test_an_ack_after_the_lease_is_told_and_not_tried_again(make_task):
    async def handler(_task, _execution):
        pass

    bench = LeasedBench(handler, lost=True)
    await bench.put(make_task())
    await bench.run_until(lambda: bench.worker.totals.done)
    assert bench.deliveries[0].tried == ["ack"]
    assert bench.recorder.count(Event.ACK_FAILED) == 1
    assert bench.recorder.count(Event.ACK_SENT) == 0


@pytest.mark.parametrize(("max_attempts", "tried"), [(2, ["nak"]), (1, ["ensure_held"])])
async def test_a_failure_after_the_lease_is_left_to_the_next_worker(make_task, max_attempts, tried):
    async def handler(_task, _execution):
        raise ValueError

    bench = LeasedBench(handler, lost=True, max_attempts=max_attempts)
    await bench.put(make_task())
    totals = await bench.run_until(lambda: bench.worker.totals.failed)
    assert bench.deliveries[0].tried == tried
    assert (totals.retried, totals.dead) == (0, 0)
    assert bench.letters.letters == []


async def test_under_a_lease_a_letter_that_cannot_be_stored_gives_the_task_back(make_task):
    class Broken:
        async def bury(self, _letter):
            raise BrokerUnreachableError("down")

    async def handler(_task, _execution):
        raise ValueError

    bench = LeasedBench(handler, lost=False, max_attempts=1)
    bench.worker._dead_letters = Broken()
    await bench.put(make_task())
    await bench.run_until(lambda: len(bench.deliveries) > 1)
    assert bench.deliveries[0].tried == ["ensure_held", "nak"]
    assert bench.deliveries[1].attempt == 2


async def test_a_stop_finishes_what_was_taken(make_task):
    async def handler(_task, _execution):
        await bench.clock.sleep(5.0)

    bench = Bench(handler, concurrency=10)
    await bench.put(*[make_task() for _ in range(10)])
    totals = await bench.run_until(lambda: bench.worker.in_work == 10)
    assert totals.done == 10
    assert totals.given_back == 0


async def test_a_stop_gives_back_what_does_not_finish(make_task):
    async def handler(_task, _execution):
        await asyncio.Event().wait()

    bench = Bench(handler, concurrency=3, drain_timeout_s=20.0)
    await bench.put(*[make_task() for _ in range(5)])
    totals = await bench.run_until(lambda: bench.worker.in_work == 3)
    assert totals.given_back == 3
    depth = await bench.queue.depth()
    assert (depth.pending, depth.in_flight) == (5, 0)


async def test_failed_reads_are_tried_again_with_growing_pauses(make_task):
    async def handler(_task, _execution):
        pass

    bench = Bench(handler)
    bench.read_errors = [BrokerUnreachableError("down")] * 5
    started_ns = bench.clock.now_ns
    await bench.put(make_task())
    await bench.run_until(lambda: bench.worker.totals.done)
    assert bench.clock.now_ns - started_ns >= (0.05 + 0.1 + 0.2 + 0.4 + 0.8) * 1e9


async def test_a_switch_takes_effect_with_the_next_read(make_task):
    async def handler(_task, _execution):
        pass

    bench = Bench(handler)
    other = Bench(handler)
    old = bench.worker.switch(other.worker._source)
    assert old is not other.worker._source
    await other.put(make_task())
    await bench.run_until(lambda: bench.worker.totals.done == 1)


async def test_two_copies_of_one_task_keep_their_own_acknowledgements(make_task):
    gate = asyncio.Event()

    async def handler(_task, _execution):
        await gate.wait()

    bench = Bench(handler)
    task = make_task()
    await bench.put(task, task)
    running = asyncio.ensure_future(bench.run_until(lambda: bench.worker.totals.done == 2))
    await eventually(lambda: bench.worker.in_work == 2)
    gate.set()
    await running
    depth = await bench.queue.depth()
    assert (depth.pending, depth.in_flight) == (0, 0)


class _ConfirmedAck(_Ack):
    """An acknowledgement whose confirmation comes when the test says so."""

    confirms = True

    def __init__(self, delivery, waiting):
        super().__init__(delivery)
        self._waiting = waiting

    async def send_ack(self):
        await self._ack()
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        return future


class ConfirmedBench(Bench):
    """As ``Bench``, with acknowledgements that are confirmed."""

    def __init__(self, handler, **limits):
        super().__init__(handler, **limits)
        self.waiting = []

    async def _consume(self, _subject, batch):
        deliveries = await self.queue.receive(batch, 1.0)
        return [(item.payload, _ConfirmedAck(item, self.waiting)) for item in deliveries]


async def nothing(_task, _execution):
    pass


async def test_no_slot_waits_for_a_confirmation(make_task):
    bench = ConfirmedBench(nothing, concurrency=1)
    tasks = [make_task() for _ in range(5)]
    await bench.put(*tasks)

    def all_sent():
        if len(bench.waiting) < 5:
            return False
        assert bench.recorder.count(Event.ACK_CONFIRMED) == 0
        for future in bench.waiting:
            future.set_result(None)
        return True

    await bench.run_until(all_sent)
    assert bench.recorder.kinds(tasks[0].id.bytes) == [
        Event.RECEIVED,
        Event.STARTED,
        Event.DONE,
        Event.ACK_SENT,
        Event.ACK_CONFIRMED,
    ]


async def test_a_stop_waits_for_the_confirmations_and_not_for_ever(make_task):
    bench = ConfirmedBench(nothing, drain_timeout_s=20.0)
    await bench.put(make_task(), make_task())
    begin_ns = bench.clock.now_ns

    def half_confirmed():
        if len(bench.waiting) == 2 and not bench.waiting[0].done():
            bench.waiting[0].set_result(None)
        return bench.worker.totals.done == 2

    await bench.run_until(half_confirmed)
    assert bench.recorder.count(Event.ACK_CONFIRMED) == 1
    assert bench.recorder.count(Event.ACK_FAILED) == 1
    assert bench.clock.now_ns - begin_ns >= 20e9
