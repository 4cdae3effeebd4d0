"""Bugs of the producer, and of the flush behind the git hook."""

import uuid

import msgspec

from hookbench.errors import PublishRefusedError, PublishUnknownError, SendError
from hookbench.githook.flush import Flush
from hookbench.ledger.events import Broker, Event
from hookbench.migration.phases import WriteRoute
from hookbench.migration.producer import Receipt, ReceiveSyncService
from hookbench.task import encode_task
from tests.mutations import scenarios
from tests.mutations.planting import Mutation


class _Flattering:
    """A recorder that says accepted where the truth is refused."""

    def __init__(self, recorder):
        self._recorder = recorder

    def record(self, event, task=bytes(16), **more):
        told = Event.ACCEPTED if event is Event.REFUSED else event
        self._recorder.record(told, task, **more)


def accepted_without_a_write(_original, trace):
    async def _to_redis(_self, task, _data, **_more):
        trace.hit(task)
        return 1

    return _to_redis


def accepted_though_both_refused(original, trace):
    async def send(self, task, **more):
        recorder = self._recorder
        self._recorder = _Flattering(recorder)
        try:
            return await original(self, task, **more)
        except SendError:
            trace.hit(task)
            return Receipt()
        finally:
            self._recorder = recorder

    return send


def second_write_is_skipped(original, trace):
    async def send(self, task, **more):
        trace.hit(task)
        self.route = WriteRoute.NATS_THEN_REDIS
        return await original(self, task, **more)

    return send


def no_answer_taken_for_yes(original, trace):
    async def _put(self, key, broker, write, errors):
        number = await original(self, key, broker, write, errors)
        if number is None and isinstance(errors[-1], PublishUnknownError):
            trace.hit(uuid.UUID(bytes=key))
            return 0
        return number

    return _put


def refused_although_written(original, trace):
    async def _put(self, key, broker, write, errors):
        await original(self, key, broker, write, errors)
        trace.hit(uuid.UUID(bytes=key))
        errors.append(PublishRefusedError("an answer that was not understood"))

    return _put


def retry_with_a_new_id(original, trace):
    async def send(self, task, **more):
        try:
            return await original(self, task, **more)
        except SendError:
            other = msgspec.structs.replace(task, id=uuid.uuid4())
            trace.hit(other)
            length = await self._to_redis(other, encode_task(other))
            key = task.id.bytes
            self._recorder.record(Event.PUT_OK, key, broker=Broker.REDIS, value=length)
            self._recorder.record(Event.ACCEPTED, key)
            return Receipt(redis_length=length)

    return send


def removed_before_it_is_sent(original, trace):
    async def _hand_over(self, spool, row):
        trace.hit(row.task)
        spool.remove(row.number)
        await original(self, spool, row)

    return _hand_over


_LOST_AT_PUT = ("lost", "accepted", "-", "-")

MUTATIONS = (
    Mutation(
        name="accepted-without-a-write",
        owner=ReceiveSyncService,
        attribute="_to_redis",
        plant=accepted_without_a_write,
        what="the producer says accepted, and writes nothing to Redis",
        scenario=scenarios.redis_tasks,
        invariant=1,
        row="redis_only",
        cause=_LOST_AT_PUT,
    ),
    Mutation(
        name="accepted-though-both-refused",
        owner=ReceiveSyncService,
        attribute="send",
        plant=accepted_though_both_refused,
        what="a dual write that both brokers refused is accepted all the same",
        scenario=scenarios.both_refuse,
        invariant=1,
        row="dual_write",
        cause=_LOST_AT_PUT,
    ),
    Mutation(
        name="second-write-is-skipped",
        owner=ReceiveSyncService,
        attribute="send",
        plant=second_write_is_skipped,
        what="a dual write stops when NATS has taken the task, while Redis is read",
        scenario=scenarios.dual_write,
        invariant=5,
        row="dual_write",
        hazard="P3",
    ),
    Mutation(
        name="no-answer-taken-for-yes",
        owner=ReceiveSyncService,
        attribute="_put",
        plant=no_answer_taken_for_yes,
        what="a write without an answer is taken for one that succeeded",
        scenario=scenarios.lost_command,
        invariant=1,
        row="redis_only",
        cause=_LOST_AT_PUT,
    ),
    Mutation(
        name="refused-although-written",
        owner=ReceiveSyncService,
        attribute="_put",
        plant=refused_although_written,
        what="the caller is told that a task was refused which the broker has stored",
        scenario=scenarios.redis_tasks,
        invariant=3,
        row="redis_only",
    ),
    Mutation(
        name="retry-with-a-new-id",
        owner=ReceiveSyncService,
        attribute="send",
        plant=retry_with_a_new_id,
        what="a put in doubt is repeated under another id, and accepted under the first",
        scenario=scenarios.lost_reply,
        invariant=3,
        row="redis_only",
    ),
    Mutation(
        name="removed-before-it-is-sent",
        owner=Flush,
        attribute="_hand_over",
        plant=removed_before_it_is_sent,
        what="the flush takes a task out of the spool before a broker acknowledged it",
        scenario=scenarios.pushed,
        invariant=1,
        row="redis_only",
        cause=("lost", "doubtful", "-", "-"),
    ),
)
