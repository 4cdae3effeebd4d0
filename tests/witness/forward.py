"""A place between NATS and its clients: hands on every byte, and hears both sides of the talk.

Deliveries go to inboxes. A subscription to these would keep a pull request alive whose client is
gone, so the witness of deliveries listens on the connections instead. Knows nothing of hookbench.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from typing import NamedTuple, Self

__all__ = ["Forward", "Frame", "Talk", "read_frames"]

MOST_FRAMES = 10_000_000
_READ_BYTES = 1 << 18
_CONNECT_TIMEOUT_S = 5.0
_JOIN_TIMEOUT_S = 10.0
_SETTLE_TIMEOUT_S = 20.0
_WITH_PAYLOAD = (b"PUB ", b"HPUB ", b"MSG ", b"HMSG ")


class Frame(NamedTuple):
    """One message as a connection carried it: ``PUB`` and ``HPUB`` go to the server."""

    connection: int
    operation: str
    subject: str
    reply: str
    headers: bytes
    payload: bytes

    @property
    def from_client(self) -> bool:
        """Whether it goes to the server."""
        return self.operation.endswith("PUB")


def read_frames(buffer: bytearray, connection: int) -> list[Frame]:
    """Take whole messages off the front of what one side has sent; other lines are passed over."""
    frames = []
    at = 0
    while (end := buffer.find(b"\r\n", at)) >= 0:
        line = bytes(buffer[at:end])
        past = end + 2
        if line.startswith(_WITH_PAYLOAD):
            operation, subject, *rest = line.decode().split(" ")
            past += int(rest[-1]) + 2
            if len(buffer) < past:
                break
            content = bytes(buffer[end + 2 : past - 2])
            # PUB subject [reply] bytes; MSG subject sid [reply] bytes; with headers a count more.
            numbers = 2 if operation.startswith("H") else 1
            cut = int(rest[-2]) if numbers == 2 else 0
            between = rest[operation.endswith("MSG") : -numbers]
            reply = between[0] if between else ""
            frames.append(
                Frame(connection, operation, subject, reply, content[:cut], content[cut:])
            )
        at = past
    del buffer[:at]
    return frames


class Talk:
    """What was said on all connections, as far as ``wanted`` keeps it, in order of arrival."""

    def __init__(self, wanted: Callable[[Frame], bool]) -> None:
        self._wanted = wanted
        self._lock = threading.Lock()
        self._full = False
        self.frames: list[Frame] = []
        self.troubles: list[str] = []

    def hear(self, frames: list[Frame]) -> None:
        """Take what one side has said."""
        kept = [frame for frame in frames if self._wanted(frame)]
        with self._lock:
            if len(self.frames) < MOST_FRAMES:
                self.frames += kept
            elif kept and not self._full:
                self._full = True
                self.troubles.append(f"more than {MOST_FRAMES} messages of NATS")

    def doubt(self, why: str) -> None:
        """Something may have been missed."""
        with self._lock:
            self.troubles.append(why)


class Forward:
    """Listens on a port of 127.0.0.1, and connects each client with a server on another one."""

    def __init__(self, port: int, talk: Talk) -> None:
        self._server_port = port
        self._talk = talk
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._closing = False
        self._accepting = threading.Thread(target=self._accept, name="forward", daemon=True)

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._accepting.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._closing = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join(_JOIN_TIMEOUT_S)
        self._listener.close()
        for item in self._sockets:
            with contextlib.suppress(OSError):
                item.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(_JOIN_TIMEOUT_S)
        for item in self._sockets:
            item.close()

    def settle(self, timeout_s: float = _SETTLE_TIMEOUT_S) -> None:
        """Wait until the clients have hung up and all was heard; one that has not is a doubt."""
        deadline = time.monotonic() + timeout_s
        for thread in list(self._threads):
            thread.join(max(0.0, deadline - time.monotonic()))
        talking = sum(thread.is_alive() for thread in self._threads)
        if talking:
            self._talk.doubt(f"{talking} sides of connections with NATS still talk")

    def _accept(self) -> None:
        number = 0
        while True:
            try:
                client, _address = self._listener.accept()
            except OSError as error:
                if not self._closing:
                    self._talk.doubt(f"the tap on NATS takes no connection: {error}")
                return
            self._sockets.append(client)
            try:
                server = socket.create_connection(
                    ("127.0.0.1", self._server_port), _CONNECT_TIMEOUT_S
                )
            except OSError as error:
                self._talk.doubt(f"the tap on NATS gets no connection: {error}")
                client.shutdown(socket.SHUT_RDWR)
                continue
            self._sockets.append(server)
            server.settimeout(None)
            for item in (client, server):
                item.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for source, target in ((client, server), (server, client)):
                thread = threading.Thread(
                    target=self._carry, args=(source, target, number), daemon=True
                )
                self._threads.append(thread)
                thread.start()
            number += 1

    def _carry(self, source: socket.socket, target: socket.socket, number: int) -> None:
        """From one side to the other until it hangs up; it is heard before it is handed on."""
        buffer = bytearray()
        try:
            while data := source.recv(_READ_BYTES):
                buffer += data
                self._talk.hear(read_frames(buffer, number))
                target.sendall(data)
        except OSError:
            pass  # either side hung up: what was heard was sent, and may not have arrived
        except Exception as error:  # noqa: BLE001 - a thread's boundary: told by the talk
            self._talk.doubt(f"connection {number} of NATS: {type(error).__name__}: {error}")
        finally:
            with contextlib.suppress(OSError):
                target.shutdown(socket.SHUT_RDWR)
