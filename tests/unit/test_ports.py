"""Ports for what is started here."""

import socket

import pytest

from hookbench.brokers import ports
from hookbench.errors import PortTakenError, SettingError


def test_no_outgoing_connection_can_take_the_port_of_a_server_that_is_down(tmp_path, monkeypatch):
    file = tmp_path / "range"
    file.write_text("32768\t60999\n")
    monkeypatch.setattr(ports, "_OUTGOING", file)
    assert all(10_000 <= ports.free_port() < 32_768 for _ in range(200))


@pytest.mark.parametrize("text", ["1024 65535\n", "10500 65535\n", "junk", "", None])
def test_where_there_is_no_such_room_the_kernel_chooses(text, tmp_path, monkeypatch):
    file = tmp_path / "range"
    if text is not None:
        file.write_text(text)
    monkeypatch.setattr(ports, "_OUTGOING", file)
    assert list(ports._wanted()) == [0]
    ports.check_free(ports.free_port(), "--redis-port")


def test_a_port_that_somebody_has_is_passed_over(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        monkeypatch.setattr(ports, "_wanted", lambda: iter([taken, taken, 0]))
        assert ports.free_port() != taken
        monkeypatch.setattr(ports, "_wanted", lambda: iter([taken]))
        with pytest.raises(PortTakenError, match="no free port"):
            ports.free_port()
        with pytest.raises(PortTakenError, match=f"port {taken} .* leave --redis-port out"):
            ports.check_free(taken, "--redis-port")


@pytest.mark.parametrize("port", [0, -1, 65_536])
def test_what_is_no_port_is_named(port):
    with pytest.raises(SettingError, match=f"--redis-port {port}: use a port between"):
        ports.check_free(port, "--redis-port")
