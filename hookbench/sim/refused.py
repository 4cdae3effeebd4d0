"""What an event loop in virtual time does not have."""

from collections.abc import Callable
from typing import Any, NoReturn

from hookbench.sim.errors import RefusedError

__all__ = ["refuse_all"]

_NAMES = (
    "add_reader",
    "add_signal_handler",
    "add_writer",
    "connect_accepted_socket",
    "connect_read_pipe",
    "connect_write_pipe",
    "create_connection",
    "create_datagram_endpoint",
    "create_server",
    "create_unix_connection",
    "create_unix_server",
    "getaddrinfo",
    "getnameinfo",
    "run_in_executor",
    "sendfile",
    "set_default_executor",
    "sock_accept",
    "sock_connect",
    "sock_recv",
    "sock_recv_into",
    "sock_recvfrom",
    "sock_sendall",
    "sock_sendfile",
    "sock_sendto",
    "start_tls",
    "subprocess_exec",
    "subprocess_shell",
)


def refuse_all(loop_type: type) -> None:
    """Have every method that needs I/O or a thread raise ``RefusedError``, as soon as called."""
    for name in _NAMES:
        setattr(loop_type, name, _refusal(name))


def _refusal(name: str) -> Callable[..., NoReturn]:
    def refuse(*_args: Any, **_options: Any) -> NoReturn:
        raise RefusedError(
            f"{name}: there is no I/O and no thread in virtual time; give the code a simulated"
            " client, or keep this part of it out of the simulation"
        )

    refuse.__name__ = name
    refuse.__doc__ = "Refused: see ``refuse_all``."
    return refuse
