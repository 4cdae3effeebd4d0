"""The scripts of the Redis queues with leases, or with claims that work at maxmemory.

Every key stands in KEYS, in one slot by the tag of the prefix, but for the lists of ``DEPTH``,
whose owners only the server knows. Times are those of the server (TIME), in ms.

A lease is a member of a sorted set: the owner, with the time of its end as score. A negative score
is that of an owner whose list was reaped, at that time: it has lost its lease for good.
"""

import functools
import hashlib
from collections.abc import Sequence
from typing import Any

from redis.exceptions import NoScriptError

from hookbench.queues.redis_client import RedisClient

__all__ = [
    "ADOPT",
    "CLAIM",
    "CLAIM_PLAIN",
    "DEPTH",
    "LOST",
    "MAY_REAP",
    "NAK",
    "REAP",
    "RELEASE",
    "RETURN",
    "SETTLE",
    "TEND",
    "at_maxmemory",
    "run_often",
]

LOST = -1
"""What ``CLAIM`` and ``TEND`` answer first to an owner whose lease is gone."""

MAY_REAP = 1
"""What ``TEND`` answers first to an owner whose lease had not ended."""

# What a delivery is counted under: the task's id as the reference code writes it, which stays the
# same when a retry changes the payload; of other bytes their digest.
_NAME = """
local function id(payload)
  return string.match(payload, '^{"id": ?"([%x-]+)"')
end
local function name(payload)
  return id(payload) or redis.sha1hex(payload)
end
"""

_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

CLAIM_PLAIN = """
local found = {}
for number = 1, tonumber(ARGV[1]) do
  local payload = redis.call('LMOVE', KEYS[1], KEYS[2], 'RIGHT', 'LEFT')
  if not payload then break end
  found[number] = payload
end
return found
"""
"""KEYS pending, work; ARGV limit. The payloads that were moved."""

CLAIM = (
    _NAME
    + """
local score = tonumber(redis.call('ZSCORE', KEYS[3], ARGV[1]) or nil)
if not score or score < 0 then return {-1} end
local counted = redis.call('EXISTS', KEYS[4]) == 1
local found = {0}
local function add(payload)
  local count = counted and redis.call('HGET', KEYS[4], name(payload)) or 0
  found[#found + 1] = payload
  found[#found + 1] = 1 + tonumber(count)
end
if ARGV[3] == '1' then add(ARGV[4]) end
for number = 1, tonumber(ARGV[2]) do
  local expected = ARGV[4 + number]
  if expected and redis.call('LINDEX', KEYS[1], -1) ~= expected then break end
  local payload = redis.call('LMOVE', KEYS[1], KEYS[2], 'RIGHT', 'LEFT')
  if not payload then break end
  add(payload)
end
return found
"""
)
"""KEYS pending, own, leases, attempts; ARGV owner, limit, '1' with a payload that BLMOVE moved, or
'0' with an empty one; then, where only these may be moved, the payloads that are expected in order.

``LOST``, or 0 and then payload and attempt of each delivery.
"""

TEND = (
    _NOW
    + """
local score = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or nil)
if not score and ARGV[3] == '0' then
  redis.call('ZADD', KEYS[1], string.format('%.0f', -now), ARGV[1])
  return {-1, 0}
end
if score and score < 0 then return {-1, 0} end
redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2]), ARGV[1])
local answer = {0, redis.call('LLEN', KEYS[2])}
if score and score > now then
  answer[1] = 1
  local ended = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[4])
  for _, owner in ipairs(ended) do answer[#answer + 1] = owner end
end
return answer
"""
)
"""KEYS leases, own; ARGV owner, lease in ms, '1' for a new owner, most owners to name.

``LOST``, or ``MAY_REAP`` with the length of the own list and owners whose lease has ended. Or 0 and
the length to a worker whose own lease was new or had ended: after an outage of Redis all have, and
whoever comes first must not take what the others still work on. An owner that was forgotten is
remembered anew, as one without a lease: a BLMOVE in the same write may move a task into its list.
"""

REAP = (
    _NAME
    + _NOW
    + """
local score = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or nil)
if not score or score > now then return {0} end
if score >= 0 then redis.call('ZADD', KEYS[1], string.format('%.0f', -now), ARGV[1]) end
local answer = {0}
for _ = 1, tonumber(ARGV[2]) do
  local payload = redis.call('LMOVE', KEYS[2], KEYS[3], 'LEFT', 'RIGHT')
  if not payload then break end
  redis.call('HINCRBY', KEYS[4], name(payload), 1)
  answer[#answer + 1] = id(payload) or ''
end
answer[1] = redis.call('LLEN', KEYS[2])
if answer[1] == 0 and score < 0 and now + score > tonumber(ARGV[3]) then
  redis.call('ZREM', KEYS[1], ARGV[1])
end
return answer
"""
)
"""KEYS leases, the owner's list, pending, attempts; ARGV owner, batch, ms until it is forgotten.

How much is left, and the ids of what was put back (empty for what has none). LMOVE is LREM and push
in one: what its worker acknowledged in time is not there any more. The newest is moved first, so
that the oldest is read next. An owner is remembered for a while, since a BLMOVE that it sent in
time may still move a task into its list.
"""

