"""The done-store on JetStream: a key-value bucket, one key per task.

A bucket is a stream whose last record of each subject counts; every write names the revision that
it replaces, and is refused if another came first. So a claim is a write over nothing, or over a
claim whose lease has ended, and its token is the revision of that write.

**The assumption about clocks.** When a lease ends follows from the time that the server wrote it
and from the wall clock of the worker that wants the task: JetStream has no time of its own that a
client could ask for. A clock that is ahead by more than ``skew_s`` takes claims before their
lease has ended; the fencing tokens then keep the effects right, but the work is done twice. A
clock that is behind waits longer. Redis' backend has no such assumption.

The bucket is also the log of what changed, by its sequences: of each task it has the last change.

Records go when the bucket's max-age has passed since their last write.
"""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Collection, Mapping, Sequence

import msgspec

from hookbench.clock import NS_PER_S, Clock
from hookbench.errors import BrokerUnreachableError
from hookbench.ids import uuid7_wall_ms
from hookbench.queues.authority import (
    ANSWER_TIMEOUT_S,
    MAX_FAILURE_CHARACTERS,
    Changes,
    Claim,
    ClaimOutcome,
    DoneRecord,
    LogPlace,
    MoveMark,
    TokenBehindError,
    sequence_key,
)
from hookbench.queues.kv_bucket import ENDED, NOTHING, Bucket, Entry, State, StoredEntry
from hookbench.queues.transport import AppTransport

__all__ = ["KvDoneStore"]

SKEW_S = 0.5
_LAST_PREFIX = "last."
_MARK_KEY = "move.mark"
_TRIES = 8
_PART = 1_000
_AT_ONCE = 64


class _Held:
    """What this process knows of a claim of its own.

    Attributes:
        key: of the task.
        stored: what was written last under the claim: saves a read per write.
        order: the key of the repository, empty without an order.
        latest: what the claim found there: as a rule still so when it ends.
    """

    __slots__ = ("key", "latest", "order", "stored")

    def __init__(
        self, key: str, stored: StoredEntry, order: str, latest: StoredEntry | None
    ) -> None:
        self.key = key
        self.stored = stored
        self.order = order
        self.latest = latest


