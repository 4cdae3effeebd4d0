"""nats-py's client, which goes on reconnecting also where a connection is reset at once."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nats.aio.client import Client
from nats.aio.transport import TcpTransport, Transport

from hookbench.queues.closed_transport import is_closed_transport

__all__ = ["ReconnectingClient", "connect_client"]

_WEB_SOCKET = "ws"


@contextmanager
def _closed_is_reset() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if not is_closed_transport(error):
            raise
        raise ConnectionResetError(f"the connection was closed: {error}") from error


class _TcpTransport(TcpTransport):
    """nats-py's; a write to a closed connection is an OSError, which it takes for what it is."""

    def write(self, payload: bytes) -> None:
        """As nats-py's."""
        with _closed_is_reset():
            super().write(payload)  # type: ignore[no-untyped-call]  # nats-py

    def writelines(self, payload: list[bytes]) -> None:
        """As nats-py's."""
        with _closed_is_reset():
            super().writelines(payload)  # type: ignore[no-untyped-call]  # nats-py

    def __bool__(self) -> bool:
        # nats-py puts one of its own in the place of one that is not connected yet.
        return True


class ReconnectingClient(Client):
    """nats-py's, on the transport above."""

    _transport: Transport | None

    def __init__(self) -> None:
        super().__init__()
        self._transport = _TcpTransport()  # type: ignore[no-untyped-call]  # nats-py


async def connect_client(servers: str | list[str], **options: Any) -> Client:
    """As ``nats.connect``, which makes the client itself.

    Args:
        servers: one URL or several.
        options: as of ``nats.connect``.
    """
    first = servers if isinstance(servers, str) else servers[0]
    client = Client() if first.startswith(_WEB_SOCKET) else ReconnectingClient()
    await client.connect(servers, **options)
    return client
