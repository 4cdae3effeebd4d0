"""The monitoring of a simulated NATS server: what it says over HTTP."""

import json
from typing import Any

from hookbench.clock import NS_PER_S
from hookbench.sim.connection import Connection

__all__ = ["MONITOR_PORT", "MonitorSession", "varz_of"]

MONITOR_PORT = 8222


def varz_of(version: str, sync_interval_s: float) -> dict[str, Any]:
    """What ``/varz`` tells, as far as anybody reads it.

    Args:
        version: of the server.
        sync_interval_s: of its JetStream; 0 for ``always``.
    """
    config: dict[str, Any] = {"sync_interval": int(sync_interval_s * NS_PER_S)}
    if not sync_interval_s:
        config["sync_always"] = True
    return {"version": version, "jetstream": {"config": config}}


class MonitorSession:
    """The server's side of one request.

    Args:
        connection: to whoever asks.
        varz: what the server tells.
    """

    def __init__(self, connection: Connection, varz: dict[str, Any]) -> None:
        self._connection = connection
        self._varz = varz

    def on_message(self, data: bytes) -> None:
        """A request: it is answered, and the connection closed."""
        words = data.split(b" ", 2)
        found = words[:2] == [b"GET", b"/varz"]
        status = b"200 OK" if found else b"404 Not Found"
        body = json.dumps(self._varz).encode() if found else b""
        self._connection.answer(b"HTTP/1.0 " + status + b"\r\n\r\n" + body)
        self._connection.end_server_side(tell=True)

    def on_closed(self) -> None:
        """Whoever asked is gone."""
