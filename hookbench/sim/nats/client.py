"""nats-py's own client over the simulated network: only its transport is another one.

So reconnecting, buffering, pings and requests are those of the library that ships. Three things in
it would make a run differ from its repetition, and are seeded here: the names of inboxes, the order
of servers, and the machine's clock, which it reads for pauses between attempts to connect.
"""

import asyncio
import random
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import ParseResult

import nats.aio.client
import nats.js.client
from nats.aio.client import Client
from nats.aio.transport import Transport
from nats.nuid import NUID

from hookbench.queues.reconnecting import ReconnectingClient
from hookbench.sim.errors import RefusedError
from hookbench.sim.loop import SimulatedLoop
from hookbench.sim.network import Network

if TYPE_CHECKING:
    from hookbench.sim.connection import Connection

__all__ = ["SimulatedTransport", "connect_simulated_nats"]


async def connect_simulated_nats(
    network: Network, client: str, servers: list[str], *, entropy: random.Random, **options: Any
) -> Client:
    """What ``connect_client`` is for a real server.

    Args:
        network: between client and servers.
        client: whose links are used.
        servers: URLs; the name of a node stands for host and port.
        entropy: for the names of inboxes.
        options: as of ``nats.connect``.
    """
    _let_time_be_virtual()
    connected = _SimulatedClient(network, client, entropy)
    if len(servers) > 1:
        servers = entropy.sample(
            servers, len(servers)
        )  # as nats-py does with an entropy of its own
    await connected.connect(servers, dont_randomize=True, **options)
    return connected


class _SimulatedClient(ReconnectingClient):
    def __init__(self, network: Network, client: str, entropy: random.Random) -> None:
        super().__init__()
        self._transport = SimulatedTransport(network, client)
        self._nuid = _SeededNames(entropy)


class _SeededNames(NUID):
    """nats-py's names of inboxes, drawn from the seed."""

    def __init__(self, entropy: random.Random) -> None:
        self._entropy = entropy
        super().__init__()
        self._prand = random.Random(entropy.getrandbits(64))
        self.reset_sequential()

    def randomize_prefix(self) -> None:
        """A new beginning."""
        self._prefix = bytearray(f"{self._entropy.getrandbits(48):012x}".encode())


class SimulatedTransport(Transport):
    """The bytes of nats-py as messages of the network, a frame each."""

    def __init__(self, network: Network, client: str) -> None:
        self._network = network
        self._client = client
        self._connection: Connection | None = None
        self._arrived: list[bytes] = []
        self._lost: OSError | None = None
        self._waiting: asyncio.Future[None] | None = None

    async def connect(
        self,
        uri: ParseResult,
        buffer_size: int,  # noqa: ARG002 - nats-py's
        connect_timeout: int,
    ) -> None:
        """Connect to the node that the URL names."""
        self.close()
        connection = await self._network.connect(
            self._client, f"{uri.hostname}:{uri.port}", timeout_s=connect_timeout
        )
        self._arrived.clear()
        self._lost = None
        self._connection = connection
        connection.on_message(self._on_message)
        connection.on_lost = self._on_lost

    async def connect_tls(self, *_args: Any, **_options: Any) -> None:
        """Refused: there is nothing to hide."""
        raise RefusedError("TLS is not simulated")

    def write(self, payload: bytes) -> None:
        """Send frames."""
        self.writelines([payload])

    def writelines(self, payload: list[bytes]) -> None:
        """Send frames, one by one."""
        if self._connection is None or not self._connection.is_open:
            raise ConnectionResetError("the connection was closed")
        for frame in payload:
            if self._connection.is_open:
                self._connection.send(bytes(frame))

    async def read(self, buffer_size: int) -> bytes:  # noqa: ARG002 - nats-py's
        """What has arrived; nothing at the end.

        Raises:
            OSError: the connection was reset.
        """
        if not self._arrived:
            await self._arrival()
        data = b"".join(self._arrived)
        self._arrived.clear()
        return data

    async def readline(self) -> bytes:
        """One frame."""
        await self._arrival()
        return self._arrived.pop(0) if self._arrived else b""

    async def drain(self) -> None:
        """Nothing is buffered here."""

    async def wait_closed(self) -> None:
        """It is closed at once."""

    def close(self) -> None:
        """Close the connection, and let a read end."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._wake()

    def at_eof(self) -> bool:
        """Whether nothing comes any more."""
        return not self._arrived and (self._connection is None or self._lost is not None)

    def __bool__(self) -> bool:
        return True

    async def _arrival(self) -> None:
        while not self._arrived:
            if self._lost is not None:
                raise self._lost
            if self._connection is None:
                return
            self._waiting = self._network.loop.create_future()
            await self._waiting

    def _on_message(self, frame: bytes) -> None:
        self._arrived.append(frame)
        self._wake()

    def _on_lost(self, error: OSError) -> None:
        self._lost = error
        self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


class _VirtualTime:
    """``time`` as nats-py sees it: of the loop that runs, where that is a simulated one."""

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def monotonic(self) -> float:
        """Seconds."""
        loop = asyncio._get_running_loop()  # noqa: SLF001 - asks without raising
        return loop.time() if isinstance(loop, SimulatedLoop) else time.monotonic()


_VIRTUAL_TIME = _VirtualTime()


def _let_time_be_virtual() -> None:
    """Put it in the place of the module that nats-py has imported; real clients see no change."""
    for module in (nats.aio.client, nats.js.client):
        module.time = _VIRTUAL_TIME  # type: ignore[attr-defined]  # it is not exported
