"""Which tasks have ended: the done-store and the dead letters, asked together."""

import uuid
from collections.abc import Collection

from hookbench.migration.done_store import DoneStore
from hookbench.queues.redis_client import RedisClient
from hookbench.queues.transport import AppTransport
from hookbench.worker.letter_ids import dead_in_nats, dead_in_redis

__all__ = ["EndedTasks"]


class EndedTasks:
    """Answers which of some tasks are done, or have a dead letter.

    Dead letters are read once, at the first question: use a new object for a new look.

    Args:
        done: the authority on what is done.
        transport: where dead letters are.
        redis: where they are as well, if it is still used.
        task_type: of the tasks.
    """

    def __init__(
        self,
        done: DoneStore,
        transport: AppTransport,
        *,
        redis: RedisClient | None = None,
        task_type: str = "sync",
    ) -> None:
        self._done = done
        self._transport = transport
        self._redis = redis
        self._task_type = task_type
        self._dead: set[uuid.UUID] | None = None

    async def __call__(self, task_ids: Collection[uuid.UUID]) -> set[uuid.UUID]:
        """Those of ``task_ids`` that have ended.

        Raises:
            BrokerUnreachableError: one of those who know does not answer.
        """
        if self._dead is None:
            self._dead = await self._letters()
        return await self._done.are_done(task_ids) | (self._dead & set(task_ids))

    async def _letters(self) -> set[uuid.UUID]:
        dead = await dead_in_nats(self._transport, self._task_type)
        if self._redis is not None:
            dead |= await dead_in_redis(self._redis, self._transport.names, self._task_type)
        return dead
