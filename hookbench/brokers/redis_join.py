"""Redis nodes that become one cluster of masters, whoever started them."""

import asyncio
import socket
from collections.abc import Sequence

import msgspec

from hookbench.brokers.redis_nodes import Addressed, ask_when_loaded
from hookbench.brokers.roles import READY_TIMEOUT_S, wait_until
from hookbench.errors import BrokerUnreachableError, SettingError
from hookbench.queues.addresses import host_and_port
from hookbench.secrets import redact

__all__ = ["SLOTS", "RemoteNode", "assign_slots", "join_nodes", "node_at", "slots_missing"]

SLOTS = 16384
_FEWEST = 3
_DEFAULT_PORT = 6379


class RemoteNode(msgspec.Struct, frozen=True, kw_only=True):
    """A Redis that somebody else started."""

    name: str
    url: str
    host: str
    port: int


def node_at(url: str) -> RemoteNode:
    """The node of a plain URL.

    Raises:
        SettingError: it is none.
    """
    found = host_and_port(url, "Redis", "redis", _DEFAULT_PORT)
    if found is None:
        raise SettingError(f"Redis node {redact(url)!r}: use redis://host:port of each node")
    host, port = found
    return RemoteNode(name=f"{host}:{port}", url=url, host=host, port=port)


async def assign_slots(nodes: Sequence[Addressed], *, among: Sequence[Addressed]) -> None:
    """Give those that are new ``among`` nodes their shares of the slots, and epochs of their own.

    Nodes that meet with the same epoch argue about it first.
    """
    bounds = [SLOTS * index // len(among) for index in range(len(among) + 1)]
    for index, node in enumerate(among):
        if node in nodes:
            await ask_when_loaded(
                node, "CLUSTER", "ADDSLOTSRANGE", bounds[index], bounds[index + 1] - 1
            )
            await ask_when_loaded(node, "CLUSTER", "SET-CONFIG-EPOCH", index + 1)


def slots_missing(name: str, info: dict[str, str], nodes: int) -> str | None:
    """What a node's CLUSTER INFO lacks to be one of ``nodes`` that serve all slots."""
    if not info:
        return f"{name} is silent"
    wanted = {
        "cluster_state": "ok",
        "cluster_slots_assigned": str(SLOTS),
        "cluster_slots_ok": str(SLOTS),
        "cluster_known_nodes": str(nodes),
    }
    for field, value in wanted.items():
        if info.get(field) != value:
            return f"{name} says {field} {info.get(field)}, wanted {value}"
    return None


async def join_nodes(urls: Sequence[str], *, timeout_s: float = READY_TIMEOUT_S) -> bool:
    """Make one cluster of nodes, or let those of one meet again; whether slots were assigned.

    Nodes keep their slots when they are started again, and may have new addresses then: who is
    told of them meets the others once more.

    Args:
        urls: a plain URL of each, three or more.
        timeout_s: for all of it to be one cluster.

    Raises:
        SettingError: fewer than three, or a URL that is none.
        BrokerUnreachableError: a node does not answer, is in no cluster mode, holds other slots,
            or they did not find together.
    """
    nodes = [node_at(url) for url in urls]
    if len(nodes) < _FEWEST:
        raise SettingError(f"{len(nodes)} nodes: a cluster needs {_FEWEST} or more")
    new = [node for node in nodes if not int((await _info(node))["cluster_slots_assigned"])]
    await assign_slots(new, among=nodes)
    for node in nodes[1:]:
        address = await _address(node)
        await ask_when_loaded(nodes[0], "CLUSTER", "MEET", address, node.port)

    async def missing() -> str | None:
        for node in nodes:
            if (lack := slots_missing(node.name, await _info(node), len(nodes))) is not None:
                return lack
        return None

    await wait_until(missing, "redis cluster", timeout_s=timeout_s)
    return bool(new)


async def _info(node: Addressed) -> dict[str, str]:
    answer: bytes = await ask_when_loaded(node, "CLUSTER", "INFO")
    pairs = (line.partition(":") for line in answer.decode().splitlines())
    return {name: value for name, _colon, value in pairs}


async def _address(node: RemoteNode) -> str:
    """The address of its name: CLUSTER MEET takes no names."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(node.host, node.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise BrokerUnreachableError(f"{node.name}: its name is not known: {error}") from error
    return str(found[0][4][0])