ADOPT = (
    _NAME
    + _NOW
    + """
local entries = redis.call('LRANGE', KEYS[2], -tonumber(ARGV[1]), -1)
if #entries == 0 then redis.call('DEL', KEYS[1]) return {} end
local flat = redis.call('HGETALL', KEYS[1])
local since, here, answer = {}, {}, {}
for place = 1, #flat, 2 do since[flat[place]] = tonumber(flat[place + 1]) end
for _, payload in ipairs(entries) do
  local digest = redis.sha1hex(payload)
  if not since[digest] then
    if not here[digest] then redis.call('HSET', KEYS[1], digest, string.format('%.0f', now)) end
    here[digest] = true
  elseif now - since[digest] < tonumber(ARGV[2]) then
    here[digest] = true
  elseif redis.call('LREM', KEYS[2], -1, payload) == 1 then
    redis.call('RPUSH', KEYS[3], payload)
    redis.call('HINCRBY', KEYS[4], name(payload), 1)
    answer[#answer + 1] = id(payload) or ''
  end
end
for digest in pairs(since) do
  if not here[digest] then redis.call('HDEL', KEYS[1], digest) end
end
return answer
"""
)
"""KEYS since when entries were seen, the guide's work list, pending, attempts; ARGV batch, ms.

The ids of what was put back: entries that have lain in the list for so long. Nobody says who took
them and when, so each is written down when it is first seen.
"""

SETTLE = (
    _NAME
    + """
local held = redis.call('LREM', KEYS[1], 1, ARGV[1])
if held == 1 then redis.call('HDEL', KEYS[2], name(ARGV[1])) end
return held
"""
)
"""KEYS own, attempts; ARGV payload. Whether the list held it."""

NAK = (
    _NAME
    + """
local held = redis.call('LREM', KEYS[1], 1, ARGV[1])
if held == 1 then
  redis.call('HINCRBY', KEYS[3], name(ARGV[1]), 1)
  redis.call('LPUSH', KEYS[2], ARGV[1])
end
return held
"""
)
"""KEYS own, pending, attempts; ARGV payload. Whether the list held it."""

RETURN = (
    _NAME
    + """
local answer = {}
for _, payload in ipairs(ARGV) do
  if redis.call('LREM', KEYS[1], 1, payload) == 1 then
    redis.call('RPUSH', KEYS[2], payload)
    answer[#answer + 1] = id(payload) or ''
  end
end
return answer
"""
)
"""KEYS own, pending; ARGV payloads that nobody was handed, newest first. The ids of those there."""

RELEASE = (
    _NAME
    + _NOW
    + """
local answer = {0}
for _ = 1, tonumber(ARGV[2]) do
  local payload = redis.call('LMOVE', KEYS[1], KEYS[2], 'LEFT', 'RIGHT')
  if not payload then break end
  answer[#answer + 1] = id(payload) or ''
end
answer[1] = redis.call('LLEN', KEYS[1])
if answer[1] == 0 and ARGV[3] == '1' then redis.call('ZREM', KEYS[3], ARGV[1]) end
if answer[1] == 0 and ARGV[3] == '0' then
  redis.call('ZADD', KEYS[3], string.format('%.0f', -now), ARGV[1])
end
return answer
"""
)
"""KEYS own, pending, leases; ARGV owner, batch, '1' to forget the owner or '0' to leave it.

How much is left, and the ids of what was put back.
"""

DEPTH = (
    _NOW
    + """
local held = redis.call('LLEN', KEYS[2])
for _, owner in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do
  held = held + redis.call('LLEN', KEYS[2] .. ':' .. owner)
end
return {redis.call('LLEN', KEYS[1]), held, redis.call('ZCOUNT', KEYS[3], now, '+inf')}
"""
)
"""KEYS pending, the guide's work list, leases. Lengths at one moment, and how many leases last."""


@functools.cache  # of texts that this package has
def _digest_of(script: str) -> str:
    """By which a server knows a script."""
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()


async def run_often(
    client: RedisClient, script: str, keys: Sequence[str], arguments: Sequence[bytes | str | int]
) -> Any:
    """Run a script by its digest: for one that runs with nearly every task its text is a burden.

    A server that does not know it, such as one that was restarted, is sent the text.
    """
    digest = _digest_of(script)
    try:
        return await client.evalsha(digest, len(keys), *keys, *arguments)
    except NoScriptError:
        return await client.eval(script, len(keys), *keys, *arguments)


def at_maxmemory(script: str) -> str:
    """The script with the flag that lets it run where a write is refused; from Redis 7 on.

    https://redis.io/docs/latest/develop/programmability/lua-api/#script-flags. It must not need
    more memory than there is for long: those here move tasks from one list to another.
    """
    return f"#!lua flags=allow-oom\n{script}"
