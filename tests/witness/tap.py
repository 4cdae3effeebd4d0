"""One connection, read on a thread of its own, so that the witness never falls behind."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from typing import Self

__all__ = ["Tap"]

CONNECT_TIMEOUT_S = 5.0
_READ_BYTES = 1 << 20
# A server that has to keep more for a slow reader cuts it off; this is the reader's own bound.
MAX_HEARD_BYTES = 1 << 30
_POLL_S = 0.01


class Tap:
    """Hands on each chunk as it arrives, and says when the connection was cut.

    Args:
        port: of a server on 127.0.0.1.
        hear: takes each chunk, on the thread; what it returns is sent back.
    """

    def __init__(self, port: int, hear: Callable[[bytes], bytes]) -> None:
        self._hear = hear
        self._connection = socket.create_connection(("127.0.0.1", port), CONNECT_TIMEOUT_S)
        self._connection.settimeout(None)
        self._closing = False
        self._thread = threading.Thread(target=self._read, name=f"tap-{port}", daemon=True)
        self.heard_bytes = 0
        self.cut: str | None = None
        """Why nothing more can be heard, ``None`` while all is well."""

    def send(self, data: bytes) -> None:
        """Send bytes to the server."""
        self._connection.sendall(data)

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def _read(self) -> None:
        try:
            while self.heard_bytes < MAX_HEARD_BYTES:
                data = self._connection.recv(_READ_BYTES)
                if not data:
                    raise ConnectionError("closed by the server")
                self.heard_bytes += len(data)
                if answer := self._hear(data):
                    self._connection.sendall(answer)
            raise ConnectionError(f"more than {MAX_HEARD_BYTES} bytes")
        except Exception as error:  # noqa: BLE001 - a thread's boundary: told by ``cut``
            if not self._closing:
                self.cut = f"{type(error).__name__}: {error}"

    def wait_for(self, condition: Callable[[], bool], what: str, timeout_s: float = 10.0) -> None:
        """Wait until a condition holds.

        Raises:
            ConnectionError: the connection was cut, or the time is up.
        """
        deadline = time.monotonic() + timeout_s
        while not condition():
            if self.cut is not None:
                raise ConnectionError(f"{what}: {self.cut}")
            if time.monotonic() > deadline:
                raise ConnectionError(f"{what}: not within {timeout_s} s")
            time.sleep(_POLL_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._closing = True
        with contextlib.suppress(OSError):  # it was cut already
            self._connection.shutdown(socket.SHUT_RDWR)
        if self._thread.is_alive():
            self._thread.join()
        self._connection.close()
