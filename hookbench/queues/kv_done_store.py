"""The done-store on JetStream: a key-value bucket, one key per task.

A bucket is a stream whose last record of each subject counts; every write names the revision that
it replaces, and is refused if another came first. So a claim is a write over nothing, or over a
claim whose lease has ended, and its token is the revision of that write.

**The assumption about clocks.** When a lease ends follows from the time that the server wrote it
and from the wall clock of the worker that wants the task: JetStream has no time of its own that a
client could ask for. A clock that is ahead by more than ``skew_s`` takes claims before their
lease has ended; the fencing tokens then keep the effects right, but the work is done twice. A
clock that is behind waits longer. Redis' backend has no such assumption.

Records go when the bucket's max-age has passed since their last write.
"""

import asyncio
import uuid
from collections.abc import Collection
from typing import Any

import msgspec
import nats.errors
import nats.js.errors
from nats.js.api import DiscardPolicy, StorageType, StreamConfig

from hookbench.cancellation import raise_if_cancelled
from hookbench.clock import NS_PER_S, Clock
from hookbench.errors import BrokerUnreachableError, BrokerUnsuitableError, ConfigDriftError
from hookbench.ids import uuid7_wall_ms
from hookbench.queues.authority import (
    ANSWER_TIMEOUT_S,
    MAX_FAILURE_CHARACTERS,
    Claim,
    ClaimOutcome,
    DoneRecord,
    sequence_key,
)
from hookbench.queues.stream_windows import read_windows
from hookbench.queues.transport import AppTransport

__all__ = ["KvDoneStore", "ensure_bucket"]

SKEW_S = 0.5
_AT_ONCE = 64
_READ_THROUGH = 2_000
"""Of more tasks than this it is quicker to read all records (some 30,000 a second) than each."""
_LAST_PREFIX = "last."
_TRIES = 8
_EXPECTED = "Nats-Expected-Last-Subject-Sequence"
_WRONG_REVISION = (10071, 10164)  # JSStreamWrongLastSequence, and the same of a clustered stream
_CLAIMED, _RELEASED, _DONE, _SUPERSEDED = "c", "r", "d", "s"
_ENDED = (_DONE, _SUPERSEDED)


class _Entry(msgspec.Struct, omit_defaults=True):
    """What a key holds.

    Attributes:
        state: claimed, released, done or superseded.
        base: what a token is above a revision: the last token of the store before this one.
        token: 0 in the write that is the claim itself, whose revision makes the token.
        owner, lease_s: of a claim.
        done_ms: of a repository's key: the time in the id of the last task done.
    """

    state: str = msgspec.field(name="s")
    base: int = msgspec.field(default=0, name="b")
    token: int = msgspec.field(default=0, name="t")
    owner: str = msgspec.field(default="", name="o")
    lease_s: float = msgspec.field(default=0.0, name="l")
    failures: int = msgspec.field(default=0, name="f")
    losses: int = msgspec.field(default=0, name="n")
    last_failure: str = msgspec.field(default="", name="w")
    done_ms: int = msgspec.field(default=0, name="m")


class _Stored(msgspec.Struct, frozen=True):
    """An entry with its revision, and when the server wrote it (Unix ns); revision 0 for none."""

    entry: _Entry
    revision: int
    written_ns: int = 0

    @property
    def token(self) -> int:
        if not self.revision:
            return 0
        return self.entry.token or self.entry.base + self.revision


_NOTHING = _Stored(_Entry(state=_RELEASED), 0)
_decoder = msgspec.json.Decoder(_Entry)


