import os
import socket
import sys

import pytest

from hookbench.rehearsal.resources import ResourceMeter
from hookbench.rehearsal.tcp_counters import (
    CountersUnavailableError,
    TcpCounters,
    read_tcp_counters,
)
from hookbench.rehearsal.traffic import Traffic, socket_inodes

on_linux = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only Linux tells the bytes of a socket"
)


class Machine:
    """Connections and processes as a test sets them; an exception in place of connections too."""

    def __init__(self):
        self.connections = []
        self.held = {}
        self.looked_at = 0
        self.traffic = Traffic(self.counters, self.inodes)

    def counters(self):
        if isinstance(self.connections, Exception):
            raise self.connections
        return [TcpCounters(*item) for item in self.connections]

    def inodes(self, pid):
        self.looked_at += 1
        return self.held.get(pid, set())

    def read(self, *pids):
        self.traffic.read(pids)


def test_each_connection_counts_for_the_process_that_holds_it():
    machine = Machine()
    machine.held = {1: {11, 12}, 2: {21}}
    machine.connections = [(101, 11, 5, 50), (102, 12, 7, 70), (201, 21, 9, 90), (301, 31, 4, 40)]
    machine.read(1, 2)
    assert machine.traffic.of(1) == (120, 12)
    assert machine.traffic.of(2) == (90, 9)
    assert machine.traffic.of(3) == (0, 0)


def test_a_closed_connection_keeps_its_last_reading():
    machine = Machine()
    machine.held = {1: {11, 12}}
    machine.connections = [(101, 11, 5, 50), (102, 12, 1, 1)]
    machine.read(1)
    machine.connections = [(101, 0, 6, 60)]  # closed, and the kernel still sends the rest
    machine.held = {}
    machine.read(1)
    assert machine.traffic.of(1) == (61, 7)
    machine.connections = []
    machine.read()
    assert machine.traffic.of(1) == (61, 7)


def test_a_number_that_is_used_again_is_another_connection():
    machine = Machine()
    machine.held = {1: {11}}
    machine.connections = [(101, 11, 5, 50)]
    machine.read(1)
    machine.held = {2: {11}}  # the first process is gone, the inode came up again
    machine.connections = [(102, 11, 3, 30)]
    machine.read(2)
    assert machine.traffic.of(1) == (50, 5)
    assert machine.traffic.of(2) == (30, 3)


def test_a_connection_stays_with_the_process_that_opened_it():
    machine = Machine()
    machine.held = {1: {11}}
    machine.connections = [(101, 11, 5, 50)]
    machine.read(1)
    machine.held = {2: {11}}  # a child inherited it
    machine.connections = [(101, 11, 8, 80)]
    machine.read(1, 2)
    assert machine.traffic.of(1) == (80, 8)
    assert machine.traffic.of(2) == (0, 0)


def test_a_process_that_is_not_known_yet_gets_its_connection_later():
    machine = Machine()
    machine.held = {1: {11}}
    machine.connections = [(101, 11, 5, 50)]
    machine.read()
    machine.connections = [(101, 11, 6, 60)]
    machine.read(1)
    assert machine.traffic.of(1) == (60, 6)


def test_other_peoples_connections_are_not_looked_for_for_ever():
    machine = Machine()
    machine.connections = [(101, 11, 5, 50)]
    for _ in range(10):
        machine.read(1)
    assert machine.looked_at == 3


def test_half_of_a_runs_bytes_are_no_figure():
    machine = Machine()
    machine.held = {1: {11}}
    machine.connections = [(101, 11, 5, 50)]
    machine.read(1)
    machine.connections = CountersUnavailableError("no more")
    machine.read(1)
    assert machine.traffic.of(1) is None
    machine.connections = [(101, 11, 9, 90)]
    machine.read(1)
    assert machine.traffic.of(1) is None


def test_what_was_not_measured_is_none_in_the_resources(clock):
    machine = Machine()
    meter = ResourceMeter(lambda: [("me", os.getpid())], clock, traffic=machine.traffic)
    machine.held = {os.getpid(): {11}}
    machine.connections = [(101, 11, 5, 50)]
    meter.read()
    (use,) = meter.uses()
    assert (use.received_bytes, use.sent_bytes) == (50, 5)
    machine.connections = CountersUnavailableError("no more")
    meter.read()
    (use,) = meter.uses()
    assert (use.received_bytes, use.sent_bytes) == (None, None)
    assert use.rss_max_bytes > 0


@on_linux
@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
def test_the_kernel_counts_what_went_over_a_connection(family, host):
    with socket.create_server((host, 0), family=family) as server:
        client = socket.create_connection(server.getsockname()[:2])
        accepted, _ = server.accept()
        with client, accepted:
            client.sendall(b"x" * 1000)
            assert len(accepted.recv(1000, socket.MSG_WAITALL)) == 1000
            accepted.sendall(b"y" * 77)
            assert len(client.recv(77, socket.MSG_WAITALL)) == 77
            mine = {os.fstat(end.fileno()).st_ino for end in (client, accepted)}
            assert mine <= socket_inodes(os.getpid())
            found = [item for item in read_tcp_counters() if item.inode in mine]
    assert len({item.cookie for item in found}) == 2
    sent = sorted(item.sent_bytes for item in found)
    assert sorted(item.received_bytes for item in found) == [77, 1000]
    assert 77 <= sent[0] <= 79  # the SYN and the FIN count as a byte each
    assert 1000 <= sent[1] <= 1002


@on_linux
def test_a_process_that_is_gone_holds_nothing():
    assert socket_inodes(2**22 + 1) == set()


def test_another_system_is_named(monkeypatch):
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(CountersUnavailableError, match="darwin"):
        read_tcp_counters()


@on_linux
def test_a_kernel_that_refuses_is_named(monkeypatch):
    monkeypatch.setattr("hookbench.rehearsal.tcp_counters._GET_TCP", 9999)
    with pytest.raises(CountersUnavailableError, match="sock_diag"):
        read_tcp_counters()
