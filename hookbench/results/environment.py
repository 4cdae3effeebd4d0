"""Where a run was made: machine, versions, commit."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import msgspec
import psutil

from hookbench import __version__

__all__ = ["Environment", "commit", "read_environment"]

_GIT_TIMEOUT_S = 5.0
_PACKAGES = ("nats-py", "redis", "hiredis", "uvloop", "msgspec", "numpy")


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """The machine and the software of a run; ``packages`` maps names to versions."""

    hookbench: str
    commit: str
    python: str
    kernel: str
    machine: str
    cpu: str
    cpus: int
    memory_bytes: int
    packages: dict[str, str]


def commit() -> str:
    """Short commit of the project's checkout, ``+`` behind it for changes; the version if none."""
    folder = Path(__file__).resolve().parent
    try:
        head = _git(folder, "rev-parse", "--short=7", "HEAD")
        dirty = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return f"v{__version__}"
    return f"{head}+" if dirty else head


def _git(folder: Path, *arguments: str) -> str:
    answer = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=_GIT_TIMEOUT_S,
    )
    return answer.stdout.strip()


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def read_environment() -> Environment:
    """Everything about this machine that a figure may depend on."""
    return Environment(
        hookbench=__version__,
        commit=commit(),
        python=platform.python_version(),
        kernel=platform.release(),
        machine=platform.machine(),
        cpu=_cpu(),
        cpus=os.cpu_count() or 1,
        memory_bytes=psutil.virtual_memory().total,
        packages={name: _package_version(name) for name in _PACKAGES},
    )


def _package_version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "-"
