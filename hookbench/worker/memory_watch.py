"""Tells, while a worker runs, that its Redis began to evict or is about to be full (hazard R6)."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from hookbench.brokers.redis_memory import RedisMemory
from hookbench.clock import Clock
from hookbench.errors import BrokerUnreachableError

__all__ = ["watch_memory"]

_log = logging.getLogger(__name__)

EVERY_S = 2.0

ReadMemory = Callable[[], Awaitable[Sequence[RedisMemory]]]


async def watch_memory(
    read: ReadMemory, announce: Callable[[dict[str, Any]], None], clock: Clock
) -> None:
    """Ask until cancelled; each new warning is logged and announced once, until it is over.

    A worker goes on: what is in the queue is best taken out of it.
    """
    before: set[str] = set()
    while True:
        try:
            nodes = await read()
        except BrokerUnreachableError:
            nodes = []  # an outage is told by those who read
        told = {}
        for node in nodes:
            if node.warning:
                told[f"{node.url} {'evicts' if node.problem else 'full'}"] = node.warning
        for kind, warning in told.items():
            if kind not in before:
                _log.warning("%s", warning)
                announce({"event": "alarm", "alarm": warning})
        before = set(told)
        await clock.sleep(EVERY_S)
