"""The done-store on Redis: a small key per task, one script for whatever is asked.

Keys, all with the tag of the queue and so in one slot of a cluster: ``{hook}:task:<id>`` for each
task, ``{hook}:token`` for the last token, and ``{hook}:last:<repository>`` for the time (ms) of
the last task done of a repository. A task's key holds ``d|token`` or ``s|token`` if it has ended,
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
import uuid
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from typing import Any, NamedTuple

from hookbench.cancellation import raise_if_cancelled
from hookbench.errors import BrokerUnreachableError, SettingError
from hookbench.ids import uuid7_wall_ms
from hookbench.queues.authority import (
    ANSWER_TIMEOUT_S,
    MAX_FAILURE_CHARACTERS,
    Claim,
    ClaimOutcome,
    DoneRecord,
    sequence_key,
)
from hookbench.queues.batches import Batches
from hookbench.queues.redis_client import RedisClient, broker_errors
from hookbench.queues.redis_scripts import run_often
from hookbench.queues.replica_wait import write_replicated
from hookbench.task import Names

__all__ = ["RedisDoneStore"]

_BATCH = 256
_US_PER_S = 1_000_000
_MS_PER_S = 1_000
_ENDED = (b"d|", b"s|")
_WHAT = "the done-store"

# KEYS: the last token, then per request a task and its repository (the first key for none). ARGV:
# retention in ms, 1 where replicas are waited for (an answer may tell what they do not have yet, so
# something is written with each), then six per request: what is asked, token, lease in us, owner,
# failure, and the time of the task in ms, 0 where it has no order. The answer to each request is a
# list of texts: state, token, us left, failures, losses, failure.
_ASK = """#!lua flags=allow-oom
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local keep, replicated = ARGV[1], ARGV[2] == '1'
local first = tonumber(redis.call('GET', KEYS[1]) or '0')
local last = first
local function text(number) return string.format('%.0f', number) end
local answers = {}
for i = 2, #KEYS, 2 do
  local at = (i - 2) * 3 + 2
  local what, mine, lease = ARGV[at + 1], ARGV[at + 2], tonumber(ARGV[at + 3])
  local owner, failure, born = ARGV[at + 4], ARGV[at + 5], tonumber(ARGV[at + 6])
  local latest = 0
  if born > 0 then latest = tonumber(redis.call('GET', KEYS[i + 1]) or '0') end
  local raw = redis.call('GET', KEYS[i]) or ''
  local state, token, till, failed, lost, holder, why =
    string.match(raw, '^(%a)|(%d+)|(%d+)|(%d+)|(%d+)|([^|]*)|(.*)$')
  local ended = string.match(raw, '^([ds])|')
  if ended then state, token = ended, string.sub(raw, 3) end
  state = state or 'n'
  failed, lost = tonumber(failed or '0'), tonumber(lost or '0')
  why = why or ''
  local answer = {'no', '0', '0', '0', '0', ''}
  if what == 'claim' then
    local left = tonumber(till or '0') - now
    if state == 'd' then
      answer[1] = 'done'
    elseif state == 's' then
      answer[1] = 'superseded'
    elseif state == 'c' and left > 0 and holder ~= owner then
      answer = {'held', '0', text(left), '0', '0', ''}
    elseif latest > born then
      last = math.max(last + 1, now, tonumber(token or '0') + 1)
      redis.call('SET', KEYS[i], 's|' .. text(last), 'PX', keep)
      answer[1] = 'superseded'
    else
      if state == 'c' and holder ~= owner then lost = lost + 1 end
      last = math.max(last + 1, now, tonumber(token or '0') + 1)
      redis.call('SET', KEYS[i], table.concat({'c', text(last), text(now + lease), failed, lost,
        owner, why}, '|'), 'PX', keep)
      answer = {'granted', text(last), '0', text(failed), text(lost), why}
    end
  elseif token == mine then
    if what == 'complete' and (state == 'c' or state == 'd') then
      redis.call('SET', KEYS[i], 'd|' .. token, 'PX', keep)
      if born > latest then redis.call('SET', KEYS[i + 1], text(born), 'PX', keep) end
      answer[1] = 'yes'
    elseif what == 'renew' and state == 'c' then
      redis.call('SET', KEYS[i], table.concat({'c', token, text(now + lease), failed, lost,
        holder, why}, '|'), 'PX', keep)
      answer[1] = 'yes'
    elseif what == 'release' and state == 'c' then
      if failure ~= '' then failed, why = failed + 1, failure end
      redis.call('SET', KEYS[i], table.concat({'r', token, '0', failed, lost, '', why}, '|'),
        'PX', keep)
      answer[1] = 'yes'
    end
  end
  answers[i / 2] = answer
