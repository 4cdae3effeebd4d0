"""Which tasks have ended: the done-store and the dead letters, asked together."""

import uuid
from collections.abc import Collection

from hookbench.clock import NS_PER_S, Clock
from hookbench.migration.done_store import DoneStore
from hookbench.queues.redis_client import RedisClient
from hookbench.queues.transport import AppTransport
from hookbench.worker.letter_ids import dead_in_nats, dead_in_redis

__all__ = ["EndedTasks"]

_FRESH_S = 5.0
"""How long letters that were read are good for: one look at a stream asks many times."""


class EndedTasks:
    """Answers which of some tasks are done, or have a dead letter.

    Dead letters are read at the first question, and again by a question long after that.

    Args:
        done: the authority on what is done.
        transport: where dead letters are.
        clock: for how long ago they were read.
        redis: where they are as well, if it is still used.
        task_type: of the tasks.
    """

    def __init__(
        self,
        done: DoneStore,
        transport: AppTransport,
        *,
        clock: Clock,
        redis: RedisClient | None = None,
        task_type: str = "sync",
    ) -> None:
        self._done = done
        self._transport = transport
        self._redis = redis
        self._task_type = task_type
        self._clock = clock
        self._dead: set[uuid.UUID] = set()
        self._read_again_ns = 0

    async def __call__(self, task_ids: Collection[uuid.UUID]) -> set[uuid.UUID]:
        """Those of ``task_ids`` that have ended.

        Raises:
            BrokerUnreachableError: one of those who know does not answer.
        """
        if self._clock.monotonic_ns() >= self._read_again_ns:
            self._dead = await self._letters()
            self._read_again_ns = self._clock.monotonic_ns() + int(_FRESH_S * NS_PER_S)
        return await self._done.are_done(task_ids) | (self._dead & set(task_ids))

    async def _letters(self) -> set[uuid.UUID]:
        dead = await dead_in_nats(self._transport, self._task_type)
        if self._redis is not None:
            dead |= await dead_in_redis(self._redis, self._transport.names, self._task_type)
        return dead