async def ensure_bucket(
    transport: AppTransport, *, retention_s: float, storage: str = "file", replicas: int = 1
) -> None:
    """Create the bucket of done-records, or check that the existing one is what is wanted.

    Raises:
        ConfigDriftError: it exists with other settings, which the text lists.
        BrokerUnsuitableError: the server refuses it.
        BrokerUnreachableError: no answer.
    """
    bucket = transport.names.done_bucket
    wanted: dict[str, Any] = {
        "subjects": [f"$KV.{bucket}.>"],
        "max_age": retention_s,
        "max_msgs_per_subject": 1,
        "storage": StorageType(storage),
        "num_replicas": replicas,
    }
    jetstream = transport.jetstream
    try:
        try:
            info = await jetstream.stream_info(f"KV_{bucket}")
        except nats.js.errors.NotFoundError:
            config = StreamConfig(
                name=f"KV_{bucket}",
                **wanted,
                discard=DiscardPolicy.NEW,
                allow_rollup_hdrs=True,
                deny_delete=True,
                duplicate_window=min(retention_s, 120.0),
            )
            info = await jetstream.add_stream(config)
    except nats.js.errors.APIError as error:
        raise BrokerUnsuitableError(f"bucket {bucket}: the server refused it: {error}") from error
    except (nats.errors.Error, TimeoutError) as error:
        raise BrokerUnreachableError(f"bucket {bucket}: no answer ({error!r})") from error
    found = {name: getattr(info.config, name) for name in wanted}
    differing = [
        f"{name}: wanted {wanted[name]}, found {found[name]}"
        for name in wanted
        if wanted[name] != found[name]
    ]
    if differing:
        raise ConfigDriftError(
            f"bucket {bucket} exists with other settings ({'; '.join(differing)}): change it with"
            f" 'nats stream edit KV_{bucket}', or use another stream name"
        )


