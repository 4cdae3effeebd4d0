"""Bugs that no checker catches, each with the reason: so that nobody believes otherwise."""

import msgspec

from hookbench.migration.spool import Spool
from hookbench.queues.transport import AppTransport
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
