"""One question to one NATS node, over its monitoring or as a client."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import nats.errors

from hookbench.brokers.embedded import EmbeddedBroker
from hookbench.brokers.readback import read_monitor
from hookbench.brokers.roles import Role
from hookbench.cancellation import raise_if_cancelled
from hookbench.errors import BrokerUnreachableError
from hookbench.queues.reconnecting import ReconnectingClient

__all__ = ["SingleNats", "ask_node", "ask_roles", "is_healthy", "meta_state"]

ASK_TIMEOUT_S = 1.0


async def ask_node(
    node: EmbeddedBroker, subject: str, body: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The JSON that a request to ``subject`` brings, on a connection of its own to ``node``.

    Args:
        node: whom.
        subject: what.
        body: sent with it as JSON; ``None`` for an empty request.

    Raises:
        BrokerUnreachableError: no answer within ``ASK_TIMEOUT_S``.
    """
    client = ReconnectingClient()
    try:
        async with asyncio.timeout(2 * ASK_TIMEOUT_S):
            try:
                await client.connect(
                    node.url, connect_timeout=1, allow_reconnect=False, error_cb=_ignore
                )
                data = b"" if body is None else json.dumps(body).encode()
                answer = await client.request(subject, data, timeout=ASK_TIMEOUT_S)
            finally:
                await client.close()  # also what did not get through its handshake
        raise_if_cancelled()
    except (nats.errors.Error, TimeoutError, OSError) as error:
        raise BrokerUnreachableError(
            f"{node.name} at {node.url} did not answer {subject}: {error!r}"
        ) from error
    value: dict[str, Any] = json.loads(answer.data)
    return value


async def _ignore(_error: Exception) -> None:
    """The outcome is told by the call itself."""


async def meta_state(node: EmbeddedBroker) -> dict[str, Any] | None:
    """``meta_cluster`` of ``/jsz``: the leader's name and how many nodes there are.

    Empty where the node has not found the others yet, ``None`` where it does not answer.
    """
    state = await _monitor(node, "/jsz")
    return None if state is None else state.get("meta_cluster") or {}


async def is_healthy(node: EmbeddedBroker) -> bool:
    """Whether ``/healthz`` says that the node has what the leaders of its streams have."""
    state = await _monitor(node, "/healthz")
    return state is not None and state.get("status") == "ok"


async def _monitor(node: EmbeddedBroker, path: str) -> dict[str, Any] | None:
    if not node.running or node.monitor_url is None:
        return None
    try:
        async with asyncio.timeout(ASK_TIMEOUT_S):
            return await read_monitor(node.monitor_url, path)
    except (BrokerUnreachableError, TimeoutError):
        return None


async def ask_roles(nodes: list[EmbeddedBroker]) -> dict[str, Role]:
    """Leader, follower or silent, all nodes at once."""
    states = await asyncio.gather(*map(meta_state, nodes))
    return {node.name: _role(node, state) for node, state in zip(nodes, states, strict=True)}


def _role(node: EmbeddedBroker, state: dict[str, Any] | None) -> Role:
    if state is None:
        return Role.SILENT
    return Role.LEADER if state.get("leader") == f"hookbench-{node.port}" else Role.FOLLOWER


class SingleNats:
    """One nats-server as a group of one."""

    def __init__(self, node: EmbeddedBroker) -> None:
        self.nodes = [node]
        self.description = "one node"
        self.url = node.url
        self.durability = node.durability

    async def roles(self) -> dict[str, Role]:
        """Leader of itself, or silent."""
        node = self.nodes[0]
        silent = await meta_state(node) is None
        return {node.name: Role.SILENT if silent else Role.LEADER}

    async def wait_until_ready(self) -> None:
        """It answered when it was started."""
        if not await is_healthy(self.nodes[0]):
            raise BrokerUnreachableError(f"{self.nodes[0].url} is not healthy: see its log")