class KvDoneStore:
    """The authority on JetStream; its bucket must exist, see ``ensure_bucket``.

    Args:
        transport: the connection, and the names.
        clock: tells whether a lease has ended, see the module.
        skew_s: how far two wall clocks may be apart.
        timeout_s: after which the store counts as away.
    """

    def __init__(
        self,
        transport: AppTransport,
        *,
        clock: Clock,
        skew_s: float = SKEW_S,
        timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> None:
        self._transport = transport
        self._clock = clock
        self._skew_s = skew_s
        self._timeout_s = timeout_s
        self._stream = f"KV_{transport.names.done_bucket}"
        self._subject = f"$KV.{transport.names.done_bucket}."
        self._held: dict[tuple[uuid.UUID, int], _Stored] = {}
        """What this process wrote last under each of its claims: saves a read per write."""
        self._latest: dict[tuple[uuid.UUID, int], _Stored] = {}
        """What each of its claims found of the repository: as a rule still so when it ends."""

    async def claim(
        self, task_id: uuid.UUID, owner: str, lease_s: float, *, repository: str = ""
    ) -> Claim:
        """Claim a task: one write where nobody has it, else a read first.

        The order of a repository takes a read more, and is not of one piece with the claim: a
        later task that is completed between the two is not seen.
        """
        born_ms = _born_ms(task_id, repository)
        latest = await self._read_key(_last_key(repository)) if born_ms else _NOTHING
        superseded = latest.entry.done_ms > born_ms
        found = await self._read(task_id) if superseded else _NOTHING
        for _ in range(_TRIES):
            held_for_s = self._held_for_s(found, owner)
            if found.entry.state == _DONE:
                return Claim(task_id=task_id, outcome=ClaimOutcome.DONE)
            if found.entry.state == _SUPERSEDED:
                return Claim(task_id=task_id, outcome=ClaimOutcome.SUPERSEDED)
            if held_for_s > 0:
                return Claim(task_id=task_id, outcome=ClaimOutcome.HELD, held_for_s=held_for_s)
            lost = found.entry.state == _CLAIMED and found.entry.owner != owner
            entry = _Entry(
                state=_SUPERSEDED if superseded else _CLAIMED,
                base=found.entry.base,
                owner=owner,
                lease_s=lease_s,
                failures=found.entry.failures,
                losses=found.entry.losses + lost,
                last_failure=found.entry.last_failure,
            )
            revision = await self._write(str(task_id), entry, over=found.revision)
            if revision is not None and superseded:
                return Claim(task_id=task_id, outcome=ClaimOutcome.SUPERSEDED)
            if revision is not None:
                stored = _Stored(entry, revision)
                self._held[task_id, stored.token] = stored
                if born_ms:
                    self._latest[task_id, stored.token] = latest
                return Claim(
                    task_id=task_id,
                    outcome=ClaimOutcome.GRANTED,
                    token=stored.token,
                    failures=entry.failures,
                    losses=entry.losses,
                    last_failure=entry.last_failure,
                    repository=repository,
                )
            found = await self._read(task_id)
        # Others write this key all the time: one of them has it.
        return Claim(task_id=task_id, outcome=ClaimOutcome.HELD, held_for_s=lease_s)

    async def renew(self, claim: Claim, lease_s: float) -> bool:
        """Hold a claim for another lease."""
        return await self._replace(claim, lease_s=lease_s)

    async def complete(self, claim: Claim) -> bool:
        """Record the task as ended; before it the repository, for its effect has happened."""
        born_ms = _born_ms(claim.task_id, claim.repository)
        if born_ms:
            latest = self._latest.pop((claim.task_id, claim.token), None)
            await self._advance(claim.repository, born_ms, latest)
        return await self._replace(claim, state=_DONE)

    async def release(self, claim: Claim, *, failure: str = "") -> bool:
        """Give a claim up."""
        return await self._replace(claim, state=_RELEASED, failure=failure[:MAX_FAILURE_CHARACTERS])

    async def are_done(self, task_ids: Collection[uuid.UUID]) -> set[uuid.UUID]:
        """Which of these tasks have ended: a read each, many at once; of very many, all records."""
        if len(task_ids) > _READ_THROUGH:
            return await self._ended_among(set(task_ids))
        found = await self._read_all(task_ids)
        return {task for task, stored in found.items() if stored.entry.state in _ENDED}

    async def _ended_among(self, task_ids: set[uuid.UUID]) -> set[uuid.UUID]:
        """The same by reading the bucket through, which has one entry per task."""
        ended: set[uuid.UUID] = set()
        async for window in read_windows(self._transport, self._stream):
            for item in window:
                key = item.subject.removeprefix(self._subject)
                if key.startswith(_LAST_PREFIX):
                    continue
                task_id = uuid.UUID(key)
                if task_id in task_ids and _decoder.decode(item.payload).state in _ENDED:
                    ended.add(task_id)
        return ended

    async def forget(self, task_ids: Collection[uuid.UUID]) -> int:
        """Remove the records of ended tasks."""
        count = 0
        for task_id, stored in (await self._read_all(task_ids)).items():
            if stored.entry.state in _ENDED:
                entry = _Entry(state=_RELEASED, base=stored.entry.base, token=stored.token)
                count += await self._write(str(task_id), entry, over=stored.revision) is not None
        return count

    async def put_record(self, record: DoneRecord) -> bool:
        """Take the record of another store over; tokens go on above its token."""
        entry = _Entry(
            state=_DONE if record.done else _RELEASED,
            base=record.token,
            token=record.token,
            failures=record.failures,
            losses=record.losses,
            last_failure=record.last_failure,
        )
        found = _NOTHING
        for _ in range(_TRIES):
            if found.entry.state != _RELEASED:
                return False
            if found.revision and not record.done and found.token >= record.token:
                return False
            entry.base = max(entry.base, found.entry.base)
            if await self._write(str(record.task_id), entry, over=found.revision) is not None:
                return True
            found = await self._read(record.task_id)
        raise BrokerUnreachableError(
            f"record {record.task_id}: others write it all the time; stop the workers first"
        )

    async def _advance(self, repository: str, born_ms: int, known: _Stored | None) -> None:
        """Note that a task of that time is done, unless a later one is.

        A write over what was ``known`` is refused where that is not the last record any more.
        """
        key = _last_key(repository)
        for _ in range(_TRIES):
            found, known = known or await self._read_key(key), None
            if found.entry.done_ms >= born_ms:
                return
            entry = _Entry(state=_RELEASED, done_ms=born_ms)
            if await self._write(key, entry, over=found.revision) is not None:
                return
        raise BrokerUnreachableError(f"{self._stream}: others write {key} all the time")

    def _held_for_s(self, found: _Stored, owner: str) -> float:
        entry = found.entry
        if entry.state != _CLAIMED or entry.owner == owner:
            return 0.0
        age_s = (self._clock.wall_ns() - found.written_ns) / NS_PER_S
        return entry.lease_s + self._skew_s - age_s

    async def _replace(
        self, claim: Claim, *, state: str = _CLAIMED, lease_s: float = 0.0, failure: str = ""
    ) -> bool:
        """Write over a claim of ours; ``False`` if it is not ours any more."""
        key = (claim.task_id, claim.token)
        found = self._held.get(key) or await self._read(claim.task_id)
        for _ in range(_TRIES):
            before = found.entry
            if found.token != claim.token or before.state not in (_CLAIMED, _DONE):
                break
            if before.state == _DONE:
                self._drop(key)
                return state == _DONE
            failed = bool(failure)
            entry = _Entry(
                state=state,
                base=before.base,
                token=claim.token,
                owner=before.owner if state == _CLAIMED else "",
                lease_s=lease_s,
                failures=before.failures + failed,
                losses=before.losses,
                last_failure=failure or before.last_failure,
            )
            revision = await self._write(str(claim.task_id), entry, over=found.revision)
            if revision is not None:
                if state == _CLAIMED:
                    self._held[key] = _Stored(entry, revision)
                else:
                    self._drop(key)
                return True
            found = await self._read(claim.task_id)
        self._drop(key)
        return False

    def _drop(self, key: tuple[uuid.UUID, int]) -> None:
        """A claim of ours has ended."""
        self._held.pop(key, None)
        self._latest.pop(key, None)

    async def _write(self, key: str, entry: _Entry, *, over: int) -> int | None:
        """The new revision; ``None`` if the key has another revision than ``over``."""
        if not self._transport.client.is_connected:
            # nats-py would keep the write, and send it when nobody waits for it any more.
            raise BrokerUnreachableError("the done-store: NATS is not connected (reconnecting)")
        try:
            answer = await self._transport.jetstream.publish(
                f"{self._subject}{key}",
                msgspec.json.encode(entry),
                timeout=self._timeout_s,
                headers={_EXPECTED: str(over)},
            )
        except nats.js.errors.NoStreamResponseError as error:
            raise BrokerUnreachableError(f"{self._stream} does not answer") from error
        except nats.js.errors.APIError as error:
            if error.err_code in _WRONG_REVISION:
                return None
            raise BrokerUnreachableError(f"{self._stream} refused a record: {error}") from error
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise BrokerUnreachableError(
                f"{self._stream}: no answer to a record ({type(error).__name__})"
            ) from error
        raise_if_cancelled()
        return int(answer.seq)

    async def _read(self, task_id: uuid.UUID) -> _Stored:
        return await self._read_key(str(task_id))

    async def _read_key(self, key: str) -> _Stored:
        """The last entry, from the stream's leader: a direct get may be answered by a follower."""
        try:
            async with asyncio.timeout(self._timeout_s):
                message = await self._transport.jetstream.get_msg(
                    self._stream, subject=f"{self._subject}{key}"
                )
            raise_if_cancelled()
        except nats.js.errors.NotFoundError:
            return _NOTHING
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise BrokerUnreachableError(
                f"{self._stream}: a record cannot be read ({type(error).__name__})"
            ) from error
        written = message.time
        return _Stored(
            _decoder.decode(message.data or b""),
            int(message.seq or 0),
            0 if written is None else int(written.timestamp() * NS_PER_S),
        )

    async def _read_all(self, task_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, _Stored]:
        ids = list(dict.fromkeys(task_ids))
        found: dict[uuid.UUID, _Stored] = {}
        for start in range(0, len(ids), _AT_ONCE):
            part = ids[start : start + _AT_ONCE]
            stored = await asyncio.gather(*map(self._read, part))
            found.update(zip(part, stored, strict=True))
        return found


def _last_key(repository: str) -> str:
    return f"{_LAST_PREFIX}{sequence_key(repository)}"


def _born_ms(task_id: uuid.UUID, repository: str) -> int:
    """The time in the id of a task that has an order, else 0."""
    return (uuid7_wall_ms(task_id) or 0) if repository else 0
