"""A push that looks first: for a task that may lie in the lists already."""

from collections.abc import Sequence

from hookbench.queues.redis_client import RedisClient, put_errors

__all__ = ["LOOK_MAX", "push_if_absent"]

LOOK_MAX = 10_000
"""How far into each list is looked: Redis does nothing else meanwhile (about 0.1 ms per list)."""

# LPOS compares whole payloads. New tasks are at the head, so that is where it begins.
_PUSH_IF_ABSENT = """
for index = 1, #KEYS do
  if redis.call('LPOS', KEYS[index], ARGV[1], 'MAXLEN', ARGV[2]) then return 0 end
end
return redis.call('LPUSH', KEYS[1], ARGV[1])
"""


async def push_if_absent(
    client: RedisClient, key: str, others: Sequence[str], payload: bytes
) -> int:
    """LPUSH to ``key`` unless these bytes lie in it or in ``others``; the length, 0 if they did.

    In one step, so that two who do it at once push once. A task that a worker has finished, or that
    lies further down than ``LOOK_MAX``, is pushed again: that is for the done-store to filter.

    Raises:
        OversizeError, PublishRefusedError, PublishUnknownError: see ``put_errors``.
    """
    with put_errors(f"LPUSH {key}", payload):
        return int(
            await client.eval(
                _PUSH_IF_ABSENT, 1 + len(others), key, *others, payload, str(LOOK_MAX)
            )
        )
