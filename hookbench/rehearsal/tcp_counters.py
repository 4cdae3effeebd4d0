"""Bytes of every TCP connection of this machine, as its kernel counts them.

The brokers' own counters would not do: NATS counts payloads and headers but not its protocol,
which for small tasks is the larger part, and asking Redis for its clients holds up its one thread.
Linux tells the counters of a socket to everybody over netlink (sock_diag(7), ``struct
inet_diag_msg`` and ``struct tcp_info`` of the kernel's uapi headers), without a word to a broker.
"""

import socket
import struct
import sys

import msgspec

from hookbench.errors import HookbenchError

__all__ = ["CountersUnavailableError", "TcpCounters", "read_tcp_counters"]

_SOCK_DIAG = 4  # NETLINK_SOCK_DIAG
# The older of two requests: it takes "any family", and the kernel's walk through all hash buckets
# is most of the cost (1 ms with 262,144 of them), so one walk and not one for each family.
_GET_TCP = 18  # TCPDIAG_GETSOCK
_REQUEST_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_ERROR, _DONE = 2, 3  # NLMSG_ERROR, NLMSG_DONE
_INFO = 2  # INET_DIAG_INFO
# ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING: those that have counters.
_STATES = sum(1 << state for state in (1, 4, 5, 8, 9, 11))
_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBBB48xII")  # inet_diag_req: family, two lengths, ext; id; states, dbs
_MESSAGE = struct.Struct("=44xQ16xI")  # inet_diag_msg: cookie, inode
_MESSAGE_BYTES = 72
_ATTRIBUTE = struct.Struct("=HH")
_COUNTERS = struct.Struct("=QQ")  # tcpi_bytes_acked, tcpi_bytes_received: Linux 4.2 and newer
_COUNTERS_OFFSET = 120
_READ_BYTES = 1 << 17
_MAX_READS = 1000
_TIMEOUT_S = 1.0


class CountersUnavailableError(HookbenchError):
    """The kernel does not tell: no Linux, or one that is too old or too closed."""


class TcpCounters(msgspec.Struct, frozen=True, gc=False):
    """One socket.

    Attributes:
        cookie: the kernel's number of it, never used twice (a port is, and an inode).
        inode: its number in ``/proc/PID/fd``; 0 when its process has closed it.
        sent_bytes: what the other side acknowledged; the SYN and the FIN count as a byte each.
        received_bytes: what arrived.
    """

    cookie: int
    inode: int
    sent_bytes: int
    received_bytes: int


def read_tcp_counters() -> list[TcpCounters]:
    """Every connection that is open now, IPv4 and IPv6; one on the loopback is there twice.

    Raises:
        CountersUnavailableError: the text says why.
    """
    if not sys.platform.startswith("linux"):
        raise CountersUnavailableError(f"{sys.platform} does not tell the bytes of a socket")
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as netlink:
            netlink.settimeout(_TIMEOUT_S)
            netlink.bind((0, 0))
            return _dump(netlink)
    except OSError as error:
        raise CountersUnavailableError(f"sock_diag: {error}") from error


def _dump(netlink: socket.socket) -> list[TcpCounters]:
    body = _REQUEST.pack(socket.AF_UNSPEC, 0, 0, 1 << (_INFO - 1), _STATES, 0)
    netlink.send(_HEADER.pack(_HEADER.size + len(body), _GET_TCP, _REQUEST_DUMP, 1, 0) + body)
    found: list[TcpCounters] = []
    for _ in range(_MAX_READS):
        data = netlink.recv(_READ_BYTES)
        at = 0
        while at + _HEADER.size <= len(data):
            length, kind, _flags, _sequence, _port = _HEADER.unpack_from(data, at)
            if kind == _DONE:
                return found
            if kind == _ERROR:
                number = -struct.unpack_from("=i", data, at + _HEADER.size)[0]
                raise OSError(number, f"the kernel answers with error {number}")
            counters = _parse(data, at + _HEADER.size, at + length)
            if counters is not None:
                found.append(counters)
            at += (length + 3) & ~3
    raise OSError(f"no end after {_MAX_READS} answers")


def _parse(data: bytes, begin: int, end: int) -> TcpCounters | None:
    """One ``inet_diag_msg`` with its attributes; ``None`` without counters."""
    cookie, inode = _MESSAGE.unpack_from(data, begin)
    at = begin + _MESSAGE_BYTES
    while at + _ATTRIBUTE.size <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if kind == _INFO and length >= _ATTRIBUTE.size + _COUNTERS_OFFSET + _COUNTERS.size:
            sent, received = _COUNTERS.unpack_from(data, at + _ATTRIBUTE.size + _COUNTERS_OFFSET)
            return TcpCounters(cookie, inode, sent, received)
        at += max(_ATTRIBUTE.size, (length + 3) & ~3)
    return None
