"""Bugs of the worker loop: what it does with a delivery, and how often."""

import msgspec

from hookbench.ledger.events import Event
from hookbench.worker.loop import Worker
from tests.mutations import scenarios
from tests.mutations.planting import Mutation


def ack_before_processing(original, trace):
    async def _process(self, item):
        trace.hit(item.task)
        self._acks.take(item.key, item.delivery)
        await item.delivery.ack()
        self._recorder.record(Event.ACK_SENT, item.task.id.bytes, broker=item.delivery.broker)
        item.settled = True
        await original(self, item)

    return _process


def one_attempt_too_many(original, trace):
    async def _failed(self, item, task, error):
        limits = self._limits
        if item.attempt == limits.max_attempts:
            trace.hit(task)
        more = limits.max_attempts + 1
        self._limits = msgspec.structs.replace(limits, max_attempts=more)
        try:
            await original(self, item, task, error)
        finally:
            self._limits = limits

    return _failed


def dropped_on_failure(_original, trace):
    async def _failed(self, item, task, _error):
        trace.hit(task)
        key = task.id.bytes
        self._recorder.record(Event.FAILED, key, broker=item.delivery.broker, attempt=item.attempt)
        self._acks.take(item.key, item.delivery)
        await item.delivery.term("failed")

    return _failed


def done_before_the_outcome(original, trace):
    async def _process(self, item):
        trace.hit(item.task)
        broker = item.delivery.broker
        self._recorder.record(Event.DONE, item.task.id.bytes, broker=broker, attempt=item.attempt)
        await original(self, item)

    return _process


def done_and_acknowledged_before_the_effect(original, trace):
    async def _process(self, item):
        key, delivery = item.task.id.bytes, item.delivery
        self._recorder.record(Event.DONE, key, broker=delivery.broker, attempt=item.attempt)
        self._acks.take(item.key, delivery)
        await delivery.ack()
        self._recorder.record(Event.ACK_SENT, key, broker=delivery.broker)
        item.settled = True
        trace.hit(item.task)
        await original(self, item)

    return _process


def handler_called_twice(original, trace):
    async def _process(self, item):
        trace.hit(item.task)
        handler = self._handler

        async def twice(task, execution):
            await handler(task, execution)
            await handler(task, execution)

        self._handler = twice
        try:
            await original(self, item)
        finally:
            self._handler = handler

    return _process


def started_twice(original, trace):
    def _start(self, item):
        trace.hit(item.task)
        original(self, item)
        original(self, item)

    return _start


def started_twice_on_a_retry(original, trace):
    def _start(self, item):
        original(self, item)
        if item.attempt > 1:
            trace.hit(item.task)
            original(self, item)

    return _start


MUTATIONS = (
    Mutation(
        name="ack-before-processing-and-killed",
        owner=Worker,
        attribute="_process",
        plant=ack_before_processing,
        what="a delivery is acknowledged before its task is processed, and the worker is killed",
        scenario=scenarios.killed_worker,
        invariant=1,
        row="nats_primary",
        hazard="P10",
        cause=("lost", "started", "worker.00001 died", "P10"),
    ),
    Mutation(
        name="ack-before-processing-and-failed",
        owner=Worker,
        attribute="_process",
        plant=ack_before_processing,
        what="a delivery is acknowledged before its task is processed, and the handler fails",
        scenario=scenarios.nats_failing_once,
        invariant=1,
        row="nats_primary",
        hazard="P10",
        cause=("lost", "failed", "-", "P10"),
    ),
    Mutation(
        name="one-attempt-too-many",
        owner=Worker,
        attribute="_failed",
        plant=one_attempt_too_many,
        what="a task is retried once more when its budget is used up",
        scenario=scenarios.redis_failing,
        invariant=6,
        row="redis_only",
    ),
    Mutation(
        name="one-attempt-too-many-for-the-consumer",
        owner=Worker,
        attribute="_failed",
        plant=one_attempt_too_many,
        what="the same on NATS, whose consumer gives the task up: no dead letter, no end",
        scenario=scenarios.nats_failing,
        invariant=5,
        row="nats_primary",
        hazard="N3",
    ),
    Mutation(
        name="dropped-on-failure",
        owner=Worker,
        attribute="_failed",
        plant=dropped_on_failure,
        what="a task whose handler failed is ended without a retry and without a letter",
        scenario=scenarios.redis_failing_once,
        invariant=1,
        row="redis_only",
        cause=("lost", "failed", "-", "-"),
    ),
    Mutation(
        name="done-before-the-outcome",
        owner=Worker,
        attribute="_process",
        plant=done_before_the_outcome,
        what="done is recorded before the handler ran, which fails: the task is dead as well",
        scenario=scenarios.redis_failing_after_effect,
        invariant=1,
        row="redis_only",
        cause=("second end", "done", "-", "-"),
    ),
    Mutation(
        name="done-before-the-outcome-in-doubt",
        owner=Worker,
        attribute="_process",
        plant=done_before_the_outcome,
        what="the same with a task whose caller was left in doubt",
        scenario=scenarios.doubtful_failing_after_effect,
        invariant=2,
        row="redis_only",
        cause=("second end", "done", "-", "-"),
    ),
    Mutation(
        name="done-and-acknowledged-before-the-effect",
        owner=Worker,
        attribute="_process",
        plant=done_and_acknowledged_before_the_effect,
        what="done is recorded and acknowledged before the effect, and the handler fails",
        scenario=scenarios.redis_failing_once,
        invariant=4,
        row="redis_only",
    ),
    Mutation(
        name="handler-called-twice",
        owner=Worker,
        attribute="_process",
        plant=handler_called_twice,
        what="the handler runs twice for one delivery",
        scenario=scenarios.redis_plain_task,
        invariant=4,
        row="redis_only",
    ),
    Mutation(
        name="handler-called-twice-on-a-retry",
        owner=Worker,
        attribute="_process",
        plant=handler_called_twice,
        what="the handler runs twice for the second delivery: no end of a lease lies between",
        scenario=scenarios.redis_failing_once,
        invariant=4,
        row="redis_only",
    ),
    Mutation(
        name="started-twice",
        owner=Worker,
        attribute="_start",
        plant=started_twice,
        what="one delivery is started as two tasks of the loop",
        scenario=scenarios.redis_plain_task,
        invariant=4,
        row="redis_only",
        cause=("duplicate", "ack_sent", "-", "-"),
    ),
    Mutation(
        name="started-twice-on-a-retry",
        owner=Worker,
        attribute="_start",
        plant=started_twice_on_a_retry,
        what="the same with the second delivery",
        scenario=scenarios.redis_failing_once,
        invariant=4,
        row="redis_only",
        cause=("duplicate", "ack_sent", "-", "-"),
    ),
)
