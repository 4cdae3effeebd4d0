"""What a done-store is asked: the seam between the worker and whoever keeps claims and records.

It lies beside the queues, for its backends are clients of the brokers; the code of the migration
finds it in ``migration/done_store.py``.
"""

import enum
import hashlib
import uuid
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Protocol

import msgspec

__all__ = [
    "ANSWER_TIMEOUT_S",
    "MAX_FAILURE_CHARACTERS",
    "Authority",
    "Changes",
    "Claim",
    "ClaimOutcome",
    "DoneRecord",
    "DoneStore",
    "LogPlace",
    "MoveMark",
    "RecordSource",
    "RecordTarget",
    "TokenBehindError",
    "sequence_key",
]

ANSWER_TIMEOUT_S = 3.0
"""An authority that does not answer for so long is away: well below a lease."""
MAX_FAILURE_CHARACTERS = 200


class Authority(enum.StrEnum):
    """Where claims and done-records are kept; ``BOTH`` grant a claim, or it is not granted."""

    REDIS = "redis"
    BOTH = "both"
    NATS = "nats"


class ClaimOutcome(enum.StrEnum):
    """The answer to a claim.

    It is ours; another worker holds it; the task has ended; or it has ended by this answer, or an
    earlier one, since a later task of its repository is done.
    """

    GRANTED = "granted"
    HELD = "held"
    DONE = "done"
    SUPERSEDED = "superseded"


class TokenBehindError(Exception):
    """A claim was to have a token that is not above ``token``, which was given before."""

    def __init__(self, token: int) -> None:
        super().__init__(f"token {token} was given before")
        self.token = token


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to one claim.

    Attributes:
        task_id: the task.
        token: fencing token, above every earlier one of the task; 0 unless granted.
        held_for_s: how long the claim of another worker lasts, if nobody renews it.
        failures: claims of the task that were released because its handler failed.
        losses: claims of the task that ended without a word: their worker died, or stood still.
        last_failure: what the last such failure said, for a person.
        repository: as it was claimed with.
    """

    task_id: uuid.UUID
    outcome: ClaimOutcome
    token: int = 0
    held_for_s: float = 0.0
    failures: int = 0
    losses: int = 0
    last_failure: str = ""
    repository: str = ""

    @property
    def attempt(self) -> int:
        """The 1-based number of this claim among those that count against a budget."""
        return self.failures + self.losses + 1


def sequence_key(repository: str) -> str:
    """What a repository is called in a key: 64 bits of its name, for a name has any characters."""
    return hashlib.blake2b(repository.encode(), digest_size=8).hexdigest()


class DoneStore(Protocol):
    """The authority. No answer, or a broker that is away, is ``BrokerUnreachableError``.

    A lease says when others may claim; a claim is lost when one of them does. So a holder whose
    lease has ended, and whose task nobody else has claimed, may still renew, complete and release.
    """

    async def claim(
        self, task_id: uuid.UUID, owner: str, lease_s: float, *, repository: str = "", most: int = 0
    ) -> Claim:
        """Claim a task for ``owner``; nobody else is granted it for ``lease_s`` seconds.

        ``owner`` names one execution. Asked again by the same owner, as after an answer that was
        lost, the claim is granted again, under a higher token.

        With a ``repository`` the task is ended, and not granted, if one of the same repository
        with a later id was completed. Later is what has a later millisecond (UUIDv7): within one
        the order of ids is chance. But one that has had ``most`` attempts, if that is given, is
        granted all the same: it may have a dead letter already, whose worker could not record its
        end, and a task has one end.
        """
        ...

    async def renew(self, claim: Claim, lease_s: float) -> bool:
        """Hold a granted claim for another lease; ``False`` if it is not ours any more."""
        ...

    async def complete(self, claim: Claim) -> bool:
        """Record the task as ended, and as the last one done of the repository of its claim.

        ``False`` if the claim is not ours any more.

        Asked again after it was recorded under this very claim, the answer is ``True`` again.
        """
        ...

    async def release(self, claim: Claim, *, failure: str = "") -> bool:
        """Give a granted claim up: the task has not ended; ``False`` if it was not ours.

        With ``failure`` the handler failed, which is counted and told to the next who claims.
        """
        ...

    async def are_done(self, task_ids: Collection[uuid.UUID]) -> set[uuid.UUID]:
        """Which of these tasks have ended."""
        ...

    async def forget(self, task_ids: Collection[uuid.UUID]) -> int:
        """Remove the records of ended tasks, so that they can run again; how many there were.

        For a dead letter that is put back. Tokens stay above the former ones.
        """
        ...


class DoneRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a store holds of one task, as it is moved to another store.

    Attributes:
        done: the task has ended; superseded counts as that.
        superseded: it has ended so: a copy that comes later has to be told the same.
        live: it is claimed, and the lease has not ended: its worker must stop first.
        token: the highest so far.
        failures, losses, last_failure: see ``Claim``; a claim whose lease has ended counts as lost.
    """

    task_id: uuid.UUID
    done: bool
    superseded: bool = False
    live: bool = False
    token: int = 0
    failures: int = 0
    losses: int = 0
    last_failure: str = ""


