"""Whether a task lies in the lists, and a push that looks first."""

from collections.abc import Sequence

from hookbench.queues.redis_client import RedisClient
from hookbench.queues.redis_errors import (
    broker_errors,
    put_errors,
)
from hookbench.queues.replica_wait import IF_REPLICATED, put_replicated

__all__ = ["LOOK_MAX", "lies_in", "push_if_absent"]

LOOK_MAX = 10_000
"""How far into each list is looked: Redis does nothing else meanwhile (about 0.1 ms per list)."""

# LPOS compares whole payloads. New tasks are at the head, so that is where it begins. Where
# replicas are waited for, what lies there already is written over by itself: WAIT waits for the
# last write of its own connection, and answers at once where that has made none.
_PUSH_IF_ABSENT = f"""
local replicas = tonumber(ARGV[3])
if replicas > 0 then
{IF_REPLICATED}
end
for index = 1, #KEYS do
  local place = redis.call('LPOS', KEYS[index], ARGV[1], 'MAXLEN', ARGV[2])
  if place then
    if replicas > 0 then redis.call('LSET', KEYS[index], place, ARGV[1]) end
    return 0
  end
end
return redis.call('LPUSH', KEYS[1], ARGV[1])
"""

_LIES_IN = """
for index = 1, #KEYS do
  if redis.call('LPOS', KEYS[index], ARGV[1]) then return 1 end
end
return 0
"""


async def lies_in(client: RedisClient, keys: Sequence[str], payload: bytes) -> bool:
    """Whether these bytes lie in one of the lists, however long they are.

    Raises:
        BrokerUnreachableError: no answer.
    """
    with broker_errors(f"LPOS {keys[0]}"):
        return bool(await client.eval(_LIES_IN, len(keys), *keys, payload))


async def push_if_absent(
    client: RedisClient, key: str, others: Sequence[str], payload: bytes, *, replicas: int = 0
) -> int:
    """LPUSH to ``key`` unless these bytes lie in it or in ``others``; the length, 0 if they did.

    With ``replicas`` so many must have it, as with ``RedisListQueue.put``.

    In one step, so that two who do it at once push once. A task that a worker has finished, or that
    lies further down than ``LOOK_MAX``, is pushed again: that is for the done-store to filter.

    Raises:
        OversizeError, PublishRefusedError, PublishUnknownError: see ``put_errors``.
    """
    arguments = [key, *others, payload, str(LOOK_MAX), str(replicas)]
    if replicas:
        pipeline = client.pipeline(transaction=False)
        pipeline.eval(_PUSH_IF_ABSENT, 1 + len(others), *arguments)
        return int(await put_replicated(pipeline, f"LPUSH {key}", payload, replicas))
    with put_errors(f"LPUSH {key}", payload):
        return int(await client.eval(_PUSH_IF_ABSENT, 1 + len(others), *arguments))
