"""A push to Redis that is a success once its replicas have it (hazard R7).

A master that has too few replicas, as one that was promoted when the old one died, takes nothing:
each put of it would be unknown for as long as that lasts, and written once more by who repeats it.
So the write is a script that looks first, and what is refused is told with its reason.
"""

from typing import Any

from hookbench.errors import BrokerUnreachableError, PublishUnknownError
from hookbench.queues.addresses import is_replicated
from hookbench.queues.redis_client import RedisPipeline
from hookbench.queues.redis_errors import (
    broker_errors,
    put_errors,
)

__all__ = [
    "IF_REPLICATED",
    "PUSH",
    "REPLICA_TIMEOUT_S",
    "put_replicated",
    "replicas_of",
    "write_replicated",
]

REPLICA_TIMEOUT_S = 1.0
_MS_PER_S = 1000

# What a script that writes for ``put_replicated`` begins with; ``replicas`` is a number before it.
# A replica that is connected and silent counts here: whether it has the task is for WAIT to say.
IF_REPLICATED = """
local online = 0
for _ in string.gmatch(redis.call('INFO', 'replication'), 'state=online') do online = online + 1 end
if online < replicas then
  return redis.error_reply('NOREPLICAS ' .. online .. ' of ' .. replicas .. ' replicas are'
    .. ' connected to the master, nothing is written: let one follow it, or give the'
    .. ' URL of the master alone')
end
"""

PUSH = f"""
local replicas = tonumber(ARGV[2])
{IF_REPLICATED}
return redis.call('LPUSH', KEYS[1], ARGV[1])
"""


async def put_replicated(pipeline: RedisPipeline, what: str, payload: bytes, replicas: int) -> Any:
    """Send the one write of ``pipeline`` with a WAIT behind it; what the write answered.

    Both go over one connection: on another one WAIT knows of no write to wait for, and answers at
    once.

    Raises:
        OversizeError, PublishRefusedError, PublishUnknownError: see ``put_errors``.
        PublishRefusedError: too few replicas are connected (``IF_REPLICATED``).
        PublishUnknownError: too few replicas had it in time; the master has it.
    """
    with put_errors(what, payload):
        answer, problem = await _execute(pipeline, replicas)
    if problem:
        raise PublishUnknownError(f"{what}: {problem}")
    return answer


async def write_replicated(pipeline: RedisPipeline, replicas: int, what: str) -> Any:
    """Send the one write of ``pipeline``, and wait for the replicas as above; what it answered.

    For what may be written again, as a record of the done-store: a master without a replica has
    it, and it is not known to last. It must write something each time, for WAIT waits for the last
    write of its own connection.

    Raises:
        BrokerUnreachableError: no answer, or too few replicas had it in time.
    """
    with broker_errors(what):
        answer, problem = await _execute(pipeline, replicas)
    if problem:
        raise BrokerUnreachableError(f"{what}: {problem}")
    return answer


async def _execute(pipeline: RedisPipeline, replicas: int) -> tuple[Any, str]:
    """What the write answered, and why it may not last; empty where the replicas have it."""
    pipeline.wait(replicas, round(REPLICA_TIMEOUT_S * _MS_PER_S))
    answer, had_it = await pipeline.execute(raise_on_error=False)
    if isinstance(answer, Exception):
        raise answer
    if not isinstance(had_it, Exception) and had_it >= replicas:
        return answer, ""
    return answer, (
        f"{had_it} of {replicas} replicas had it within {REPLICA_TIMEOUT_S:g} s; a failover may"
        " lose it"
    )


def replicas_of(redis_url: str | None) -> int:
    """How many replicas a write can wait for: one where the URL names a master's replicas.

    What a URL does not name is not looked for: a replica that is down when a process starts would
    then be waited for by no one.
    """
    return int(is_replicated(redis_url)) if redis_url else 0