class LogPlace(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of a log of changes.

    Attributes:
        entry: its id, which orders it among those of its log.
        digest: of what it holds. A log that was lost and begun again, or that lost its end in a
            failover, may have another entry of that id.
    """

    entry: str
    digest: str


class MoveMark(msgspec.Struct, frozen=True, kw_only=True):
    """How far the records of one store are known to another one.

    Attributes:
        place: all that changed up to there is, but for ``open``.
        open: claims whose lease had not ended then. They end without an entry in the log when
            their worker is dead.
    """

    place: LogPlace
    open: tuple[uuid.UUID, ...] = ()


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """What a log of changes holds after a place.

    Attributes:
        ages_s: by task, how long ago its record last changed, by the clock of the log's server.
        end: the last entry.
    """

    ages_s: dict[uuid.UUID, float]
    end: LogPlace


class RecordSource(Protocol):
    """A store whose records can be read out: all of them, or those that a log says changed.

    Every change but a renewed lease is in the log, in one step with the change itself: whatever
    loses the one loses the other, or the place by which the log is read.
    """

    def records(self) -> AsyncIterator[Sequence[DoneRecord]]:
        """All records, in parts; one that is written meanwhile may be missing."""
        ...

    def records_of(self, task_ids: Collection[uuid.UUID]) -> AsyncIterator[Sequence[DoneRecord]]:
        """The records of these tasks, in parts; there may be none of some."""
        ...

    async def orders(self) -> dict[str, int]:
        """By ``sequence_key``, the time (ms) in the id of the repository's last task done."""
        ...

    async def log_end(self) -> LogPlace | None:
        """The last entry of the log; ``None`` if there is none."""
        ...

    async def changes_after(self, place: LogPlace) -> Changes | None:
        """What changed after a place; ``None`` if the log does not reach back to it."""
        ...


class RecordTarget(Protocol):
    """A store that takes the records of another one."""

    async def put_record(self, record: DoneRecord) -> bool:
        """Take a record over; ``False`` if what is there says at least as much.

        An end is taken over a claim too: whoever holds that is told that it is lost, unless it is
        the very claim that the record is of.
        """
        ...

    def records_of(self, task_ids: Collection[uuid.UUID]) -> AsyncIterator[Sequence[DoneRecord]]:
        """What it has of these tasks, in parts."""
        ...

    async def put_orders(self, orders: Mapping[str, int]) -> None:
        """Take over which tasks of repositories are done, where they are later than known here."""
        ...

    async def are_done(self, task_ids: Collection[uuid.UUID]) -> set[uuid.UUID]:
        """Which of these tasks have ended."""
        ...

    async def read_mark(self) -> MoveMark | None:
        """What was marked last; ``None`` for nothing."""
        ...

    async def write_mark(self, mark: MoveMark) -> None:
        """Keep a mark; whatever loses records that were put before it, loses it too."""
        ...
