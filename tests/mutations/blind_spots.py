"""Bugs that no checker catches, each with the reason: so that nobody believes otherwise."""

import uuid

import msgspec

from hookbench.githook.flush import Flush
from hookbench.migration.producer import ReceiveSyncService
from hookbench.migration.spool import Spool
from hookbench.queues.transport import AppTransport
from hookbench.task import decode_task, encode_task
from hookbench.worker.loop import Worker
from tests.mutations import scenarios
from tests.mutations.planting import Mutation


def newest_of_the_spool_first(original, trace):
    def oldest(self, limit):
        rows = original(self, limit)
        for overtaken in rows[:-1]:
            trace.hit(overtaken.task)
        return rows[::-1]

    return oldest


def flushed_twice_with_other_ids(original, trace):
    async def _hand_over(self, spool, row):
        await original(self, spool, row)
        other = msgspec.structs.replace(decode_task(row.task), id=uuid.uuid4())
        trace.hit(other)
        await original(self, spool, row._replace(task=encode_task(other)))

    return _hand_over


def sequence_off_by_one(original, trace):
    async def publish(self, subject, payload, **more):
        trace.hit(payload)
        answer = await original(self, subject, payload, **more)
        return msgspec.structs.replace(answer, sequence=answer.sequence + 1)

    return publish


def buried_one_attempt_early(original, trace):
    async def _failed(self, item, task, error):
        limits = self._limits
        if item.attempt == limits.max_attempts - 1:
            trace.hit(task)
        fewer = limits.max_attempts - 1
        self._limits = msgspec.structs.replace(limits, max_attempts=fewer)
        try:
            await original(self, item, task, error)
        finally:
            self._limits = limits

    return _failed


def retry_is_a_task_of_its_own(original, trace):
    async def send(self, task, **more):
        other = msgspec.structs.replace(task, id=uuid.uuid4())
        trace.hit(other)
        await original(self, task, **more)
        return await original(self, other, **more)

    return send


BLIND_SPOTS = (
    Mutation(
        name="newest-of-the-spool-first",
        owner=Spool,
        attribute="oldest",
        plant=newest_of_the_spool_first,
        what="the flush sends the newest push first",
        scenario=scenarios.pushed_in_order,
        blind="the ledger knows a push from its first put on: the order of the flush is its order",
    ),
    Mutation(
        name="flushed-twice-with-other-ids",
        owner=Flush,
        attribute="_hand_over",
        plant=flushed_twice_with_other_ids,
        what="the flush sends a push twice, the second time under another id",
        scenario=scenarios.pushed_in_order,
        blind="two ids are two tasks; a rehearsal asks only for no fewer tasks than pushes",
    ),
    Mutation(
        name="retry-is-a-task-of-its-own",
        owner=ReceiveSyncService,
        attribute="send",
        plant=retry_is_a_task_of_its_own,
        what="a producer sends each task twice, the second time under another id",
        scenario=scenarios.redis_tasks,
        blind="two ids are two tasks; a rehearsal asks only for no fewer tasks than planned",
    ),
    Mutation(
        name="sequence-off-by-one",
        owner=AppTransport,
        attribute="publish",
        plant=sequence_off_by_one,
        what="the stream sequence that is recorded is one too high",
        scenario=scenarios.nats_tasks,
        blind="sequences place tasks that have no end; the witness compares them with the stream",
    ),
    Mutation(
        name="buried-one-attempt-early",
        owner=Worker,
        attribute="_failed",
        plant=buried_one_attempt_early,
        what="a task is buried although its budget would have allowed another attempt",
        scenario=scenarios.redis_failing,
        blind="the budget is a bound: fewer attempts keep it",
    ),
)