class KvDoneStore:
    """The authority on JetStream; its bucket must exist, see ``kv_bucket.ensure_bucket``.

    Args:
        transport: the connection, and the names.
        clock: tells whether a lease has ended, see the module.
        skew_s: how far two wall clocks may be apart.
        timeout_s: after which the store counts as away.
        direct: how the order of a repository may be read, as ``ensure_bucket`` says.
    """

    def __init__(
        self,
        transport: AppTransport,
        *,
        clock: Clock,
        skew_s: float = SKEW_S,
        timeout_s: float = ANSWER_TIMEOUT_S,
        direct: bool = False,
    ) -> None:
        self._bucket = Bucket(transport, timeout_s=timeout_s, direct=direct)
        self._clock = clock
        self._skew_s = skew_s
        self._held: dict[tuple[int, int], _Held] = {}
        """By task and token. Tasks as integers, for the hash of a UUID is a call of its own."""

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
        """Claim a task: one write where nobody has it, else a read first.

        The order of a repository takes a read more, and is not of one piece with the claim: a
        later task that is completed between the two is not seen.

        With a ``token``, of another store that granted the claim as well, it is this one's too;
        ``spent`` are the attempts that that one knows of.

        Raises:
            TokenBehindError: a token was given here that is as high.
        """
        born_ms = _born_ms(task_id, repository)
        key, order = str(task_id), _last_key(repository) if born_ms else ""
        latest = await self._bucket.read_order(order) if order else NOTHING
        later = latest.entry.done_ms > born_ms
        found = await self._bucket.read(key) if later else NOTHING
        for _ in range(_TRIES):
            held_for_s = self._held_for_s(found, owner)
            if found.entry.state == State.DONE:
                return Claim(task_id=task_id, outcome=ClaimOutcome.DONE)
            if found.entry.state == State.SUPERSEDED:
                return Claim(task_id=task_id, outcome=ClaimOutcome.SUPERSEDED)
            if held_for_s > 0:
                return Claim(task_id=task_id, outcome=ClaimOutcome.HELD, held_for_s=held_for_s)
            if 0 < token <= found.token:
                raise TokenBehindError(found.token)
            lost = found.entry.state == State.CLAIMED and found.entry.owner != owner
            tried = max(spent, found.entry.failures + found.entry.losses + lost)
            superseded = later and not 0 < most <= tried
            entry = Entry(
                state=State.SUPERSEDED if superseded else State.CLAIMED,
                base=token or found.entry.base,
                token=token,
                owner=owner,
                lease_s=lease_s,
                failures=found.entry.failures,
                losses=found.entry.losses + lost,
                last_failure=found.entry.last_failure,
            )
            revision = await self._bucket.replace(key, entry, over=found.revision)
            if revision is not None and superseded:
                return Claim(task_id=task_id, outcome=ClaimOutcome.SUPERSEDED)
            if revision is not None:
                stored = StoredEntry(entry, revision)
                held = _Held(key, stored, order, latest if order else None)
                self._held[task_id.int, stored.token] = held
                return Claim(
                    task_id=task_id,
                    outcome=ClaimOutcome.GRANTED,
                    token=stored.token,
                    failures=entry.failures,
                    losses=entry.losses,
                    last_failure=entry.last_failure,
                    repository=repository,
                )
            found = await self._bucket.read(key)
        # Others write this key all the time: one of them has it.
        return Claim(task_id=task_id, outcome=ClaimOutcome.HELD, held_for_s=lease_s)

    async def renew(self, claim: Claim, lease_s: float) -> bool:
        """Hold a claim for another lease."""
        return await self._replace(claim, lease_s=lease_s)

    async def complete(self, claim: Claim) -> bool:
        """Record the task as ended; before it the repository, for its effect has happened."""
        born_ms = _born_ms(claim.task_id, claim.repository)
        if born_ms:
            held, latest = self._held.get((claim.task_id.int, claim.token)), None
            if held is not None:
                latest, held.latest = held.latest, None
            order = held.order if held is not None else _last_key(claim.repository)
            await self._advance(order, born_ms, latest)
        return await self._replace(claim, state=State.DONE)

    async def release(self, claim: Claim, *, failure: str = "") -> bool:
        """Give a claim up."""
        return await self._replace(
            claim, state=State.RELEASED, failure=failure[:MAX_FAILURE_CHARACTERS]
        )

    async def are_done(self, task_ids: Collection[uuid.UUID]) -> set[uuid.UUID]:
        """Which of these tasks have ended: a read each, or all records where that is quicker."""
        return await self._bucket.ended_among(task_ids)

    async def forget(self, task_ids: Collection[uuid.UUID]) -> int:
        """Remove the records of ended tasks."""
        count = 0
        for task_id, stored in (await self._bucket.read_all(task_ids)).items():
            if stored.entry.state in ENDED:
                entry = Entry(state=State.RELEASED, base=stored.entry.base, token=stored.token)
                written = self._bucket.replace(str(task_id), entry, over=stored.revision)
                count += await written is not None
        return count

    async def put_record(self, record: DoneRecord) -> bool:
        """Take the record of another store over; tokens go on above its token."""
        ended = State.SUPERSEDED if record.superseded else State.DONE
        entry = Entry(
            state=ended if record.done else State.RELEASED,
            base=record.token,
            token=record.token,
            failures=record.failures,
            losses=record.losses,
            last_failure=record.last_failure,
        )
        found, key = NOTHING, str(record.task_id)
        for _ in range(_TRIES):
            if found.entry.state in ENDED:
                return False
            if found.revision and not record.done:
                claimed = found.entry.state == State.CLAIMED
                if claimed or _weight(found) >= _weight_of(record):
                    return False
            entry.base = max(entry.base, found.entry.base)
            if record.done and record.token != found.token:
                entry.token = max(record.token, found.token + bool(found.revision))
            if await self._bucket.replace(key, entry, over=found.revision) is not None:
                return True
            found = await self._bucket.read(key)
        raise BrokerUnreachableError(
            f"record {record.task_id}: others write it all the time; stop the workers first"
        )

    async def read_mark(self) -> MoveMark | None:
        """What was marked last; what is no mark counts as none, for then all is compared."""
        data = await self._bucket.read_data(_MARK_KEY)
        with contextlib.suppress(msgspec.MsgspecError):
            return None if data is None else msgspec.json.decode(data, type=MoveMark)
        return None

    async def write_mark(self, mark: MoveMark) -> None:
        """Keep a mark, behind the records in the one stream that a bucket is."""
        await self._bucket.write(_MARK_KEY, msgspec.json.encode(mark), over=None)

    async def records(self) -> AsyncIterator[Sequence[DoneRecord]]:
        """All records, in parts."""
        async with contextlib.aclosing(self._bucket.entries()) as parts:
            async for part in parts:
                yield [self._record(task, stored) for task, stored in part]

    async def records_of(
        self, task_ids: Collection[uuid.UUID]
    ) -> AsyncIterator[Sequence[DoneRecord]]:
        """The records of these tasks, in parts."""
        ids = list(task_ids)
        for start in range(0, len(ids), _PART):
            found = await self._bucket.read_all(ids[start : start + _PART])
            yield [self._record(task, stored) for task, stored in found.items() if stored.revision]

    async def log_end(self) -> LogPlace | None:
        """The bucket's last sequence."""
        return await self._bucket.end()

    async def changes_after(self, place: LogPlace) -> Changes | None:
        """What changed after a place, by the sequences of the bucket.

        ``None`` if it is not the same bucket, or ends before that place: one that lost its end in
        a power cut, and got as far again, is taken for whole.
        """
        end = await self._bucket.end()
        if end is None or end.digest != place.digest or int(end.entry) < int(place.entry):
            return None
        ages_s: dict[uuid.UUID, float] = {}
        changed = self._bucket.entries(int(place.entry) + 1)
        async with contextlib.aclosing(changed) as parts:
            async for part in parts:
                for task, stored in part:
                    ages_s[task] = max(0.0, self._age_s(stored))
        return Changes(ages_s=ages_s, end=end)

    def _record(self, task_id: uuid.UUID, stored: StoredEntry) -> DoneRecord:
        entry = stored.entry
        live = self._held_for_s(stored, "") > 0
        return DoneRecord(
            task_id=task_id,
            done=entry.state in ENDED,
            superseded=entry.state == State.SUPERSEDED,
            live=live,
            token=stored.token,
            failures=entry.failures,
            losses=entry.losses + (entry.state == State.CLAIMED and not live),
            last_failure=entry.last_failure,
        )

    def _age_s(self, stored: StoredEntry) -> float:
        return (self._clock.wall_ns() - stored.written_ns) / NS_PER_S

    async def orders(self) -> dict[str, int]:
        """The time (ms) of the last task done of each repository."""
        found: dict[str, int] = {}
        async with contextlib.aclosing(self._bucket.others(f"{_LAST_PREFIX}*")) as parts:
            async for part in parts:
                for key, entry in part:
                    found[key.removeprefix(_LAST_PREFIX)] = entry.done_ms
        return found

    async def put_orders(self, orders: Mapping[str, int]) -> None:
        """Take over what is later than known here."""
        items = list(orders.items())
        for start in range(0, len(items), _AT_ONCE):
            part = items[start : start + _AT_ONCE]
            await asyncio.gather(
                *(self._advance(f"{_LAST_PREFIX}{key}", done_ms, None) for key, done_ms in part)
            )

    async def _advance(self, key: str, born_ms: int, known: StoredEntry | None) -> None:
        """Note that a task of that time is done, unless a later one is.

        A write over what was ``known`` is refused where that is not the last record any more.
        """
        for _ in range(_TRIES):
            found, known = known or await self._bucket.read(key), None
            if found.entry.done_ms >= born_ms:
                return
            entry = Entry(state=State.RELEASED, done_ms=born_ms)
            if await self._bucket.replace(key, entry, over=found.revision) is not None:
                return
        raise BrokerUnreachableError(f"{self._bucket.stream}: others write {key} all the time")

    def _held_for_s(self, found: StoredEntry, owner: str) -> float:
        entry = found.entry
        if entry.state != State.CLAIMED or entry.owner == owner:
            return 0.0
        return entry.lease_s + self._skew_s - self._age_s(found)

    async def _replace(
        self, claim: Claim, *, state: State = State.CLAIMED, lease_s: float = 0.0, failure: str = ""
    ) -> bool:
        """Write over a claim of ours; ``False`` if it is not ours any more."""
        held = self._held.get((claim.task_id.int, claim.token))
        key = held.key if held is not None else str(claim.task_id)
        found = held.stored if held is not None else await self._bucket.read(key)
        for _ in range(_TRIES):
            before = found.entry
            if found.token != claim.token or before.state not in (State.CLAIMED, State.DONE):
                break
            if before.state == State.DONE:
                self._drop(claim)
                return state == State.DONE
            failed = bool(failure)
            entry = Entry(
                state=state,
                base=before.base,
                token=claim.token,
                owner=before.owner if state == State.CLAIMED else "",
                lease_s=lease_s,
                failures=before.failures + failed,
                losses=before.losses,
                last_failure=failure or before.last_failure,
            )
            revision = await self._bucket.replace(key, entry, over=found.revision)
            if revision is not None:
                if state != State.CLAIMED:
                    self._drop(claim)
                elif held is not None:
                    held.stored = StoredEntry(entry, revision)
                return True
            found = await self._bucket.read(key)
        self._drop(claim)
        return False

    def _drop(self, claim: Claim) -> None:
        """A claim of ours has ended."""
        self._held.pop((claim.task_id.int, claim.token), None)


def _weight(found: StoredEntry) -> tuple[int, int]:
    """What a record that has not ended says: more of the same token is later."""
    return found.token, found.entry.failures + found.entry.losses


def _weight_of(record: DoneRecord) -> tuple[int, int]:
    return record.token, record.failures + record.losses


def _last_key(repository: str) -> str:
    return f"{_LAST_PREFIX}{sequence_key(repository)}"


def _born_ms(task_id: uuid.UUID, repository: str) -> int:
    """The time in the id of a task that has an order, else 0."""
    return (uuid7_wall_ms(task_id) or 0) if repository else 0
