"""``hookbench proxy``: faults on the wire, for a run that starts it."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from hookbench.cli.options import announce_json, run_until_signal

__all__ = ["proxy"]

_MAX_PORT = 65535


def proxy(
    listen: Annotated[list[str], typer.Option(help="127.0.0.1:PORT for clients, 0 a free one.")],
    upstream: Annotated[list[str], typer.Option(help="127.0.0.1:PORT of the broker.")],
    protocol: Annotated[list[str], typer.Option(help="resp, nats or tcp.")],
    control: Annotated[Path, typer.Option(help="Path of the unix socket that takes the rules.")],
    name: Annotated[
        list[str] | None, typer.Option(help="Of the link, for rules [its protocol].")
    ] = None,
) -> None:
    """Forward between clients and brokers on this machine, with faults on request.

    Each --listen has one --upstream and one --protocol, in the same order. It says its ports as a
    JSON line. Example: hookbench proxy --listen 127.0.0.1:0 --upstream 127.0.0.1:6379 --protocol
    resp --control /tmp/control
    """
    from hookbench.clock import SystemClock
    from hookbench.errors import FaultError
    from hookbench.faults.wire.model import LinkSettings
    from hookbench.faults.wire.proxy import Proxy
    from hookbench.secrets import log_to_stderr

    log_to_stderr(logging.WARNING)
    names = name or protocol
    if not len(listen) == len(upstream) == len(protocol) == len(names):
        raise FaultError(
            f"{len(listen)} --listen, {len(upstream)} --upstream, {len(protocol)} --protocol and"
            f" {len(names)} --name: give each link one of each"
        )
    links = [
        LinkSettings(
            name=names[number],
            protocol=protocol[number],
            listen_port=_port(listen[number], "--listen"),
            upstream_port=_port(upstream[number], "--upstream"),
        )
        for number in range(len(listen))
    ]

    running: list[Proxy] = []

    async def serve() -> None:
        running.append(Proxy(links, control, clock=SystemClock(), announce=announce_json))
        await running[0].run()

    run_until_signal(serve, lambda: running[0].request_stop() if running else None)


def _port(address: str, option: str) -> int:
    """The port of a loopback address: nothing else is listened on, or connected to."""
    from hookbench.errors import FaultError

    host, colon, port = address.rpartition(":")
    if not colon or host not in ("127.0.0.1", "localhost"):
        raise FaultError(
            f"{option} {address!r}: use 127.0.0.1:PORT, the proxy is for loopback only"
        )
    if not port.isdigit() or int(port) > _MAX_PORT or (option == "--upstream" and int(port) == 0):
        raise FaultError(f"{option} {address!r}: {port!r} is no port")
    return int(port)
