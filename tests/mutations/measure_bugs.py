"""Bugs of the measures of the hardened design."""

import dataclasses

import msgspec

from hookbench.migration.done_store import ClaimOutcome
from hookbench.queues.redis_done_store import RedisDoneStore
from hookbench.worker.claims import Claims
from hookbench.worker.loop import Worker
from hookbench.worker.trimming import Trimmer
from tests.mutations import measured, order_scenarios
from tests.mutations.planting import Mutation


def granted_to_everybody(original, trace):
    async def claim(self, task_id, owner, lease_s, **more):
        answer = await original(self, task_id, owner, lease_s, **more)
        if answer.outcome is ClaimOutcome.HELD:
            trace.hit(task_id)
            await self._client.delete(*self._keys([task_id]))
            answer = await original(self, task_id, owner, lease_s, **more)
        return answer

    return claim


def records_are_not_looked_at(original, trace):
    async def claim(self, task_id, owner, lease_s, **more):
        answer = await original(self, task_id, owner, lease_s, **more)
        if answer.outcome is ClaimOutcome.DONE:
            trace.hit(task_id)
            await self._client.delete(*self._keys([task_id]))
            answer = await original(self, task_id, owner, lease_s, **more)
        return answer

    return claim


def skipped_without_an_ack(original, trace):
    async def _acknowledge(self, item, task, *, skipped=False):
        if skipped:
            trace.hit(task)
            return
        await original(self, item, task)

    return _acknowledge


def recorded_before_the_handler(original, trace):
    async def take(self, item, task, **more):
        answer = await original(self, item, task, **more)
        if item.claim is not None:
            trace.hit(task)
            await item.claim.complete()
        return answer

    return take


def held_is_taken_for_done(original, trace):
    async def take(self, item, task, **more):
        answer = await original(self, item, task, **more)
        if answer is not None and answer.outcome is ClaimOutcome.HELD:
            trace.hit(task)
            return type(answer)(task_id=task.id, outcome=ClaimOutcome.DONE)
        return answer

    return take


def the_oldest_is_trimmed(_original, trace):
    async def _remove(self, payloads):
        removed = []
        for _payload in payloads:
            removed.append(0)
            for oldest in await self._client.lrange(self._pending, -1, -1):
                trace.hit(oldest)
                removed[-1] += await self._client.lrem(self._pending, -1, oldest)
        return removed

    return _remove


def the_budget_is_not_looked_at(original, trace):
    async def _process(self, item):
        if item.attempt > self._limits.max_attempts:
            trace.hit(item.task)
        protections = self._protections
        self._protections = dataclasses.replace(protections, own_attempts=False)
        try:
            await original(self, item)
        finally:
            self._protections = protections

    return _process


def superseded_beside_its_letter(original, trace):
    async def claim(self, task_id, owner, lease_s, *, most=0, **more):
        answer = await original(self, task_id, owner, lease_s, **more)
        if answer.outcome is ClaimOutcome.SUPERSEDED and most:
            trace.hit(task_id)
        return answer

    return claim


def moved_without_the_word(original, trace):
    async def records_of(self, task_ids):
        async for part in original(self, task_ids):
            for record in part:
                if record.superseded:
                    trace.hit(record.task_id)
            yield [msgspec.structs.replace(record, superseded=False) for record in part]

    return records_of


MUTATIONS = (
    Mutation(
        name="granted-to-everybody",
        owner=RedisDoneStore,
        attribute="claim",
        plant=granted_to_everybody,
        what="a task that another worker holds is granted all the same",
        scenario=measured.claimed_at_once,
        invariant=4,
        row="redis_only",
    ),
    Mutation(
        name="records-are-not-looked-at",
        owner=RedisDoneStore,
        attribute="claim",
        plant=records_are_not_looked_at,
        what="a task that has ended is granted all the same",
        scenario=measured.claimed_and_replayed,
        invariant=4,
        row="→ dual_read",
        hazard="P5",
        cause=("duplicate", "ack_sent", "-", "P5"),
    ),
    Mutation(
        name="skipped-without-an-ack",
        owner=Worker,
        attribute="_acknowledge",
        plant=skipped_without_an_ack,
        what="a copy of a task that has ended is skipped, and not acknowledged",
        scenario=measured.claimed_in_turn,
        invariant=5,
        row="redis_only",
        hazard="P8",
    ),
    Mutation(
        name="recorded-before-the-handler",
        owner=Claims,
        attribute="take",
        plant=recorded_before_the_handler,
        what="a task is recorded as ended before its handler ran, which fails",
        scenario=measured.claimed_failing_once,
        invariant=1,
        row="redis_only",
        hazard="P10",
        cause=("lost", "ack_sent", "-", "P10"),
    ),
    Mutation(
        name="held-is-taken-for-done",
        owner=Claims,
        attribute="take",
        plant=held_is_taken_for_done,
        what="a task that another worker holds is skipped as if it had ended; that worker is dead",
        scenario=measured.claimed_and_killed,
        invariant=4,
        row="nats_primary",
    ),
    Mutation(
        name="the-oldest-is-trimmed",
        owner=Trimmer,
        attribute="_remove",
        plant=the_oldest_is_trimmed,
        what="the oldest entry of the Redis list is trimmed, whosever it is",
        scenario=measured.trimmed,
        invariant=1,
        row="redis_only",
        cause=("lost", "accepted", "-", "-"),
    ),
    Mutation(
        name="the-budget-is-not-looked-at",
        owner=Worker,
        attribute="_process",
        plant=the_budget_is_not_looked_at,
        what="a task is started once more when crashes have used its budget up",
        scenario=measured.used_up_by_crashes,
        invariant=6,
        row="nats_primary",
    ),
    Mutation(
        name="superseded-beside-its-letter",
        owner=RedisDoneStore,
        attribute="claim",
        plant=superseded_beside_its_letter,
        what="a task that has had its attempts is superseded, though it may have a dead letter",
        scenario=order_scenarios.superseded_after_its_letter,
        invariant=1,
        row="redis_only",
        cause=("second end", "dead", "-", "-"),
    ),
    Mutation(
        name="moved-without-the-word",
        owner=RedisDoneStore,
        attribute="records_of",
        plant=moved_without_the_word,
        what="the record of a superseded task says done where it is copied to",
        scenario=order_scenarios.superseded_and_moved,
        invariant=1,
        row="dual_write",
        hazard="P10",
        cause=("lost", "ack_sent", "-", "P10"),
    ),
)
