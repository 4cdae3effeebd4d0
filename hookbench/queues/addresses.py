"""URLs that name more than one node, and what a single node's URL in them is.

What a query says, see ``queues/access.py``, holds for every node.
"""

from urllib.parse import urlsplit

from hookbench.errors import SettingError
from hookbench.secrets import unreadable_url

__all__ = [
    "CLUSTER_SCHEME",
    "REPLICA_SCHEME",
    "host_and_port",
    "is_cluster",
    "is_encrypted",
    "is_replicated",
    "nats_nodes",
    "parse_redis_nodes",
    "redis_nodes",
]

CLUSTER_SCHEME = "redis+cluster"
"""Some nodes of a Redis Cluster, which tell the others."""
REPLICA_SCHEME = "redis+replica"
"""A master and its replicas, in any order: who is the master is asked of them."""
_ENCRYPTED = {CLUSTER_SCHEME: "rediss+cluster", REPLICA_SCHEME: "rediss+replica"}
"""Likewise over TLS."""
_WORDS = {
    CLUSTER_SCHEME: "cluster",
    REPLICA_SCHEME: "replica",
    _ENCRYPTED[CLUSTER_SCHEME]: "cluster",
    _ENCRYPTED[REPLICA_SCHEME]: "replica",
}
_OVER_TLS = frozenset(("rediss", "tls", "wss", *_ENCRYPTED.values()))


def _scheme(url: str) -> str:
    return url.partition("://")[0]


def is_cluster(url: str) -> bool:
    """Whether a URL names nodes of a Redis Cluster."""
    return _WORDS.get(_scheme(url)) == "cluster"


def is_replicated(url: str) -> bool:
    """Whether a URL names a Redis master and its replicas."""
    return _WORDS.get(_scheme(url)) == "replica"


def is_encrypted(url: str) -> bool:
    """Whether a URL asks for TLS."""
    return _scheme(url).lower() in _OVER_TLS


def host_and_port(url: str, broker: str, scheme: str, default_port: int) -> tuple[str, int] | None:
    """Of a URL of that scheme; ``None`` for one of another, or without a host.

    Raises:
        SettingError: it cannot be read; the text names ``broker`` and shows no password.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or default_port
    except ValueError as error:
        raise SettingError(unreadable_url(broker, url)) from error
    return (host, port) if parts.scheme == scheme and host else None


def parse_redis_nodes(url: str) -> list[tuple[str, int]]:
    """Host and port of each node in ``redis+cluster://host:port,host:port``, or of replicas.

    With ``rediss`` they are spoken to over TLS.

    Raises:
        SettingError: it is no such URL; users, databases and options have no place in it.
    """
    scheme, _, rest = url.partition("?")[0].partition("://")
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
    if _scheme(url) not in _WORDS:
        return [url]
    scheme = "rediss" if is_encrypted(url) else "redis"
    _, mark, query = url.partition("?")
    return [f"{scheme}://{host}:{port}{mark}{query}" for host, port in parse_redis_nodes(url)]


def nats_nodes(url: str) -> list[str]:
    """The URL of each node in a list separated by commas.

    Raises:
        SettingError: two nodes have different queries.
    """
    parts = [part.strip().partition("?") for part in url.split(",")]
    queries = {query for _node, _mark, query in parts if query}
    if len(queries) > 1:
        raise SettingError("NATS nodes with different options: give them once, behind the last one")
    query = "".join(f"?{item}" for item in queries)
    return [f"{node}{query}" for node, _mark, _query in parts]
