"""Which tasks are claimed, and which are done: one authority that both brokers' copies obey.

A worker claims the id of a task before it starts it, and is given a fencing token that grows with
every claim. A claim is held for a lease; whoever claims after that is given a higher token, and
what the former holder says is refused from then on. A record of a task that is done is kept until
no copy of the task can come any more: at least the stream's max-age plus the retry horizon.
"""

import enum
import uuid
from collections.abc import Collection
from typing import Protocol

import msgspec

__all__ = ["Claim", "ClaimOutcome", "DoneStore"]


class ClaimOutcome(enum.StrEnum):
    """The answer to a claim: it is ours; another worker holds it; the task is done."""

    GRANTED = "granted"
    HELD = "held"
    DONE = "done"


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to one claim.

    Attributes:
        task_id: the task.
        token: fencing token, above every earlier one of the task; 0 unless granted.
        held_for_s: how long the claim of another worker lasts, if nobody renews it.
    """

    task_id: uuid.UUID
    outcome: ClaimOutcome
    token: int = 0
    held_for_s: float = 0.0


class DoneStore(Protocol):
    """The authority. No answer, or a broker that is away, is ``BrokerUnreachableError``."""

    async def claim(self, task_id: uuid.UUID, owner: str, lease_s: float) -> Claim:
        """Claim a task for ``owner``; nobody else is granted it for ``lease_s`` seconds."""
        ...

    async def renew(self, claim: Claim, lease_s: float) -> bool:
        """Hold a granted claim for another lease; ``False`` if it is not ours any more."""
        ...

    async def complete(self, claim: Claim) -> bool:
        """Record the task as done; ``False`` if the claim is not ours any more."""
        ...

    async def release(self, claim: Claim) -> bool:
        """Give a granted claim up: the task is not done; ``False`` if it was not ours."""
        ...

    async def are_done(self, task_ids: Collection[uuid.UUID]) -> set[uuid.UUID]:
        """Which of these tasks are done."""
        ...
