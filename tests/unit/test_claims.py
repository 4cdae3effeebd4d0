"""A worker that claims what it starts, under virtual time."""

import asyncio
import random

import msgspec
import pytest

from hookbench.errors import BrokerUnreachableError
from hookbench.ids import uuid7
from hookbench.ledger.events import Event
from hookbench.migration.consumer import RedisConsumer
from hookbench.migration.done_store import ClaimOutcome
from hookbench.migration.phases import AckMode
from hookbench.queues.memory import MemoryQueue
from hookbench.task import encode_task
from hookbench.worker.claims import Claims, ClaimSettings
from hookbench.worker.dead_letters import MemoryDeadLetters
from hookbench.worker.heartbeats import Heart
from hookbench.worker.loop import Worker, WorkerLimits
from hookbench.worker.protections import Protections
from hookbench.worker.retries import NakDelays
from tests.conftest import eventually
from tests.fakes import MemoryDoneStore, MemoryRecorder
from tests.virtual import FixedClock, VirtualClock

LEASE_S = 10.0
S = 1_000_000_000


class _Ack:
    """What ``make_nats_consume`` hands out, over a delivery of the memory queue."""

    def __init__(self, delivery, bench):
        self.attempt = delivery.attempt
        self.sequence = delivery.sequence
        self.term = delivery.term
        self._delivery = delivery
        self._bench = bench

    async def __call__(self):
        await self._delivery.ack()

    async def nak(self, delay_s):
        self._bench.naks.append(delay_s)
        await self._delivery.nak(delay_s)

    async def in_progress(self):
        self._bench.signs.append(self._bench.clock.now_ns)


class Bench:
    """A worker with protections, on a queue that counts as NATS."""

    def __init__(
        self, handler, *, store=None, clock=None, ack=AckMode.AFTER_PROCESSING, owner="w", **limits
    ):
        self.clock = clock or VirtualClock()
        self.queue = MemoryQueue(self.clock)
        self.recorder = MemoryRecorder()
        self.letters = MemoryDeadLetters()
        self.store = store or MemoryDoneStore(self.clock)
        self.naks, self.signs, self.trimmed = [], [], []
        self.claims = Claims(
            self.store,
            owner=owner,
            clock=self.clock,
            settings=ClaimSettings(lease_s=LEASE_S),
            recorder=self.recorder,
        )
        self.protections = {"claims": self.claims, "trim": self.trimmed.append}
        self.handler, self.ack, self.limits = handler, ack, limits
        self.worker = None

    async def _consume(self, _subject, batch):
        deliveries = await self.queue.receive(batch, 1.0)
        return [(delivery.payload, _Ack(delivery, self)) for delivery in deliveries]

    def start(self, **protections):
        self.worker = Worker(
            RedisConsumer.nats_only(self._consume, ack=self.ack, recorder=self.recorder),
            self.handler,
            dead_letters=self.letters,
            clock=self.clock,
            limits=WorkerLimits(**self.limits),
            recorder=self.recorder,
            protections=Protections(**self.protections | protections),
        )
        return asyncio.ensure_future(self.worker.run())

    async def run_until(self, condition, **protections):
        running = self.start(**protections)
        for _ in range(200_000):
            if condition():
                break
            await asyncio.sleep(0)
        else:
            pytest.fail("the condition did not come true")
        self.worker.request_stop()
        return await running


async def _nothing(_task, _execution):
    pass


async def test_a_task_is_claimed_before_it_starts_and_recorded_before_it_is_acknowledged(make_task):
    tokens = []

    async def handler(_task, execution):
        tokens.append(execution.token)
        assert bench.store.asked == ["claim"]

    bench = Bench(handler)
    task = make_task()
    await bench.queue.put(encode_task(task))
    totals = await bench.run_until(lambda: bench.trimmed)
    assert bench.recorder.kinds(task.id.bytes) == [
        Event.RECEIVED,
        Event.CLAIMED,
        Event.STARTED,
        Event.DONE,
        Event.ACK_SENT,
    ]
    claimed = next(item for item in bench.recorder.events if item[0] is Event.CLAIMED)
    assert [claimed[3]] == tokens == [1]
    assert await bench.store.are_done([task.id]) == {task.id}
    assert bench.trimmed == [encode_task(task)]
    assert (totals.done, totals.skipped, totals.unclaimed) == (1, 0, 0)


