"""Bugs of the worker loop: how it ends deliveries, and how it stops."""

import contextlib

from hookbench.ledger.events import Broker, Event
from hookbench.migration.phases import ReadRoute
from hookbench.worker.loop import Worker
from tests.mutations import scenarios
from tests.mutations.planting import Mutation


def hung_tasks_are_kept(original, trace):
    async def _drain(self):
        items = dict(self._tasks)
        for task, item in items.items():
            trace.hit(item.task)
            task.cancel()
            with contextlib.suppress(BaseException):
                await task
        await original(self)

    return _drain


def last_read_is_dropped(original, trace):
    def _start(self, item):
        if self._stopping.is_set():
            trace.hit(item.task)
            return
        original(self, item)

    return _start


def letter_is_not_stored(original, trace):
    async def _settle(self, call, task, what):
        if what == "bury" and task is not None:
            trace.hit(task)
            return True
        return await original(self, call, task, what)

    return _settle


def delivery_of_a_letter_goes_on(original, trace):
    async def _settle(self, call, task, what):
        if what == "term" and task is not None:
            trace.hit(task)
            return True
        return await original(self, call, task, what)

    return _settle


def _acknowledged_by(call):
    """The delivery whose method it is; ``None`` for an acknowledgement that is confirmed."""
    return getattr(call, "__self__", None)


def ack_to_the_broker_that_is_read(original, trace):
    async def _settle(self, call, task, what):
        reads_redis = self._source.route is not ReadRoute.NATS
        broker = getattr(_acknowledged_by(call), "broker", None)
        if what == "ack" and not reads_redis and broker is Broker.REDIS:
            trace.hit(task)
            return True
        return await original(self, call, task, what)

    return _settle


def gives_back_what_is_done(original, trace):
    async def _process(self, item):
        settle = self._settle

        async def give_back(_call, task, _what):
            trace.hit(task)
            await item.delivery.nak()
            self._recorder.record(Event.NAK, task.id.bytes, broker=item.delivery.broker)
            return False

        self._settle = give_back if item.attempt == 1 else settle
        try:
            await original(self, item)
        finally:
            self._settle = settle

    return _process


def naks_what_is_done(original, trace):
    async def _settle(self, call, task, what):
        delivery = _acknowledged_by(call)
        if what == "ack" and delivery is not None:
            trace.hit(task)
            call = delivery.nak
        return await original(self, call, task, what)

    return _settle


MUTATIONS = (
    Mutation(
        name="hung-tasks-are-kept",
        owner=Worker,
        attribute="_drain",
        plant=hung_tasks_are_kept,
        what="a stop cancels a task that hangs, and neither finishes it nor gives it back",
        scenario=scenarios.hung_at_stop,
        invariant=5,
        row="redis_only",
        hazard="R3",
    ),
    Mutation(
        name="last-read-is-dropped",
        owner=Worker,
        attribute="_start",
        plant=last_read_is_dropped,
        what="what the last read before a stop has taken is not started",
        scenario=scenarios.stopped_while_reading,
        invariant=5,
        row="redis_only",
        hazard="R3",
    ),
    Mutation(
        name="letter-is-not-stored",
        owner=Worker,
        attribute="_settle",
        plant=letter_is_not_stored,
        what="a dead letter is recorded, its delivery ended, and the letter is nowhere",
        scenario=scenarios.redis_failing,
        invariant=1,
        row="redis_only",
        cause=("lost", "term", "-", "-"),
    ),
    Mutation(
        name="letter-is-not-stored-on-nats",
        owner=Worker,
        attribute="_settle",
        plant=letter_is_not_stored,
        what="the same on NATS",
        scenario=scenarios.nats_failing,
        invariant=1,
        row="nats_primary",
        cause=("lost", "term", "-", "-"),
    ),
    Mutation(
        name="delivery-of-a-letter-goes-on",
        owner=Worker,
        attribute="_settle",
        plant=delivery_of_a_letter_goes_on,
        what="a dead letter is stored, and its delivery is not ended",
        scenario=scenarios.redis_failing,
        invariant=5,
        row="redis_only",
        hazard="P8",
    ),
    Mutation(
        name="ack-to-the-broker-that-is-read",
        owner=Worker,
        attribute="_settle",
        plant=ack_to_the_broker_that_is_read,
        what="an acknowledgement goes to the broker that is read now, not to its deliverer",
        scenario=scenarios.phase_change_with_a_task_in_hand,
        invariant=5,
        row="redis_only",
        hazard="P8",
    ),
    Mutation(
        name="done-and-naked",
        owner=Worker,
        attribute="_settle",
        plant=naks_what_is_done,
        what="a task that is done is given back, and recorded as acknowledged",
        scenario=scenarios.nats_plain_task,
        invariant=4,
        row="nats_primary",
        cause=("duplicate", "ack_sent", "-", "-"),
    ),
    Mutation(
        name="done-and-given-back",
        owner=Worker,
        attribute="_process",
        plant=gives_back_what_is_done,
        what="a task that is done is given back, and the worker says so",
        scenario=scenarios.redis_plain_task,
        invariant=4,
        row="redis_only",
        cause=("duplicate", "ack_sent", "-", "-"),
    ),
)
