"""Bugs that no invariant catches, and the counts of a rehearsal do."""

import uuid

import msgspec

from hookbench.githook.flush import Flush
from hookbench.migration.producer import ReceiveSyncService
from hookbench.task import decode_task, encode_task
from tests.mutations import scenarios
from tests.mutations.planting import Mutation


def flushed_twice_with_other_ids(original, trace):
    async def _hand_over(self, spool, row):
        await original(self, spool, row)
        other = msgspec.structs.replace(decode_task(row.task), id=uuid.uuid4())
        trace.hit(other)
        await original(self, spool, row._replace(task=encode_task(other)))

    return _hand_over


def retry_is_a_task_of_its_own(original, trace):
    async def send(self, task, **more):
        other = msgspec.structs.replace(task, id=uuid.uuid4())
        trace.hit(other)
        await original(self, task, **more)
        return await original(self, other, **more)

    return send


COUNTED = (
    Mutation(
        name="flushed-twice-with-other-ids",
        owner=Flush,
        attribute="_hand_over",
        plant=flushed_twice_with_other_ids,
        what="the flush sends a push twice, the second time under another id",
        scenario=scenarios.pushed_in_order,
        blind="two ids are two tasks; there are more tasks than pushes",
    ),
    Mutation(
        name="retry-is-a-task-of-its-own",
        owner=ReceiveSyncService,
        attribute="send",
        plant=retry_is_a_task_of_its_own,
        what="a producer sends each task twice, the second time under another id",
        scenario=scenarios.redis_tasks,
        blind="two ids are two tasks; the ledger holds more than the producers offered",
    ),
)