async def test_a_copy_of_what_has_ended_is_acknowledged_and_not_executed(make_task):
    runs = []

    async def handler(task, _execution):
        runs.append(task.id)

    bench = Bench(handler, concurrency=1)
    task = make_task()
    for _ in range(3):
        await bench.queue.put(encode_task(task))
    totals = await bench.run_until(
        lambda: bench.recorder.count(Event.ACK_SENT) == 3  # of the skipped ones too
    )
    assert runs == [task.id]
    assert (totals.done, totals.skipped) == (1, 2)
    assert len(bench.trimmed) == 1, "the copy of one that had ended before is looked for no more"
    assert bench.recorder.kinds(task.id.bytes)[-3:] == [
        Event.RECEIVED,
        Event.SKIPPED,
        Event.ACK_SENT,
    ]
    assert (await bench.queue.depth()).in_flight == 0


async def test_two_copies_at_once_are_one_execution(make_task):
    """The second waits in the worker, since the first ends soon as a rule."""
    runs = []

    async def handler(task, _execution):
        runs.append(task.id)
        await bench.clock.sleep(0.1)

    bench = Bench(handler, concurrency=2)
    task = make_task()
    for _ in range(2):
        await bench.queue.put(encode_task(task))
    totals = await bench.run_until(lambda: bench.worker.totals.skipped)
    assert runs == [task.id]
    assert (totals.done, totals.skipped, totals.unclaimed) == (1, 1, 0)
    assert bench.naks == []


async def test_what_another_worker_holds_for_long_is_given_back_with_a_delay(make_task):
    bench = Bench(_nothing)
    task = make_task()
    claim = await bench.store.claim(task.id, "another", LEASE_S)
    await bench.queue.put(encode_task(task))
    await bench.run_until(lambda: len(bench.naks) == 2)
    assert bench.naks[0] == pytest.approx(2.0), "at most give_back_s"
    assert bench.worker.totals.unclaimed == 2
    assert Event.STARTED not in bench.recorder.kinds(task.id.bytes)
    assert await bench.store.complete(claim)


async def test_the_task_of_a_worker_that_died_is_taken_over_when_its_lease_ends(make_task):
    executions = []

    async def handler(_task, execution):
        executions.append((execution.attempt, execution.token, bench.clock.now_ns))

    bench = Bench(handler)
    task = make_task()
    dead = await bench.store.claim(task.id, "it died", LEASE_S)
    ends_ns = bench.clock.now_ns + int(LEASE_S * S)
    await bench.queue.put(encode_task(task))
    await bench.run_until(lambda: bench.trimmed)
    ((attempt, token, time_ns),) = executions
    assert (attempt, token > dead.token, time_ns >= ends_ns) == (2, True, True)


async def test_nothing_is_started_while_the_authority_is_away(make_task):
    runs = []

    async def handler(task, _execution):
        runs.append(task)

    bench = Bench(handler)
    bench.store.away = True
    task = make_task()
    await bench.queue.put(encode_task(task))
    running = asyncio.ensure_future(bench.run_until(lambda: runs))
    await eventually(lambda: len(bench.naks) >= 3)
    assert runs == []
    assert set(bench.naks) == {2.0}
    bench.store.away = False
    totals = await running
    assert (totals.done, totals.failed) == (1, 0)
    assert bench.letters.letters == [], "what was not tried has used up nothing"


async def test_a_failure_releases_the_claim_and_is_told_in_the_letter(make_task):
    async def handler(_task, _execution):
        raise ValueError("no luck")

    bench = Bench(handler, max_attempts=3)
    task = make_task()
    await bench.queue.put(encode_task(task))
    totals = await bench.run_until(lambda: bench.letters.letters)
    assert (totals.failed, totals.retried, totals.dead) == (3, 2, 1)
    (letter,) = bench.letters.letters
    assert letter.reason == "failed 3 times, last: ValueError: no luck"
    assert "failed 2 times, last: ValueError: no luck" in letter.history
    assert await bench.store.are_done([task.id]) == {task.id}, "its other copy is not to run"


async def test_a_stale_completion_is_neither_done_nor_acknowledged(make_task):
    """The handler takes longer than its lease, without a sign of life; another one takes over."""
    task = make_task()

    async def handler(_task, _execution):
        await bench.clock.sleep(LEASE_S + 1)
        claim = await bench.store.claim(task.id, "another", LEASE_S)
        assert claim.outcome is ClaimOutcome.GRANTED
        others.append(claim)

    others = []
    bench = Bench(handler)
    await bench.queue.put(encode_task(task))
    totals = await bench.run_until(lambda: bench.worker.totals.stale)
    assert (totals.done, totals.stale) == (0, 1)
    kinds = bench.recorder.kinds(task.id.bytes)
    assert kinds == [Event.RECEIVED, Event.CLAIMED, Event.STARTED, Event.STALE, Event.NAK]
    assert await bench.store.complete(others[0])
    assert bench.trimmed == []


