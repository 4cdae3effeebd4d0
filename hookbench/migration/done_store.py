"""Which tasks are claimed, and which have ended: one authority that both brokers' copies obey.

A worker claims the id of a task before it starts it, and is given a fencing token that grows with
every claim. A claim is held for a lease; whoever claims after that is given a higher token, and
what the former holder says is refused from then on. A record of a task that has ended is kept
until no copy of the task can come any more: at least the stream's max-age plus the retry horizon.

The authority is on Redis, on JetStream, or on both between the two, see ``joint_store.py``. What
the one knows is copied to the other before that one is asked alone, see ``records.py``.
"""

import uuid
from collections.abc import Collection, Coroutine
from typing import Any, Protocol

from hookbench.errors import SettingError
from hookbench.migration.phases import Phase
from hookbench.migration.records import MovedRecords, catch_up
from hookbench.queues.authority import (
    Authority,
    Claim,
    ClaimOutcome,
    DoneRecord,
    DoneStore,
    RecordSource,
    RecordTarget,
)

__all__ = [
    "RETRY_HORIZON_S",
    "Authority",
    "Claim",
    "ClaimOutcome",
    "DoneRecord",
    "DoneStore",
    "HeldClaim",
    "MovingStore",
    "authority_of",
    "parse_authority",
    "retention_s",
]

RETRY_HORIZON_S = 24 * 3600.0
"""How long after a task has left the stream somebody may still put a copy of it."""


def parse_authority(text: str) -> Authority:
    """An authority by its name.

    Raises:
        SettingError: there is no such authority.
    """
    try:
        return Authority(text)
    except ValueError as error:
        raise SettingError(f"authority {text!r}: use one of {', '.join(Authority)}") from error


def authority_of(phase: Phase, chosen: Authority | None = None) -> Authority:
    """The one that was chosen; else as the phase has it.

    ``nats_primary`` has both, since the phases before ask Redis and the one after asks JetStream,
    and a fleet is in two phases while it changes. What was chosen is for the whole fleet.
    """
    if chosen is not None:
        return chosen
    if phase is Phase.NATS_PRIMARY:
        return Authority.BOTH
    return Authority.NATS if phase is Phase.NATS_ONLY else Authority.REDIS


def retention_s(stream_max_age_s: float, retry_horizon_s: float = RETRY_HORIZON_S) -> float:
    """How long a record must be kept at least: longer than any copy of its task may live."""
    return stream_max_age_s + retry_horizon_s


class HeldClaim:
    """A granted claim, with the store that granted it: the authority of a worker may change.

    Attributes:
        granted: the answer to the claim.
        lost: somebody else has claimed the task since; noticed at the latest by ``complete``.
    """

    __slots__ = ("_lease_s", "_store", "granted", "lost")

    def __init__(self, store: DoneStore, granted: Claim, lease_s: float) -> None:
        self._store = store
        self._lease_s = lease_s
        self.granted = granted
        self.lost = False

    async def renew(self) -> bool:
        """Hold it for another lease; ``False`` if it is lost."""
        return self._noted(await self._store.renew(self.granted, self._lease_s))

    async def complete(self) -> bool:
        """Record the task as ended; ``False`` if the claim is lost."""
        return self._noted(await self._store.complete(self.granted))

    async def release(self, *, failure: str = "") -> bool:
        """Give it up; ``False`` if it was lost."""
        return self._noted(await self._store.release(self.granted, failure=failure))

    def _noted(self, ours: bool) -> bool:
        self.lost = self.lost or not ours
        return ours


class _Movable(DoneStore, RecordSource, Protocol):
    """A store that can be asked, and whose records can be read out."""


class MovingStore:
    """An authority whose claims may still be held when it is asked no more.

    What is completed under such a claim is told to those that are asked from then on.
    """

    def __init__(self, store: _Movable) -> None:
        self._store = store
        self._others: tuple[RecordTarget, ...] = ()

    async def hand_over(self, target: RecordTarget) -> MovedRecords:
        """Copy the records to one that shares no claim with this one, before that is asked.

        It covers what one worker does. That no other worker claims here meanwhile is for the
        procedure that changes a fleet to see to, or for ``JointStore``.

        Raises:
            BrokerUnreachableError: one of both is away; it can be called again.
        """
        return await catch_up(self._store, target)

    def tell(self, *others: RecordTarget) -> None:
        """Tell these, too, what is completed here from now on."""
        self._others = others

    def claim(
        self, task_id: uuid.UUID, owner: str, lease_s: float, *, repository: str = "", most: int = 0
    ) -> Coroutine[Any, Any, Claim]:
        """As the store does."""
        return self._store.claim(task_id, owner, lease_s, repository=repository, most=most)

    async def renew(self, claim: Claim, lease_s: float) -> bool:
        """As the store does."""
        return await self._store.renew(claim, lease_s)

    async def complete(self, claim: Claim) -> bool:
        """As the store does; then the others are told."""
        done = await self._store.complete(claim)
        if done:
            record = DoneRecord(task_id=claim.task_id, done=True, token=claim.token)
            for other in self._others:
                await other.put_record(record)
        return done

    async def release(self, claim: Claim, *, failure: str = "") -> bool:
        """As the store does."""
        return await self._store.release(claim, failure=failure)

    async def are_done(self, task_ids: Collection[uuid.UUID]) -> set[uuid.UUID]:
        """As the store does."""
        return await self._store.are_done(task_ids)

    async def forget(self, task_ids: Collection[uuid.UUID]) -> int:
        """As the store does."""
        return await self._store.forget(task_ids)
