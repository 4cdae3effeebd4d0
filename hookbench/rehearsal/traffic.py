"""What each process received and sent over TCP, from its own point of view.

Sampled, so it has limits. A connection shorter than a sample's distance may be missed, which is so
for the flushes of git hooks (they are no process of the fleet either: their bytes are in the
broker's figure when they are seen, and in no other). Of a connection that is closed, the last
reading stands: at most one sample's distance of its traffic is missing. A broker that is paused or
dead does not matter, since no broker is asked. The figures are bytes of the streams: the brokers'
protocols are in them, headers of TCP and IP and retransmissions are not.
"""

import logging
import os
from collections.abc import Callable, Collection

from hookbench.rehearsal.tcp_counters import (
    CountersUnavailableError,
    TcpCounters,
    read_tcp_counters,
)

__all__ = ["Traffic", "socket_inodes"]

_log = logging.getLogger(__name__)

_LOOKS = 3
"""Readings in which a new connection is looked for in our processes, before it is none of ours."""


def socket_inodes(pid: int) -> set[int]:
    """The sockets that a process holds, by inode; none of a process that is gone or not ours."""
    found: set[int] = set()
    folder = f"/proc/{pid}/fd"
    try:
        names = os.listdir(folder)  # noqa: PTH208 - a path for each costs more than the call
    except OSError:
        return found  # it has ended, and so have its connections
    for name in names:
        try:
            target = os.readlink(f"{folder}/{name}")  # noqa: PTH115 - as above
        except OSError:
            continue  # closed since it was listed
        if target.startswith("socket:["):
            found.add(int(target[8:-1]))
    return found


class Traffic:
    """Attributes connections to processes, and adds up what went over them.

    A connection belongs to the process that held it when it was first seen. It is known by the
    kernel's cookie, so that neither a port nor an inode that is used again confuses two.

    Args:
        counters: reads every connection of the machine.
        inodes: the sockets of a process.
    """

    def __init__(
        self,
        counters: Callable[[], list[TcpCounters]] = read_tcp_counters,
        inodes: Callable[[int], set[int]] = socket_inodes,
    ) -> None:
        self._counters = counters
        self._inodes = inodes
        self._latest: dict[int, dict[int, TcpCounters]] = {}
        self._owners: dict[int, int] = {}
        self._looks: dict[int, int] = {}
        self._measured = True

    def read(self, pids: Collection[int]) -> None:
        """Read the connections of these processes, which run now."""
        if not self._measured:
            return
        try:
            found = {item.cookie: item for item in self._counters()}
        except CountersUnavailableError as error:
            # Half of a run's bytes would be a wrong figure: then there is none.
            self._measured = False
            _log.warning("network bytes are not measured: %s", error)
            return
        self._attribute(found, pids)
        for cookie, item in found.items():
            owner = self._owners.get(cookie)
            if owner is not None:
                self._latest.setdefault(owner, {})[cookie] = item

    def _attribute(self, found: dict[int, TcpCounters], pids: Collection[int]) -> None:
        """Find the owners of connections that are new."""
        self._looks = {cookie: self._looks[cookie] for cookie in self._looks.keys() & found.keys()}
        new = {
            item.inode: cookie
            for cookie, item in found.items()
            if cookie not in self._owners and item.inode and self._looks.get(cookie, 0) < _LOOKS
        }
        if not new:
            return
        for pid in pids:
            for inode in self._inodes(pid) & new.keys():
                self._owners[new.pop(inode)] = pid
        for cookie in new.values():
            self._looks[cookie] = self._looks.get(cookie, 0) + 1

    def of(self, pid: int) -> tuple[int, int] | None:
        """Bytes received and sent by a process since its start; ``None`` if not measured."""
        if not self._measured:
            return None
        items = self._latest.get(pid, {}).values()
        return sum(item.received_bytes for item in items), sum(item.sent_bytes for item in items)
