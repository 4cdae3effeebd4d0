"""One command to one Redis node, and what it answers of itself."""

import asyncio
from typing import Any, Protocol

import redis.asyncio as redis_asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, RedisError

from hookbench.brokers.embedded import EmbeddedBroker
from hookbench.brokers.roles import Role
from hookbench.errors import BrokerUnreachableError
from hookbench.queues.redis_client import closed_is_never_sent
from hookbench.secrets import redact

__all__ = [
    "Addressed",
    "SingleRedis",
    "ask_node",
    "ask_role",
    "ask_roles",
    "ask_when_loaded",
    "role_of",
]

ASK_TIMEOUT_S = 1.0
LOADING_TIMEOUT_S = 10.0
_LOADING_PAUSE_S = 0.05


class Addressed(Protocol):
    """A node that can be asked, whoever started it."""

    @property
    def name(self) -> str:
        """What it is called in errors."""
        ...

    @property
    def url(self) -> str:
        """Where it answers."""
        ...


async def ask_node(node: Addressed, *words: str | int) -> Any:
    """The answer to one command, on a connection of its own; texts are ``bytes``.

    Raises:
        BrokerUnreachableError: no answer within ``ASK_TIMEOUT_S``, or an error.
    """
    client: Any = redis_asyncio.Redis.from_url(  # its execute_command is untyped
        node.url,
        protocol=2,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=ASK_TIMEOUT_S,
        socket_connect_timeout=ASK_TIMEOUT_S,
    )
    closed_is_never_sent(client.connection_pool)
    try:
        return await client.execute_command(*words)
    except (RedisError, OSError) as error:
        where = f"{node.name} at {redact(node.url)}"
        raise BrokerUnreachableError(
            f"{where} did not take {words[0]}: {type(error).__name__} {error}"
        ) from error
    finally:
        await client.aclose()


async def ask_when_loaded(node: Addressed, *words: str | int) -> Any:
    """The same of a node that has just started, and may still read its data.

    Raises:
        BrokerUnreachableError: likewise; or it reads for longer than ``LOADING_TIMEOUT_S``.
    """
    for _ in range(int(LOADING_TIMEOUT_S / _LOADING_PAUSE_S)):
        try:
            return await ask_node(node, *words)
        except BrokerUnreachableError as error:
            if not isinstance(error.__cause__, BusyLoadingError):
                raise
        await asyncio.sleep(_LOADING_PAUSE_S)
    return await ask_node(node, *words)


async def ask_role(node: EmbeddedBroker) -> list[Any]:
    """The answer to ROLE (https://redis.io/docs/latest/commands/role/), none of a silent node."""
    if not node.running:
        return []
    try:
        answer: list[Any] = await ask_node(node, "ROLE")
    except BrokerUnreachableError:
        return []
    return answer


def role_of(answer: list[Any]) -> Role:
    """The role that a ROLE answer tells."""
    if not answer:
        return Role.SILENT
    return Role.MASTER if answer[0] == b"master" else Role.REPLICA


async def ask_roles(nodes: list[EmbeddedBroker]) -> dict[str, Role]:
    """All nodes at once, so that silent ones are waited for once."""
    answers = await asyncio.gather(*map(ask_role, nodes))
    return {node.name: role_of(answer) for node, answer in zip(nodes, answers, strict=True)}


class SingleRedis:
    """One redis-server as a group of one."""

    def __init__(self, node: EmbeddedBroker) -> None:
        self.nodes = [node]
        self.description = "one node"
        self.url = node.url
        self.durability = node.durability

    async def roles(self) -> dict[str, Role]:
        """Master, or silent."""
        return await ask_roles(self.nodes)

    async def wait_until_ready(self) -> None:
        """It answered when it was started."""
        await ask_node(self.nodes[0], "PING")
