"""A push to Redis that is a success once its replicas have it (hazard R7)."""

from hookbench.errors import PublishUnknownError
from hookbench.queues.redis_client import RedisPipeline, put_errors

__all__ = ["REPLICA_TIMEOUT_S", "put_replicated"]

REPLICA_TIMEOUT_S = 1.0
_MS_PER_S = 1000


async def put_replicated(pipeline: RedisPipeline, key: str, payload: bytes, replicas: int) -> int:
    """Send the one write of ``pipeline`` with a WAIT behind it; what the write answered.

    Both go over one connection: on another one WAIT knows of no write to wait for, and answers at
    once.

    Raises:
        OversizeError, PublishRefusedError, PublishUnknownError: see ``put_errors``.
        PublishUnknownError: too few replicas had it in time; the master has it.
    """
    pipeline.wait(replicas, round(REPLICA_TIMEOUT_S * _MS_PER_S))
    with put_errors(f"LPUSH {key}", payload):
        length, had_it = await pipeline.execute(raise_on_error=False)
        if isinstance(length, Exception):
            raise length
    if isinstance(had_it, Exception) or had_it < replicas:
        raise PublishUnknownError(
            f"{key}: {had_it} of {replicas} replicas had the task within {REPLICA_TIMEOUT_S:g} s;"
            " a failover may lose it"
        )
    return int(length)
