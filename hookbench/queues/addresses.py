"""URLs that name more than one node, and what a single node's URL in them is."""

from hookbench.errors import SettingError

__all__ = [
    "CLUSTER_SCHEME",
    "REPLICA_SCHEME",
    "nats_nodes",
    "parse_redis_nodes",
    "redis_nodes",
]

CLUSTER_SCHEME = "redis+cluster"
"""Some nodes of a Redis Cluster, which tell the others."""
REPLICA_SCHEME = "redis+replica"
"""A master and its replicas, in any order: who is the master is asked of them."""
_WORDS = {CLUSTER_SCHEME: "cluster", REPLICA_SCHEME: "replica"}


def parse_redis_nodes(url: str) -> list[tuple[str, int]]:
    """Host and port of each node in ``redis+cluster://host:port,host:port``, or of replicas.

    Raises:
        SettingError: it is no such URL; users, databases and options have no place in it.
    """
    scheme, _, rest = url.partition("://")
    if scheme not in _WORDS:
        shown = rest.rpartition("@")[2]  # without a password
        raise SettingError(
            f"Redis nodes {shown!r}: use {CLUSTER_SCHEME}:// or {REPLICA_SCHEME}:// and host:port"
            " of each"
        )
    nodes = []
    for address in rest.split(","):
        host, _, port = address.rpartition(":")
        if not host or "@" in host or not port.isdecimal():
            shown = address.rpartition("@")[2]
            raise SettingError(
                f"Redis {_WORDS[scheme]} address {shown!r}: use"
                f" {scheme}://127.0.0.1:7000,127.0.0.1:7001, without a user"
            )
        nodes.append((host, int(port)))
    return nodes


def redis_nodes(url: str) -> list[str]:
    """A plain URL for each node that ``url`` names; a plain URL is one node.

    Raises:
        SettingError: it names several nodes in a form that is none.
    """
    if url.partition("://")[0] not in _WORDS:
        return [url]
    return [f"redis://{host}:{port}" for host, port in parse_redis_nodes(url)]


def nats_nodes(url: str) -> list[str]:
    """The URL of each node in a list separated by commas."""
    return [part.strip() for part in url.split(",")]
