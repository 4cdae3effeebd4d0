"""The done-store on Redis: a small key per task, one script for whatever is asked.

Keys, all with the tag of the queue and so in one slot of a cluster: ``{hook}:task:<id>`` for each
task, ``{hook}:token`` for the last token, ``{hook}:last:<repository>`` for the time (ms) of the
last task done of a repository, and the stream ``{hook}:changes``, whose entries have the ids of the
tasks that one script changed, 16 bytes each, so that who copies the records reads what is new, and
``{hook}:mark`` tells how far the log of another store is known here. A renewed lease is no change.
A task's key holds ``d|token`` or ``s|token`` if it has ended,
done or superseded, else ``state|token|until|failures|losses|owner|failure`` with ``c`` for a
claim, until a time of the server in us, and ``r`` for one that was given up. All of them go when
the retention is over.

A token is the server's time in us, or one above the last token where that is higher: so tokens
still grow where a failover has lost the last of them. The scripts carry ``allow-oom``
(https://redis.io/docs/latest/develop/programmability/eval-intro/, from Redis 7.0 on): a claim
that is refused at maxmemory would keep a queue from being drained (hazard R6). With a policy that
evicts keys that expire, records go before their time.
"""

import asyncio
import contextlib
import hashlib
import uuid
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from hookbench.cancellation import raise_if_cancelled
from hookbench.errors import BrokerUnreachableError, SettingError
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
    sequence_key,
)
from hookbench.queues.batches import Batches
from hookbench.queues.redis_client import RedisClient
from hookbench.queues.redis_done_scripts import ASK, FORGET, LOG, LOG_END, MARK, ORDER, PUT, READ
from hookbench.queues.redis_errors import broker_errors
from hookbench.queues.redis_scripts import run_often
from hookbench.queues.replica_wait import write_replicated
from hookbench.task import Names

__all__ = ["RedisDoneStore"]

_BATCH = 256
_SCAN = 1_000
_LOG_PART = 200
_US_PER_S = 1_000_000
_MS_PER_S = 1_000
_ENDED = (b"d|", b"s|")
_WHAT = "the done-store"
_ID_BYTES = 16
_WRITING = (ASK, FORGET, MARK, ORDER, PUT)


class _Request(NamedTuple):
    what: str
    task_id: uuid.UUID
    token: int = 0
    lease_us: int = 0
    owner: str = ""
    failure: str = ""
    repository: str = ""
    above: int = 0
    most: int = 0


