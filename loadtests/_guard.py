"""Who may use the buttons of the live page."""

import ipaddress
import urllib.parse

__all__ = ["is_loopback", "why_refused"]

_NAMES = ("localhost", "ip6-localhost")


def is_loopback(host: str) -> bool:
    """Whether a name or an address is this machine's own, for itself alone."""
    name = host.strip("[]").lower()
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name in _NAMES


def why_refused(web_host: str, *, login: bool, asked_host: str, origin: str | None) -> str | None:
    """Why a button may not be used, for its user; ``None`` if it may.

    Args:
        web_host: what Locust's page listens on; empty for every interface.
        login: whether Locust asks for a login.
        asked_host: the request's own word for the server, without a port.
        origin: the page that the request comes from, if the browser says so.
    """
    if not login and not is_loopback(web_host):
        return (
            "refused: this page can be reached from other machines, and nobody has to log in:"
            " start Locust with --web-host 127.0.0.1, or with --web-login"
        )
    if not login and not is_loopback(asked_host):
        return f"refused: {asked_host} is not this machine's own name"
    if origin and urllib.parse.urlsplit(origin).hostname != asked_host:
        return f"refused: the request comes from {origin}"
    return None
