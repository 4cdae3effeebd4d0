"""Bugs of the outbox, its sweeper, and of publishes with ids."""

import asyncio
import itertools

from hookbench.migration.outbox_file import OutboxFile
from hookbench.migration.producer import ReceiveSyncService
from hookbench.migration.spool import Spool
from hookbench.migration.sweeper import PutOutcome, Sweeper
from hookbench.queues.transport import AppTransport
from tests.mutations import outbox_scenarios as scenarios
from tests.mutations.planting import Mutation


def accepted_before_it_is_stored(_original, trace):
    def add(_self, _task_id, task, **_more):
        trace.hit(task)
        stored = asyncio.get_running_loop().create_future()
        stored.set_result(0)
        return stored

    return add


def refused_and_cleared(original, trace):
    async def put_on(self, broker, item, **more):
        outcome = await original(self, broker, item, **more)
        if outcome is PutOutcome.FAIL:
            trace.hit(item.task)
            return PutOutcome.OK
        return outcome

    return put_on


def cleared_by_one_of_two(original, trace):
    def acknowledge(self, marks, *, needed):
        marks = list(marks)
        for number, bits in marks:
            if bits & needed != needed:
                for row in self.oldest(1000):
                    if row.number == number:
                        trace.hit(row.task)
        return original(self, [(number, needed) for number, _bits in marks], needed=needed)

    return acknowledge


def left_and_forgotten(_original, trace):
    async def _fly(self, item, _before):
        if not await self._carry(item):
            trace.hit(item.task)

    return _fly


def newest_first(original, trace):
    async def lacking(self, broker, limit, **more):
        rows = await original(self, broker, limit, **more)
        for row in rows[:-1]:
            trace.hit(row.task)
        return rows[::-1]

    return lacking


def repeated_under_another_id(original, trace):
    numbers, seen = itertools.count(), set()

    async def publish(self, subject, payload, *, msg_id=None, **more):
        if payload in seen:
            trace.hit(payload)
        seen.add(payload)
        return await original(self, subject, payload, msg_id=f"{msg_id}-{next(numbers)}", **more)

    return publish


def swept_without_a_look(original, trace):
    async def _to_redis(self, task, data, *, look=False):
        if look:
            trace.hit(task)
        return await original(self, task, data, look=False)

    return _to_redis


MUTATIONS = (
    Mutation(
        name="accepted-before-it-is-stored",
        owner=OutboxFile,
        attribute="add",
        plant=accepted_before_it_is_stored,
        what="a task is accepted before it is in the file of the outbox",
        scenario=scenarios.outbox_taken_over,
        invariant=1,
        row="nats_primary",
        cause=("lost", "accepted", "-", "-"),
    ),
    Mutation(
        name="refused-and-cleared",
        owner=ReceiveSyncService,
        attribute="put_on",
        plant=refused_and_cleared,
        what="a task that a broker refused leaves the outbox",
        scenario=scenarios.outbox_stream_away,
        invariant=1,
        row="nats_primary",
        cause=("lost", "put_fail", "-", "-"),
    ),
    Mutation(
        name="cleared-by-one-of-two",
        owner=Spool,
        attribute="acknowledge",
        plant=cleared_by_one_of_two,
        what="a task leaves the outbox when one of the two brokers of its route has it",
        scenario=scenarios.outbox_redis_refuses,
        invariant=5,
        row="dual_write",
        hazard="P3",
    ),
    Mutation(
        name="left-and-forgotten",
        owner=Sweeper,
        attribute="_fly",
        plant=left_and_forgotten,
        what="a task whose first put failed stays in the outbox, and nobody sweeps it",
        scenario=scenarios.outbox_stream_away,
        invariant=5,
        row="nats_primary",
    ),
    Mutation(
        name="newest-of-the-outbox-first",
        owner=OutboxFile,
        attribute="lacking",
        plant=newest_first,
        what="the sweeper takes the newest task first",
        scenario=scenarios.outbox_one_repository_taken_over,
        invariant=7,
        row="nats_primary",
        hazard="P11",
    ),
    Mutation(
        name="repeated-under-another-id",
        owner=AppTransport,
        attribute="publish",
        plant=repeated_under_another_id,
        what="a publish that had no answer is repeated with another Nats-Msg-Id",
        scenario=scenarios.outbox_answer_lost,
        invariant=4,
        row="nats_primary",
        cause=("duplicate", "ack_sent", "-", "-"),
    ),
    Mutation(
        name="swept-without-a-look",
        owner=ReceiveSyncService,
        attribute="_to_redis",
        plant=swept_without_a_look,
        what="a push that had no answer is repeated although the task lies in the list",
        scenario=scenarios.outbox_reply_lost,
        invariant=4,
        row="redis_only",
        cause=("duplicate", "ack_sent", "-", "-"),
    ),
)
