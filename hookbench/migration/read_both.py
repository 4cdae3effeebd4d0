"""The Redis side of ``dual_read``: what has lain in a list for too long to come by NATS alone."""

import datetime as dt
import logging
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from hookbench.clock import NS_PER_MS, NS_PER_S, Clock
from hookbench.errors import BrokerUnreachableError, DecodeError
from hookbench.ids import uuid7_wall_ms
from hookbench.queues.base import Delivery
from hookbench.task import decode_task

__all__ = ["DEFAULT_REDIS_AGE_S", "AgedQueue", "AgedTasks", "made_at_ms"]

_log = logging.getLogger(__name__)

DEFAULT_REDIS_AGE_S = 5.0
"""Longer than a task takes through NATS where it is not stuck."""
_LOOK_EVERY_S = 1.0


def made_at_ms(payload: bytes) -> int | None:
    """When a task was made, Unix milliseconds: by its id, else by its label; of junk ``None``."""
    try:
        task = decode_task(payload)
    except DecodeError:
        return None
    by_id = uuid7_wall_ms(task.id)
    if by_id is not None:
        return by_id
    return int(task.created_at.astimezone(dt.UTC).timestamp() * 1000)


@runtime_checkable
class AgedQueue(Protocol):
    """A Redis queue of which the oldest tasks can be looked at, and taken if they still are."""

    async def oldest(self, count: int) -> list[bytes]:
        """Up to ``count`` tasks that would be taken next, the first of them first; none moves."""
        ...

    async def take_oldest(self, expected: Sequence[bytes]) -> list[Delivery]:
        """Take these, in order, as far as they are still the oldest; never waits."""
        ...


class AgedTasks:
    """Takes tasks that are older than an age from the old end of a Redis list.

    A fresh task is left alone, for NATS brings its copy: both copies at once would be claimed by
    two workers. Bytes that are no task have no age and are taken, so that they become dead letters
    and keep nothing behind them waiting. The age is that of the producer's wall clock: a clock
    that is ahead makes a task wait longer, one that is behind has its copy filtered by the
    done-store.

    Args:
        clock: tells the age.
        min_age_s: tasks that are younger are not taken.
        look_every_s: wait after a look that found nothing, or got no answer.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        min_age_s: float = DEFAULT_REDIS_AGE_S,
        look_every_s: float = _LOOK_EVERY_S,
    ) -> None:
        self._clock = clock
        self._min_age_ms = int(min_age_s * 1000)
        self._look_every_ns = int(look_every_s * NS_PER_S)
        self._next_look_ns: dict[int, int] = {}

    async def take(self, queue: AgedQueue, limit: int) -> list[Delivery]:
        """Up to ``limit`` of them; none if it is too early to look again.

        A Redis that does not answer is no error here: the other broker is read all the same.
        """
        now_ns = self._clock.monotonic_ns()
        if now_ns < self._next_look_ns.get(id(queue), 0):
            return []
        taken: list[Delivery] = []
        try:
            # One first: as a rule it is fresh, and the rest need not be sent.
            if self._aged(await queue.oldest(1)):
                taken = await queue.take_oldest(self._aged(await queue.oldest(limit)))
        except BrokerUnreachableError as error:
            _log.warning("Redis is not read beside NATS for now: %s", error)
        if not taken:
            self._next_look_ns[id(queue)] = now_ns + self._look_every_ns
        return taken

    def _aged(self, payloads: list[bytes]) -> list[bytes]:
        """Those from the first on that are old enough; behind a fresh one all are younger."""
        newest_ms = self._clock.wall_ns() // NS_PER_MS - self._min_age_ms
        for index, payload in enumerate(payloads):
            made_ms = made_at_ms(payload)
            if made_ms is not None and made_ms > newest_ms:
                return payloads[:index]
        return payloads
