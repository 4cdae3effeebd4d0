"""Loopback ports for what this process starts."""

import random
import socket
from collections.abc import Iterator
from pathlib import Path

from hookbench.errors import PortTakenError, SettingError

__all__ = ["LOOPBACK", "check_free", "free_port"]

LOOPBACK = "127.0.0.1"
_MAX_PORT = 65535
_LOWEST = 10_000
_OUTGOING = Path("/proc/sys/net/ipv4/ip_local_port_range")
_ROOM = 1_000
_TRIES = 100


def free_port() -> int:
    """A loopback port that is free now.

    On Linux it is none of those that the kernel gives to outgoing connections. While a server is
    down, one of these could take its port; a client that connects again and again would even reach
    itself (a TCP simultaneous open), and the server could not start any more.
    """
    for wanted in _wanted():
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            try:
                probe.bind((LOOPBACK, wanted))
            except OSError:
                continue
            port: int = probe.getsockname()[1]
            return port
    raise PortTakenError(f"no free port on {LOOPBACK}: stop what listens there")


def _wanted() -> Iterator[int]:
    """Ports to try, and 0 (one that the kernel chooses) as the last."""
    try:
        below = int(_OUTGOING.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        below = 0
    if below >= _LOWEST + _ROOM:
        # Not of the run's entropy: two processes with one seed must not want the same ports.
        chance = random.SystemRandom()
        for _ in range(_TRIES):
            yield chance.randrange(_LOWEST, below)
    yield 0


def check_free(port: int, option: str) -> None:
    """Refuse a port that an option asks for and that cannot be had.

    Raises:
        SettingError: it is no port.
        PortTakenError: somebody listens there.
    """
    if not 1 <= port <= _MAX_PORT:
        raise SettingError(f"{option} {port}: use a port between 1 and {_MAX_PORT}")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            raise PortTakenError(
                f"port {port} on {LOOPBACK} is taken ({error.strerror}): stop what listens there,"
                f" choose another port, or leave {option} out for a free one"
            ) from error
