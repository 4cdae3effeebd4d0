"""How a process reads the hook queue on Redis, by its measures."""

import asyncio
import logging

from hookbench.clock import Clock
from hookbench.ledger.events import Recorder
from hookbench.migration.measures import Measures
from hookbench.queues.base import Queue
from hookbench.queues.redis_client import RedisClient
from hookbench.queues.redis_kind import RedisKind
from hookbench.queues.redis_lease import DEFAULT_LEASE_S
from hookbench.queues.redis_leased import RedisLeasedQueue
from hookbench.queues.redis_list import RedisListQueue
from hookbench.queues.redis_stream import DEFAULT_MIN_IDLE_S, RedisStreamQueue
from hookbench.task import Names

__all__ = ["RedisReads"]

_log = logging.getLogger(__name__)


class RedisReads:
    """Opens queues, and keeps their leases until it is closed.

    Args:
        client: the commands.
        measures: which queue, and how it removes, claims and puts back.
        names: prefix of the keys.
        owner: of the work lists; a name that no other process ever has.
        lease_s: how long the process may be silent before its tasks are put back.
        kind: what holds the tasks. A stream has leases of its own, one per delivery, whatever the
            measures.
        min_idle_s: with a stream, how long a delivery may be silent.
        recorder: is told what is put back.
        clock: of the leases.
    """

    def __init__(
        self,
        client: RedisClient,
        measures: Measures,
        *,
        names: Names,
        owner: str,
        lease_s: float = DEFAULT_LEASE_S,
        kind: RedisKind = RedisKind.LIST,
        min_idle_s: float = DEFAULT_MIN_IDLE_S,
        recorder: Recorder | None = None,
        clock: Clock,
    ) -> None:
        self._client = client
        self._measures = measures
        self._names = names
        self._owner = owner
        self._lease_s = lease_s
        self._kind = kind
        self._min_idle_s = min_idle_s
        self._recorder = recorder
        self._clock = clock
        self._stopping = asyncio.Event()
        self._leased: dict[str, RedisLeasedQueue] = {}
        self._keeping: list[asyncio.Task[None]] = []

    def queue(self, task_type: str) -> Queue:
        """The queue of a task type; a leased one is opened once and kept from then on."""
        measures = self._measures
        if self._kind is RedisKind.STREAM:
            return RedisStreamQueue(
                self._client,
                names=self._names,
                task_type=task_type,
                consumer=self._owner,
                min_idle_s=self._min_idle_s,
                clock=self._clock,
            )
        if not measures.leases:
            return RedisListQueue(
                self._client,
                names=self._names,
                task_type=task_type,
                lrem_count=1 if measures.exact_removal else 0,
                requeue_only_held=measures.exact_removal,
                allow_oom=measures.oom_claims,
                clock=self._clock,
            )
        queue = self._leased.get(task_type)
        if queue is None:
            queue = RedisLeasedQueue(
                self._client,
                owner=self._owner,
                names=self._names,
                task_type=task_type,
                lease_s=self._lease_s,
                allow_oom=measures.oom_claims,
                recorder=self._recorder,
                clock=self._clock,
            )
            self._leased[task_type] = queue
            self._keeping.append(asyncio.ensure_future(queue.keep(self._stopping)))
        return queue

    async def close(self) -> None:
        """Give back what is left in the lists, and end the leases: after the last ack."""
        self._stopping.set()
        if self._keeping:
            await asyncio.wait(self._keeping)
        for keeping in self._keeping:
            if not keeping.cancelled() and (error := keeping.exception()) is not None:
                _log.error("a lease was not kept: %s", error, exc_info=error)
        for queue in self._leased.values():
            await queue.close()
            await queue.release()