class RedisDoneStore:
    """The authority on Redis; expiry is by the server's own time.

    Args:
        client: the commands.
        names: prefix of the keys.
        replicas: how many must have a claim or a record before it counts: what a failover forgets
            is executed again.
        retention_s: how long records are kept, see ``migration/done_store.py``.
        timeout_s: after which the store counts as away.
    """

    def __init__(
        self,
        client: RedisClient,
        *,
        names: Names | None = None,
        retention_s: float,
        timeout_s: float = ANSWER_TIMEOUT_S,
        replicas: int = 0,
    ) -> None:
        if retention_s <= 0:
            raise SettingError(f"retention of {retention_s} s: use more than 0")
        prefix = (names or Names()).prefix
        self._client = client
        self._task_key = f"{prefix}:task:"
        self._token_key = f"{prefix}:token"
        self._last_key = f"{prefix}:last:"
        self._log_key = f"{prefix}:changes"
        self._mark_key = f"{prefix}:mark"
        self._retention_ms = max(1, int(retention_s * _MS_PER_S))
        self._timeout_s = timeout_s
        self._replicas = replicas
        self._batches: Batches[_Request, list[bytes]] = Batches(self._ask, limit=_BATCH)
        self._puts: Batches[DoneRecord, int] = Batches(self._put, limit=_BATCH)

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
        """Claim a task; its token is higher than ``above``, one that another store has given."""
        if "|" in owner or not owner:
            raise SettingError(f"owner {owner!r}: use a text without '|'")
        answer = await self._batches.ask(
            _Request(
                "claim",
                task_id,
                lease_us=int(lease_s * _US_PER_S),
                owner=owner,
                repository=repository,
                above=above,
                most=most,
            )
        )
        state, token, left_us, failures, losses, failure = answer
        return Claim(
            task_id=task_id,
            outcome=ClaimOutcome(state.decode()),
            token=int(token),
            held_for_s=int(left_us) / _US_PER_S,
            failures=int(failures),
            losses=int(losses),
            last_failure=failure.decode(errors="replace"),
            repository=repository,
        )

    async def renew(self, claim: Claim, lease_s: float) -> bool:
        """Hold a claim for another lease."""
        lease_us = int(lease_s * _US_PER_S)
        return await self._yes(_Request("renew", claim.task_id, claim.token, lease_us=lease_us))

    async def complete(self, claim: Claim) -> bool:
        """Record the task as ended."""
        return await self._yes(
            _Request("complete", claim.task_id, claim.token, repository=claim.repository)
        )

    async def release(self, claim: Claim, *, failure: str = "") -> bool:
        """Give a claim up."""
        failure = failure[:MAX_FAILURE_CHARACTERS]
        return await self._yes(_Request("release", claim.task_id, claim.token, failure=failure))

    async def are_done(self, task_ids: Collection[uuid.UUID]) -> set[uuid.UUID]:
        """Which of these tasks have ended."""
        done = set()
        for part in _parts(list(task_ids)):
            _now_us, *values = await self._eval(READ, self._keys(part))
            done |= {task for task, raw in zip(part, values, strict=True) if raw[:2] in _ENDED}
        return done

    async def forget(self, task_ids: Collection[uuid.UUID]) -> int:
        """Remove the records of ended tasks."""
        counts = [
            await self._eval(
                FORGET,
                [self._log_key, *self._keys(part)],
                self._retention_ms,
                *[task_id.bytes for task_id in part],
            )
            for part in _parts(list(task_ids))
        ]
        return sum(map(int, counts))

    async def records(self) -> AsyncIterator[Sequence[DoneRecord]]:
        """All records, in parts."""
        keys = await self._found(self._task_key)
        ids = [uuid.UUID(key.removeprefix(self._task_key)) for key in dict.fromkeys(keys)]
        async for part in self.records_of(ids):
            yield part

    async def records_of(
        self, task_ids: Collection[uuid.UUID]
    ) -> AsyncIterator[Sequence[DoneRecord]]:
        """The records of these tasks, in parts."""
        for part in _parts(list(task_ids)):
            now_us, *values = await self._eval(READ, self._keys(part))
            yield [
                _record(task, raw, now_us) for task, raw in zip(part, values, strict=True) if raw
            ]

    async def log_end(self) -> LogPlace | None:
        """The last entry of the log of changes."""
        found = await self._eval(LOG_END, [self._log_key])
        return _place(found[0]) if found else None

    async def changes_after(self, place: LogPlace) -> Changes | None:
        """What changed after a place, up to the end of the log as it is now."""
        end = await self.log_end()
        if end is None:
            return None
        ages_s: dict[uuid.UUID, float] = {}
        after = place.entry
        while after != end.entry:
            now_us, entries = await self._entries(f"({after}", end.entry, _LOG_PART)
            if not entries:
                return None
            for entry in entries:
                age_s = max(0.0, (now_us - int(_id_of(entry).split("-")[0]) * 1000) / _US_PER_S)
                ages_s.update(dict.fromkeys(_ids_in(entry), age_s))
            after = _id_of(entries[-1])
        # Asked at the end, for it may be lost while it is read: no other log has this place.
        return Changes(ages_s=ages_s, end=end) if await self._has(place) else None

    async def _has(self, place: LogPlace) -> bool:
        _now_us, entries = await self._entries(place.entry, place.entry, 1)
        return [_place(entry) for entry in entries] == [place]

    async def _entries(self, first: str, last: str, count: int) -> tuple[int, list[Any]]:
        now_us, entries = await self._eval(LOG, [self._log_key], first, last, count)
        return int(now_us), entries

    async def orders(self) -> dict[str, int]:
        """The time (ms) of the last task done of each repository."""
        found: dict[str, int] = {}
        for part in _parts(await self._found(self._last_key)):
            _now_us, *values = await self._eval(READ, part)
            for key, raw in zip(part, values, strict=True):
                found[key.removeprefix(self._last_key)] = int(raw or 0)
        return found

    async def put_orders(self, orders: Mapping[str, int]) -> None:
        """Take over what is later than known here."""
        for part in _parts(list(orders)):
            keys = [f"{self._last_key}{key}" for key in part]
            await self._eval(ORDER, keys, self._retention_ms, *[orders[key] for key in part])

    async def put_record(self, record: DoneRecord) -> bool:
        """Take the record of another store over; tokens go on above its token."""
        return bool(await self._puts.ask(record))

    async def read_mark(self) -> MoveMark | None:
        """What was marked last; what is no mark counts as none, for then all is compared."""
        found = await self._eval(READ, [self._mark_key])
        data = found[1] or None
        with contextlib.suppress(msgspec.MsgspecError):
            return None if data is None else msgspec.json.decode(data, type=MoveMark)
        return None

    async def write_mark(self, mark: MoveMark) -> None:
        """Keep a mark, as long as the records."""
        await self._eval(MARK, [self._mark_key], self._retention_ms, msgspec.json.encode(mark))

    async def remove_all(self) -> None:
        """Delete every key of this store: for a run that cleans up after itself."""
        keys = [*await self._found(self._task_key), *await self._found(self._last_key)]
        keys += [self._token_key, self._log_key, self._mark_key]
        with broker_errors("DEL"):
            for part in _parts(keys):
                await self._client.delete(*part)

    async def _found(self, prefix: str) -> list[str]:
        with broker_errors("SCAN"):
            keys = self._client.scan_iter(match=f"{prefix}*", count=_SCAN)
            return [key.decode() async for key in keys]

    def _keys(self, task_ids: Sequence[uuid.UUID]) -> list[str]:
        return [f"{self._task_key}{task_id}" for task_id in task_ids]

    async def _yes(self, request: _Request) -> bool:
        return (await self._batches.ask(request))[0] == b"yes"

    async def _ask(self, requests: Sequence[_Request]) -> list[list[bytes]]:
        keys = [self._token_key, self._log_key]
        arguments: list[str | bytes | int] = [self._retention_ms, int(self._replicas > 0)]
        for request in requests:
            born_ms = (uuid7_wall_ms(request.task_id) or 0) if request.repository else 0
            keys += (
                f"{self._task_key}{request.task_id}",
                f"{self._last_key}{sequence_key(request.repository)}"
                if born_ms
                else self._token_key,
            )
            arguments += (
                request.task_id.bytes,
                request.what,
                request.token,
                request.lease_us,
                request.owner,
                request.failure,
                born_ms,
                request.above,
                request.most,
            )
        answers: list[list[bytes]] = await self._eval(ASK, keys, *arguments)
        return answers

    async def _put(self, records: Sequence[DoneRecord]) -> list[int]:
        keys = [self._token_key, self._log_key, *self._keys([item.task_id for item in records])]
        arguments: list[str | bytes | int] = [self._retention_ms, int(self._replicas > 0)]
        for record in records:
            arguments += (
                record.task_id.bytes,
                _end_of(record),
                record.token,
                record.failures,
                record.losses,
                record.last_failure,
            )
        answers: list[int] = await self._eval(PUT, keys, *arguments)
        return answers

    async def _eval(self, script: str, keys: Sequence[str], *arguments: str | bytes | int) -> Any:
        with broker_errors(_WHAT):
            try:
                async with asyncio.timeout(self._timeout_s):
                    if self._replicas and script in _WRITING:
                        pipeline = self._client.pipeline(transaction=False)
                        pipeline.eval(script, len(keys), *keys, *arguments)
                        answer = await write_replicated(pipeline, self._replicas, _WHAT)
                    else:
                        answer = await run_often(self._client, script, keys, arguments)
            except TimeoutError as error:
                raise BrokerUnreachableError(
                    f"Redis did not answer the done-store within {self._timeout_s:g} s"
                ) from error
            raise_if_cancelled()
            return answer


