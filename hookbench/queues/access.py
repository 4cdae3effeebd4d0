"""What a URL says beside where a broker is: who connects, with which password, and over what.

Everything that connects takes one URL, so this is where credentials and certificates are said::

    rediss://worker@cache.example:6380/0?password_file=/run/secrets/redis-worker&tls_ca=/etc/ca.pem
    tls://worker@nats.example:4222?password_file=/run/secrets/nats-worker&inbox_prefix=_INBOX_worker

``password_file`` and ``tls_key`` must not be readable by everybody. A certificate is checked, and
so is the name of its host: there is no option that switches it off. A URL with ``password_file``
has no secret in it, and may stand on a command line.
"""

import ssl
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlencode

from hookbench.errors import SettingError
from hookbench.queues.addresses import is_cluster, is_encrypted, is_replicated, nats_nodes
from hookbench.secrets import redact

if TYPE_CHECKING:
    import redis.asyncio as redis_asyncio

__all__ = ["MAX_SECRET_BYTES", "nats_access", "read_secret", "redis_access", "redis_of"]

MAX_SECRET_BYTES = 4096
_COMMON = ("user", "password_file", "tls_ca", "tls_cert", "tls_key")
_OF_NATS = (*_COMMON, "creds", "inbox_prefix")
_OF_REDIS_PY = (
    "db", "username", "password", "client_name", "protocol", "health_check_interval",
    "max_connections",
    "socket_connect_timeout", "socket_keepalive", "socket_read_size", "socket_timeout",
)  # fmt: skip
"""Of redis-py's own options those that neither repeat a command nor switch a check off."""


@dataclass(frozen=True, kw_only=True)
class _Said:
    """The options of a URL, and what stands before its ``@``."""

    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    creds: str | None = None
    inbox_prefix: str | None = None