async def test_a_completion_is_asked_for_again_while_the_authority_is_away(make_task):
    async def handler(_task, _execution):
        bench.store.away = True
        asyncio.get_running_loop().create_task(back())

    async def back():
        await bench.clock.sleep(0.5)
        bench.store.away = False

    bench = Bench(handler)
    task = make_task()
    await bench.queue.put(encode_task(task))
    totals = await bench.run_until(lambda: bench.trimmed)
    assert (totals.done, totals.stale) == (1, 0)
    assert bench.store.asked.count("complete") > 1


async def test_a_stop_releases_the_claims_of_what_it_gives_back(make_task):
    async def handler(_task, _execution):
        await asyncio.Event().wait()

    bench = Bench(handler, drain_timeout_s=5.0)
    task = make_task()
    await bench.queue.put(encode_task(task))
    totals = await bench.run_until(lambda: bench.worker.in_work)
    assert totals.given_back == 1
    claim = await bench.store.claim(task.id, "the next", LEASE_S)
    assert (claim.outcome, claim.attempt) == (ClaimOutcome.GRANTED, 1)


@pytest.mark.parametrize("claimed", [True, False])
async def test_a_task_whose_workers_died_is_buried_unstarted(make_task, claimed):
    """No handler failed: the budget was used up by crashes, which own_attempts counts."""
    bench = Bench(_nothing, max_attempts=3)
    task = make_task()
    await bench.queue.put(encode_task(task))
    if claimed:
        for number in range(3):
            await bench.store.claim(task.id, f"dead-{number}", -1.0)
    else:
        for _ in range(3):
            (delivery,) = await bench.queue.receive(1, 1.0)
            await delivery.nak()
        bench.protections["claims"] = None
    totals = await bench.run_until(lambda: bench.letters.letters, own_attempts=True)
    assert (totals.dead, totals.done) == (1, 0)
    (letter,) = bench.letters.letters
    assert letter.reason == "delivered 3 times without an outcome"
    assert letter.attempts == 4
    assert letter.history
    assert bench.recorder.kinds(task.id.bytes)[-2:] == [Event.DEAD, Event.TERM]
    assert Event.STARTED not in bench.recorder.kinds(task.id.bytes)
    assert (await bench.queue.depth()).in_flight == 0


async def test_a_task_within_its_budget_is_started_all_the_same(make_task):
    bench = Bench(_nothing, max_attempts=3)
    task = make_task()
    await bench.queue.put(encode_task(task))
    for number in range(2):
        await bench.store.claim(task.id, f"dead-{number}", -1.0)
    totals = await bench.run_until(lambda: bench.trimmed, own_attempts=True)
    assert (totals.dead, totals.done) == (0, 1)


async def test_signs_of_life_keep_claim_and_delivery(make_task):
    async def handler(_task, _execution):
        for _ in range(10):
            await bench.clock.sleep(LEASE_S / 2)
            other = await bench.store.claim(task.id, "another", LEASE_S)
            assert other.outcome is ClaimOutcome.HELD

    bench = Bench(handler)
    task = make_task()
    await bench.queue.put(encode_task(task))
    started_ns = bench.clock.now_ns
    totals = await bench.run_until(lambda: bench.trimmed, heart=Heart(LEASE_S, bench.clock))
    assert (totals.done, totals.stale) == (1, 0)
    gaps_ns = [b - a for a, b in zip([started_ns, *bench.signs], bench.signs, strict=False)]
    assert len(gaps_ns) >= 10
    assert max(gaps_ns) < LEASE_S / 2 * S


async def test_a_short_task_gives_no_sign(make_task):
    bench = Bench(_nothing)
    for _ in range(20):
        await bench.queue.put(encode_task(make_task()))
    await bench.run_until(lambda: len(bench.trimmed) == 20, heart=Heart(LEASE_S, bench.clock))
    assert bench.signs == []


async def test_a_worker_that_has_lost_its_claim_gives_no_more_signs(make_task):
    """It prolonged another worker's delivery otherwise. The handler is not cancelled."""
    ended = []

    async def handler(_task, _execution):
        await bench.clock.sleep(LEASE_S)
        await bench.store.release(bench.store_claim())
        await bench.store.claim(task.id, "another", 10 * LEASE_S)
        bench.signs.clear()
        await bench.clock.sleep(3 * LEASE_S)
        ended.append(True)

    bench = Bench(handler)
    task = make_task()

    def store_claim():
        (item,) = bench.worker._tasks.values()
        return item.claim.granted

    bench.store_claim = store_claim
    await bench.queue.put(encode_task(task))
    totals = await bench.run_until(
        lambda: bench.worker.totals.stale, heart=Heart(LEASE_S, bench.clock)
    )
    assert (ended, totals.done, bench.signs) == ([True], 0, [])