def _parts(items: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(items), _BATCH):
        yield items[start : start + _BATCH]


def _id_of(entry: Any) -> str:
    return str(entry[0].decode())


def _ids_in(entry: Any) -> Iterator[uuid.UUID]:
    data = entry[1][1]
    for start in range(0, len(data), _ID_BYTES):
        yield uuid.UUID(bytes=data[start : start + _ID_BYTES])


def _place(entry: Any) -> LogPlace:
    digest = hashlib.blake2b(entry[1][1], digest_size=8).hexdigest()
    return LogPlace(entry=_id_of(entry), digest=digest)


def _end_of(record: DoneRecord) -> str:
    """As the value of its key begins; empty for one that has not ended."""
    if not record.done:
        return ""
    return "s" if record.superseded else "d"


def _record(task_id: uuid.UUID, raw: bytes, now_us: int) -> DoneRecord:
    if raw[:2] in _ENDED:
        return DoneRecord(
            task_id=task_id, done=True, superseded=raw[:1] == b"s", token=int(raw[2:])
        )
    state, token, till, failures, losses, _owner, failure = raw.split(b"|", 6)
    open_until_us = int(till) if state == b"c" else None
    live = open_until_us is not None and open_until_us > now_us
    return DoneRecord(
        task_id=task_id,
        done=False,
        live=live,
        token=int(token),
        failures=int(failures),
        losses=int(losses) + (open_until_us is not None and not live),
        last_failure=failure.decode(errors="replace"),
    )
