"""An endpoint for Prometheus in threads of its own, and where it listens."""

import errno
import socket
import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any, NamedTuple
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from hookbench.errors import PortTakenError, SettingError

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

__all__ = ["LOOPBACK", "Endpoint", "MetricsServer", "parse_endpoint"]

LOOPBACK = "127.0.0.1"
PATH = "/metrics"
_REQUEST_TIMEOUT_S = 5.0
_MAX_PORT = 65_535


class Endpoint(NamedTuple):
    """Where metrics are served; port 0 for any that is free."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """As a scrape has it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}{PATH}"


def parse_endpoint(text: str) -> Endpoint:
    """``HOST:PORT``, ``[IPV6]:PORT`` or ``PORT``, which is one of 127.0.0.1.

    Raises:
        SettingError: it is none of these.
    """
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if colon else LOOPBACK
    if not host or not (port.isascii() and port.isdigit()) or int(port) > _MAX_PORT:
        raise SettingError(
            f"--metrics {text!r}: use HOST:PORT, as in 127.0.0.1:9400; port 0 is any that is free"
        )
    return Endpoint(host, int(port))


class _Handler(WSGIRequestHandler):
    timeout = _REQUEST_TIMEOUT_S

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name it has
        """Say nothing: a scrape is no event."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = False
    """So that closing waits for an answer that is on its way, for ``timeout`` at the most."""


class _Server6(_Server):
    address_family = socket.AF_INET6


class MetricsServer:
    """Serves a registry until it is closed.

    Attributes:
        endpoint: with the port that it got.
        scrapes: how often it was asked.

    Raises:
        PortTakenError: somebody else listens there.
        SettingError: it is no address of this machine.
    """

    def __init__(self, endpoint: Endpoint, registry: CollectorRegistry) -> None:
        self.scrapes = 0
        self._app: Callable[..., Iterable[bytes]] = make_wsgi_app(registry)
        kind = _Server6 if ":" in endpoint.host else _Server
        try:
            self._server = make_server(
                endpoint.host,
                endpoint.port,
                self._answer,
                server_class=kind,
                handler_class=_Handler,
            )
        except OSError as error:
            kind_of_error = PortTakenError if error.errno == errno.EADDRINUSE else SettingError
            raise kind_of_error(
                f"--metrics {endpoint.host}:{endpoint.port}: {error.strerror or error}; use an"
                " address of this machine, and another port, or port 0 for any that is free"
            ) from error
        self.endpoint = Endpoint(endpoint.host, self._server.server_port)
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="metrics-server", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Answer what was asked, and listen no more."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        body = self._app(environ, start_response)
        self.scrapes += environ.get("PATH_INFO") == PATH
        return body
