"""A virtual environment for each peer, of pinned versions, made when it is missing or outdated."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec

from hookbench.errors import SettingError
from tests.bench.peers.catalogue import MODULES
from tests.bench.peers.trial import CONCURRENCY, ROOT, SLEEP_S, child_environment

__all__ = [
    "FOLDER",
    "NotReadyError",
    "Told",
    "describe",
    "interpreter",
    "is_ready",
    "make_environment",
    "requirements",
]

FOLDER = ROOT / ".venv-peers"
_REQUIREMENTS = Path(__file__).parent / "requirements"
_STAMP = ".installed"
_INSTALL_TIMEOUT_S = 600.0
_DESCRIBE_TIMEOUT_S = 60.0
_QUIET_PIP = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}


class NotReadyError(SettingError):
    """An environment cannot be made or used; the text is the reason in one line."""


class Told(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a contender says of itself for one handler, see ``Description`` in ``child.py``."""

    concurrency: str
    settings: list[dict[str, str]]
    promise: str
    promised: str
    promise_page: str
    redelivery_s: float


def requirements(name):
    """The pinned packages of an environment, a line each."""
    return (_REQUIREMENTS / f"{name}.txt").read_text(encoding="utf-8").split()


def interpreter(contender, folder=FOLDER):
    """The Python that runs a contender."""
    if contender.is_reference:
        return Path(sys.executable)
    return folder / contender.environment / "bin" / "python"


def make_environment(name, folder=FOLDER):
    """Make the environment of a name unless it is there as it should be.

    Raises:
        NotReadyError: a package cannot be installed.
    """
    wanted = _mark(name)
    place = folder / name
    stamp = place / _STAMP
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        return
    shutil.rmtree(place, ignore_errors=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    _run([sys.executable, "-m", "venv", str(place)], name)
    python = str(place / "bin" / "python")
    _run([python, "-m", "pip", "install", "--quiet", *requirements(name)], name)
    stamp.write_text(wanted, encoding="utf-8")


def is_ready(name, folder=FOLDER):
    """Whether an environment is there as it should be."""
    stamp = folder / name / _STAMP
    return stamp.is_file() and stamp.read_text(encoding="utf-8") == _mark(name)


def _mark(name):
    text = "\n".join([sys.version, *requirements(name)])
    return hashlib.sha256(text.encode()).hexdigest()


def _run(command, name):
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT_S, check=False,
            env=child_environment() | _QUIET_PIP,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotReadyError(f"{name}: {error}") from error
    if done.returncode:
        raise NotReadyError(f"{name}: {_last_error(done.stderr or done.stdout)}")


def _last_error(text):
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["no reason was given"])[-1]


def describe(contender, folder=FOLDER):
    """What a contender says of itself, by the seconds that a task sleeps.

    Raises:
        NotReadyError: it cannot be imported.
    """
    return {sleep_s: _describe(contender, folder, sleep_s) for sleep_s in (0.0, SLEEP_S)}


def _describe(contender, folder, sleep_s):
    environment = child_environment() | {
        "PEERS_SLEEP_S": str(sleep_s),
        "PEERS_CONCURRENCY": str(CONCURRENCY),
        "PEERS_VARIANT": contender.variant,
    }
    if contender.broker == "nats":
        environment["PEERS_URL"] = "nats://127.0.0.1:4222"
    command = [str(interpreter(contender, folder)), "-m", f"{MODULES}.{contender.module}"]
    try:
        done = subprocess.run(
            [*command, "describe"], capture_output=True, text=True, env=environment,
            timeout=_DESCRIBE_TIMEOUT_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotReadyError(f"{contender.name}: {error}") from error
    if done.returncode:
        raise NotReadyError(f"{contender.name}: {_last_error(done.stderr)}")
    return msgspec.convert(json.loads(done.stdout), Told)
