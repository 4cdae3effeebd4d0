"""Two authorities that are asked together, while claims and done-records go from one to the other.

In ``nats_primary`` a task is claimed on Redis and on JetStream, and its end is recorded on both. So
whoever asks Redis alone, as in the phases before, and whoever asks JetStream alone, as in
``nats_only``, has one authority in common with each worker between them, and no task is granted to
two of them while a fleet goes from one phase to the next, in either direction.
"""

import asyncio
import contextlib
import uuid
from collections.abc import Collection
from typing import Protocol

import msgspec

from hookbench.errors import BrokerUnreachableError
from hookbench.queues.authority import (
    Claim,
    ClaimOutcome,
    DoneRecord,
    DoneStore,
    RecordTarget,
    TokenBehindError,
)

__all__ = ["JointStore"]

_TRIES = 8


class _First(DoneStore, RecordTarget, Protocol):
    """Gives the tokens."""

    async def claim(
        self,
        task_id: uuid.UUID,
        owner: str,
        lease_s: float,
        *,
        repository: str = "",
        most: int = 0,
        above: int = 0,
    ) -> Claim:
        """With a token above that one."""
        ...


class _Second(DoneStore, RecordTarget, Protocol):
    """Takes them."""

    async def claim(
        self,
        task_id: uuid.UUID,
        owner: str,
        lease_s: float,
        *,
        repository: str = "",
        most: int = 0,
        token: int = 0,
        spent: int = 0,
    ) -> Claim:
        """With that token, or ``TokenBehindError``; ``spent`` attempts are known of elsewhere."""
        ...


class JointStore:
    """An authority made of two: a claim is granted by both, under one token, or not at all.

    The first is asked first, and told of an end first, so that it always knows what the second one
    does of what was done here. What one of them knows as ended, the other is told when the task
    comes again. Attempts that the second one alone knows count for whoever asks both once they are
    copied: until then a task that has had them all may be superseded beside its dead letter.

    Args:
        first: the store of Redis.
        second: the one of JetStream.
    """

    def __init__(self, first: _First, second: _Second) -> None:
        self._first = first
        self._second = second

    async def claim(
        self, task_id: uuid.UUID, owner: str, lease_s: float, *, repository: str = "", most: int = 0
    ) -> Claim:
        """Claim a task on both; what only the first one granted is given back there."""
        above = 0
        for _ in range(_TRIES):
            claim = await self._first.claim(
                task_id, owner, lease_s, repository=repository, most=most, above=above
            )
            if claim.outcome is not ClaimOutcome.GRANTED:
                if claim.outcome is ClaimOutcome.SUPERSEDED and await self._second_has_done(claim):
                    # By its order alone: the first has not heard of this task's own end.
                    return msgspec.structs.replace(claim, outcome=ClaimOutcome.DONE)
                await self._tell_end(self._second, claim)
                return claim
            try:
                second = await self._second.claim(
                    task_id,
                    owner,
                    lease_s,
                    repository=repository,
                    most=most,
                    token=claim.token,
                    spent=claim.attempt - 1,
                )
            except TokenBehindError as error:
                above = error.token
                continue
            except BrokerUnreachableError:
                # Else it would count as lost when its lease ends, though nothing was begun.
                with contextlib.suppress(BrokerUnreachableError):
                    await self._first.release(claim)
                raise
            if second.outcome is ClaimOutcome.GRANTED:
                return msgspec.structs.replace(
                    claim,
                    failures=max(claim.failures, second.failures),
                    losses=max(claim.losses, second.losses),
                    last_failure=claim.last_failure or second.last_failure,
                )
            if second.outcome is ClaimOutcome.HELD:
                await self._first.release(claim)
            await self._tell_end(self._first, second)
            return second
        raise BrokerUnreachableError(f"task {task_id}: others claim it all the time")

    async def renew(self, claim: Claim, lease_s: float) -> bool:
        """Hold a claim for another lease on both."""
        return all(
            await asyncio.gather(
                self._first.renew(claim, lease_s), self._second.renew(claim, lease_s)
            )
        )

    async def complete(self, claim: Claim) -> bool:
        """Record the task as ended on both; asked again, it goes on where it came to."""
        return await self._first.complete(claim) and await self._second.complete(claim)

    async def release(self, claim: Claim, *, failure: str = "") -> bool:
        """Give a claim up on both."""
        ours = await self._first.release(claim, failure=failure)
        return await self._second.release(claim, failure=failure) and ours

    async def are_done(self, task_ids: Collection[uuid.UUID]) -> set[uuid.UUID]:
        """Which of these tasks have ended, by either."""
        done = await self._first.are_done(task_ids)
        return done | await self._second.are_done(set(task_ids) - done)

    async def forget(self, task_ids: Collection[uuid.UUID]) -> int:
        """Remove the records of ended tasks from both; how many tasks had one."""
        counts = [
            await self._first.forget(task_ids),
            await self._second.forget(task_ids),
        ]
        return max(counts)

    async def _second_has_done(self, claim: Claim) -> bool:
        """Whether the second one knows the task as done, and not as superseded."""
        parts = self._second.records_of([claim.task_id])
        return any([item.done and not item.superseded async for part in parts for item in part])

    async def _tell_end(self, other: RecordTarget, claim: Claim) -> None:
        """What one knows as ended, the other has to know when it is asked alone."""
        if claim.outcome in (ClaimOutcome.DONE, ClaimOutcome.SUPERSEDED):
            await other.put_record(
                DoneRecord(
                    task_id=claim.task_id,
                    done=True,
                    superseded=claim.outcome is ClaimOutcome.SUPERSEDED,
                    token=claim.token,
                )
            )