end
if last > first or replicated then redis.call('SET', KEYS[1], text(last)) end
return answers
"""

_READ = """#!lua flags=no-writes
local time = redis.call('TIME')
local answers = {time[1] * 1000000 + time[2]}
for i = 1, #KEYS do answers[i + 1] = redis.call('GET', KEYS[i]) or '' end
return answers
"""

_FORGET = """#!lua flags=allow-oom
local count = 0
for i = 1, #KEYS do
  local raw = redis.call('GET', KEYS[i]) or ''
  if string.match(raw, '^[ds]|') then
    redis.call('SET', KEYS[i], 'r|' .. string.sub(raw, 3) .. '|0|0|0||', 'PX', ARGV[1])
    count = count + 1
  elseif raw ~= '' then
    redis.call('PEXPIRE', KEYS[i], ARGV[1])
  end
end
return count
"""


class _Request(NamedTuple):
    what: str
    task_id: uuid.UUID
    token: int = 0
    lease_us: int = 0
    owner: str = ""
    failure: str = ""
    repository: str = ""


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
        self._retention_ms = max(1, int(retention_s * _MS_PER_S))
        self._timeout_s = timeout_s
        self._replicas = replicas
        self._batches: Batches[_Request, list[bytes]] = Batches(self._ask, limit=_BATCH)

    async def claim(
        self, task_id: uuid.UUID, owner: str, lease_s: float, *, repository: str = ""
    ) -> Claim:
        """Claim a task."""
        if "|" in owner or not owner:
            raise SettingError(f"owner {owner!r}: use a text without '|'")
        answer = await self._batches.ask(
            _Request(
                "claim",
                task_id,
                lease_us=int(lease_s * _US_PER_S),
                owner=owner,
                repository=repository,
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
            _now_us, *values = await self._eval(_READ, self._keys(part))
            done |= {task for task, raw in zip(part, values, strict=True) if raw[:2] in _ENDED}
        return done

    async def forget(self, task_ids: Collection[uuid.UUID]) -> int:
        """Remove the records of ended tasks."""
        counts = [
            await self._eval(_FORGET, self._keys(part), self._retention_ms)
            for part in _parts(list(task_ids))
        ]
        return sum(map(int, counts))

    async def records(self) -> AsyncIterator[Sequence[DoneRecord]]:
        """All records, in parts."""
        keys = await self._found(self._task_key)
        ids = [uuid.UUID(key.removeprefix(self._task_key)) for key in dict.fromkeys(keys)]
        for part in _parts(ids):
            now_us, *values = await self._eval(_READ, self._keys(part))
            yield [
                _record(task, raw, now_us) for task, raw in zip(part, values, strict=True) if raw
            ]

    async def remove_all(self) -> None:
        """Delete every key of this store: for a run that cleans up after itself."""
        keys = [*await self._found(self._task_key), *await self._found(self._last_key)]
        keys.append(self._token_key)
        with broker_errors("DEL"):
            for part in _parts(keys):
                await self._client.delete(*part)

    async def _found(self, prefix: str) -> list[str]:
        with broker_errors("SCAN"):
            keys = self._client.scan_iter(match=f"{prefix}*", count=_BATCH)
            return [key.decode() async for key in keys]

    def _keys(self, task_ids: Sequence[uuid.UUID]) -> list[str]:
        return [f"{self._task_key}{task_id}" for task_id in task_ids]

    async def _yes(self, request: _Request) -> bool:
        return (await self._batches.ask(request))[0] == b"yes"

    async def _ask(self, requests: Sequence[_Request]) -> list[list[bytes]]:
        keys = [self._token_key]
        arguments: list[str | int] = [self._retention_ms, int(self._replicas > 0)]
        for request in requests:
            born_ms = (uuid7_wall_ms(request.task_id) or 0) if request.repository else 0
            keys += (
                f"{self._task_key}{request.task_id}",
                f"{self._last_key}{sequence_key(request.repository)}"
                if born_ms
                else self._token_key,
            )
            arguments += (
                request.what,
                request.token,
                request.lease_us,
                request.owner,
                request.failure,
                born_ms,
            )
        answers: list[list[bytes]] = await self._eval(_ASK, keys, *arguments)
        return answers

    async def _eval(self, script: str, keys: Sequence[str], *arguments: str | int) -> Any:
        with broker_errors(_WHAT):
            try:
                async with asyncio.timeout(self._timeout_s):
                    if self._replicas and script is not _READ:
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


def _record(task_id: uuid.UUID, raw: bytes, now_us: int) -> DoneRecord:
    if raw[:2] in _ENDED:
        return DoneRecord(task_id=task_id, done=True, token=int(raw[2:]))
    state, token, till, failures, losses, _owner, failure = raw.split(b"|", 6)
    claimed = state == b"c"
    return DoneRecord(
        task_id=task_id,
        done=False,
        live=claimed and int(till) > now_us,
        token=int(token),
        failures=int(failures),
        losses=int(losses) + claimed,
        last_failure=failure.decode(errors="replace"),
    )
