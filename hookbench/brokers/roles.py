"""What the nodes of one broker are to each other, and waiting for what they say of themselves."""

import enum
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from typing import Protocol

from hookbench.brokers.durability import Durability
from hookbench.brokers.embedded import EmbeddedBroker
from hookbench.clock import NS_PER_S, Clock, SystemClock
from hookbench.errors import BrokerUnreachableError

__all__ = ["Group", "Role", "stop_all", "wait_until"]

READY_TIMEOUT_S = 30.0
_POLL_S = 0.05


class Role(enum.StrEnum):
    """What a node says that it is; ``silent`` is one that does not answer."""

    MASTER = "master"
    REPLICA = "replica"
    LEADER = "leader"
    FOLLOWER = "follower"
    SILENT = "silent"


class Group(Protocol):
    """The nodes of one broker: a single server, a master with its replica, or a cluster."""

    @property
    def nodes(self) -> list[EmbeddedBroker]:
        """Every node, also one that was killed; in the order of their numbers."""
        ...

    @property
    def description(self) -> str:
        """How many there are, and what: ``one node``, ``master and replica``."""
        ...

    @property
    def url(self) -> str:
        """What a client is given."""
        ...

    @property
    def durability(self) -> Durability:
        """The class that the nodes have together."""
        ...

    async def roles(self) -> dict[str, Role]:
        """Each node's name and what it says that it is."""
        ...

    async def wait_until_ready(self) -> None:
        """Wait until every node serves, and none lags behind.

        Raises:
            BrokerUnreachableError: not within ``READY_TIMEOUT_S``; the text says who lacks what.
        """
        ...


def stop_all(nodes: Sequence[EmbeddedBroker]) -> None:
    """Stop every node, the last first, also if stopping one of them fails."""
    with ExitStack() as stack:
        for node in nodes:
            stack.callback(node.stop)


async def wait_until(
    missing: Callable[[], Awaitable[str | None]],
    what: str,
    *,
    timeout_s: float = READY_TIMEOUT_S,
    clock: Clock | None = None,
) -> None:
    """Ask again and again until nothing is missing.

    Args:
        missing: what is still missing, ``None`` if nothing is; a node that does not answer it is
            what is missing.
        what: for the error's text: ``redis cluster``.
        timeout_s: how long.
        clock: for the deadline and the pauses.

    Raises:
        BrokerUnreachableError: something is still missing after ``timeout_s``.
    """
    clock = clock or SystemClock()
    deadline_ns = clock.monotonic_ns() + int(timeout_s * NS_PER_S)
    while True:
        try:
            lack = await missing()
        except BrokerUnreachableError as error:
            lack = str(error)
        if lack is None:
            return
        if clock.monotonic_ns() > deadline_ns:
            raise BrokerUnreachableError(
                f"{what}: not within {timeout_s} s: {lack}; see the logs of its nodes"
            )
        await clock.sleep(_POLL_S)