async def test_an_early_acknowledgement_waits_for_the_end_of_the_other_claim(make_task):
    """Nobody has the delivery any more: given back, it would be gone."""
    bench = Bench(_nothing, ack=AckMode.IMMEDIATE)
    task = make_task()
    await bench.store.claim(task.id, "it died", LEASE_S)
    await bench.queue.put(encode_task(task))
    totals = await bench.run_until(lambda: bench.worker.totals.done)
    assert (totals.unclaimed, totals.lost_after_early_ack) == (0, 0)


async def test_naks_wait_longer_from_attempt_to_attempt(make_task):
    async def handler(_task, _execution):
        raise ValueError("no luck")

    bench = Bench(handler, max_attempts=5)
    await bench.queue.put(encode_task(make_task()))
    delays = NakDelays(base_s=1.0, factor=4.0, cap_s=20.0)
    await bench.run_until(lambda: bench.letters.letters, nak_delays=delays)
    assert bench.naks == [1.0, 4.0, 16.0, 20.0]


async def test_a_letter_that_cannot_be_stored_leaves_the_task_to_others(make_task):
    class Broken:
        async def bury(self, _letter):
            raise BrokerUnreachableError("down")

    async def handler(_task, _execution):
        raise ValueError

    bench = Bench(handler, max_attempts=1)
    bench.letters = Broken()
    task = make_task()
    await bench.queue.put(encode_task(task))
    await bench.run_until(lambda: "release" in bench.store.asked)
    assert await bench.store.are_done([task.id]) == set()
    claim = await bench.store.claim(task.id, "another", LEASE_S)
    assert claim.outcome is ClaimOutcome.GRANTED
    assert (claim.attempt, claim.failures) == (2, 1), "whoever has it next does not start it again"


def ordered(bench, make_task):
    """Two tasks of a repository, for a worker that keeps their order."""
    bench.protections["claims"] = Claims(
        bench.store, owner="w", clock=bench.clock, recorder=bench.recorder, ordered_type="sync"
    )
    entropy = random.Random(7)
    return [
        msgspec.structs.replace(
            make_task(repo_id="repo"), id=uuid7(FixedClock(wall_ns=ms * 1_000_000), entropy)
        )
        for ms in (1_000, 2_000)
    ]


async def test_an_older_task_of_a_repository_is_ended_unexecuted(make_task):
    runs = []

    async def handler(task, _execution):
        runs.append(task.id)

    bench = Bench(handler, concurrency=1)
    older, newer = ordered(bench, make_task)
    for task in (newer, older, older):
        await bench.queue.put(encode_task(task))
    totals = await bench.run_until(lambda: len(bench.trimmed) == 3)
    assert runs == [newer.id]
    assert (totals.done, totals.superseded, totals.skipped) == (1, 2, 0)
    kinds = bench.recorder.kinds(older.id.bytes)
    assert [kind for kind in kinds if kind is not Event.RECEIVED] == [
        Event.SUPERSEDED,
        Event.ACK_SENT,
        Event.SUPERSEDED,
        Event.ACK_SENT,
    ]
    assert (await bench.queue.depth()).in_flight == 0


async def test_a_stop_during_a_completion_leaves_no_doubt_in_the_ledger(make_task):
    class Slow(MemoryDoneStore):
        async def complete(self, claim):
            await super().complete(claim)
            await asyncio.Event().wait()

    clock = VirtualClock()
    bench = Bench(_nothing, store=Slow(clock), clock=clock, drain_timeout_s=1.0)
    task = make_task()
    await bench.queue.put(encode_task(task))
    await bench.run_until(lambda: "complete" in bench.store.asked)
    assert bench.recorder.kinds(task.id.bytes)[-2:] == [Event.STALE, Event.NAK]


@pytest.mark.parametrize(("tries", "buried"), [(2, False), (3, True)])
async def test_a_task_that_may_have_a_letter_is_buried_again(make_task, tries, buried):
    """Its worker wrote the letter and could not record the end: it must not be superseded then."""
    bench = Bench(_nothing, max_attempts=3)
    older, newer = ordered(bench, make_task)
    for number in range(tries):
        await bench.store.claim(older.id, f"dead-{number}", -1.0, repository="repo")
    claim = await bench.store.claim(newer.id, "another", LEASE_S, repository="repo")
    assert await bench.store.complete(claim)
    await bench.queue.put(encode_task(older))
    totals = await bench.run_until(lambda: bench.trimmed, own_attempts=True)
    assert (totals.dead, totals.superseded, totals.done) == ((1, 0, 0) if buried else (0, 1, 0))
    assert await bench.store.are_done([older.id]) == {older.id}