def redis_access(url: str) -> tuple[str, dict[str, Any]]:
    """A URL without the options above, and what redis-py is given beside it.

    Args:
        url: of one node, or of several, see ``queues/addresses.py``. Options that are redis-py's
            stay in it.

    Raises:
        SettingError: an option is given twice or without what it needs, or a file cannot be used.
    """
    encrypted = is_encrypted(url)
    head, _, query = url.partition("?")
    if not query and not encrypted:
        return url, {}
    own, rest = _taken_apart(url, query, _COMMON)
    known = () if is_cluster(url) or is_replicated(url) else _OF_REDIS_PY
    for name, _value in rest:
        if name not in known:
            raise SettingError(
                f"Redis URL {redact(url)!r}: there is no option {name!r}: use"
                f" {', '.join((*_COMMON, *known))}"
            )
    said = _said(url, own, userinfo=_userinfo(head), encrypted=encrypted)
    options: dict[str, Any] = {}
    if "user" in own:
        options["username"] = said.user
    if "password_file" in own:
        options["password"] = said.password
    if encrypted:
        tls_context(said.tls_ca, said.tls_cert, said.tls_key)  # says now what is wrong with a file
        options |= {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
        files = {
            "ssl_ca_certs": said.tls_ca, "ssl_certfile": said.tls_cert, "ssl_keyfile": said.tls_key
        }  # fmt: skip
        options |= {name: file for name, file in files.items() if file is not None}
    return f"{head}?{urlencode(rest)}" if rest else head, options


def redis_of(url: str, **options: Any) -> "redis_asyncio.Redis":
    """A client of redis-py, of one node.

    Args:
        url: see ``redis_access``.
        options: of redis-py.

    Raises:
        SettingError: see ``redis_access``.
        ValueError: the URL is no redis URL.
    """
    import redis.asyncio as redis_asyncio  # noqa: PLC0415 - who has NATS alone does not pay for it

    plain, more = redis_access(url)
    return redis_asyncio.Redis.from_url(plain, **more, **options)


def nats_access(url: str) -> tuple[str | list[str], dict[str, Any]]:
    """The servers of a NATS URL, and what nats-py is given beside them.

    A user, a password and a token are percent-decoded here, which nats-py does not do. They hold
    for all nodes, also for those that the servers tell of.

    Args:
        url: of one node, or of several, separated by commas.

    Raises:
        SettingError: an option is unknown, given twice or without what it needs, or a file cannot
            be used.
    """
    nodes = nats_nodes(url)
    heads = [node.partition("?")[0] for node in nodes]
    encrypted = any(map(is_encrypted, heads))
    query = nodes[0].partition("?")[2]
    users = {info for info in map(_userinfo, heads) if info}
    if not query and not encrypted and not users:
        return (nodes if len(nodes) > 1 else url), {}
    own, rest = _taken_apart(url, query, _OF_NATS)
    if rest:
        raise SettingError(
            f"NATS URL {redact(url)!r}: there is no option {rest[0][0]!r}: use"
            f" {', '.join(_OF_NATS)}"
        )
    if len(users) > 1:
        raise SettingError(f"NATS URL {redact(url)!r}: use one user for all nodes")
    said = _said(url, own, userinfo=next(iter(users), ""), encrypted=encrypted)
    options: dict[str, Any] = {
        "user": said.user,
        "password": said.password,
        "token": said.token,
        "user_credentials": said.creds,
        "inbox_prefix": said.inbox_prefix,
    }
    if encrypted:
        options["tls"] = tls_context(said.tls_ca, said.tls_cert, said.tls_key)
    servers = [_without_userinfo(head) for head in heads]
    given = {name: value for name, value in options.items() if value is not None}
    return (servers if len(servers) > 1 else servers[0]), given


def tls_context(ca: str | None, cert: str | None, key: str | None) -> ssl.SSLContext:
    """What checks a server's certificate and the name in it, and shows one of its own.

    Args:
        ca: file of the certificates that are trusted; by default those of the system.
        cert: file of the certificate that is shown, with its key unless ``key`` has that.
        key: file of its key.

    Raises:
        SettingError: a file is not there, or is none of these.
    """
    for name, path in (("tls_ca", ca), ("tls_cert", cert), ("tls_key", key)):
        if path is not None:
            _check_file(name, Path(path), secret=name == "tls_key")
    try:
        context = ssl.create_default_context(cafile=ca)
    except (ssl.SSLError, OSError) as error:
        raise SettingError(f"tls_ca {ca}: no certificates in PEM ({error})") from error
    if cert is not None:
        try:
            # A key with a passphrase would be asked for at the terminal.
            context.load_cert_chain(cert, key, password=_no_passphrase)
        except (ssl.SSLError, OSError) as error:
            raise SettingError(
                f"tls_cert {cert}: it cannot be used with its key ({error}): both are to be PEM,"
                " without a passphrase"
            ) from error
    return context


def _no_passphrase() -> str:
    return ""


def read_secret(path: Path, what: str) -> str:
    """The one line of a file that holds a secret.

    Args:
        path: of the file.
        what: for the error's text: ``password_file``.

    Raises:
        SettingError: everybody may read it, it is no text of one line, or is not there.
    """
    _check_file(what, path, secret=True)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SECRET_BYTES + 1)
        text = data.decode().removesuffix("\n").removesuffix("\r")
    except OSError as error:
        raise SettingError(f"{what} {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingError(f"{what} {path}: it is no UTF-8 text") from error
    if len(data) > MAX_SECRET_BYTES:
        raise SettingError(f"{what} {path}: more than {MAX_SECRET_BYTES} bytes: it is no password")
    if not text or not text.isprintable():
        raise SettingError(f"{what} {path}: it must hold one line, which is the password")
    return text


def _check_file(what: str, path: Path, *, secret: bool) -> None:
    try:
        found = path.stat()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise SettingError(f"{what} {path}: {why}") from error
    if not stat.S_ISREG(found.st_mode):
        raise SettingError(f"{what} {path}: it is no file")
    if secret and found.st_mode & stat.S_IROTH:
        raise SettingError(
            f"{what} {path}: everybody may read it (mode {stat.S_IMODE(found.st_mode):04o}): run"
            f" chmod 600 {path}; a secret that a container is given needs mode 0440"
        )


def _check_nkeys(path: str) -> None:
    """What nats-py signs with, and imports when the server has asked for a signature."""
    try:
        import nkeys  # noqa: F401, PLC0415 - an optional dependency
    except ImportError as error:
        raise SettingError(
            f"creds {path}: credentials of a JWT user are signed with the package nkeys, which is"
            " not installed: run pip install 'hookbench[creds]', or give a user and password_file"
        ) from error


def _taken_apart(
    url: str, query: str, known: Iterable[str]
) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """The options of a query that are ours, and the others."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError as error:
        raise SettingError(f"URL {redact(url)!r}: its options cannot be read") from error
    own: dict[str, str] = {}
    rest = []
    for name, value in pairs:
        if name not in known:
            rest.append((name, value))
        elif name in own or not value:
            raise SettingError(f"URL {redact(url)!r}: {name} has no value, or is there twice")
        else:
            own[name] = value
    return own, rest


def _said(url: str, own: dict[str, str], *, userinfo: str, encrypted: bool) -> _Said:
    """The options together with what stands before the ``@``."""
    before, colon, after = userinfo.partition(":")
    user, password, token = own.get("user"), None, None
    if user is not None and before:
        raise SettingError(f"URL {redact(url)!r}: the user is there twice")
    if "password_file" in own:
        if colon:
            raise SettingError(f"URL {redact(url)!r}: a password and password_file: use one")
        user = user or unquote(before) or None
        password = read_secret(Path(own["password_file"]), "password_file")
    elif colon:
        user, password = unquote(before), unquote(after)
    elif before:
        token = unquote(before)
    if not encrypted and (tls := [name for name in own if name.startswith("tls_")]):
        raise SettingError(f"URL {redact(url)!r}: {tls[0]} needs rediss:// or tls://")
    if "tls_key" in own and "tls_cert" not in own:
        raise SettingError(f"URL {redact(url)!r}: tls_key needs tls_cert")
    if "creds" in own:
        _check_file("creds", Path(own["creds"]), secret=True)
        _check_nkeys(own["creds"])
    left = {name: own[name] for name in own if name not in ("user", "password_file")}
    return _Said(user=user, password=password, token=token, **left)


def _userinfo(node: str) -> str:
    return node.rpartition("://")[2].rpartition("@")[0]


def _without_userinfo(node: str) -> str:
    scheme, mark, rest = node.rpartition("://")
    return f"{scheme}{mark}{rest.rpartition('@')[2]}"
