"""The passwords of ``docker-compose.yml``, in a file that Compose reads by itself.

Only the standard library is imported, so that ``make secrets`` needs no environment.
"""

import os
import secrets
import tempfile
from pathlib import Path

from hookbench.errors import SettingError

__all__ = ["NAMES", "USER_ID", "write_passwords"]

NAMES = (
    "HOOKBENCH_REDIS_PASSWORD",
    "HOOKBENCH_NATS_PASSWORD",
    "HOOKBENCH_NATS_ROUTE_PASSWORD",
    "HOOKBENCH_JUPYTER_TOKEN",
    "HOOKBENCH_GRAFANA_PASSWORD",
)
"""Each is 24 random bytes in hexadecimal digits behind a letter: it needs no quotes in a URL, and
nats-server cannot take it for a number."""
USER_ID = "HOOKBENCH_UID"
"""Owner of the folders that are mounted into the image."""
_PLAIN_USER = 1000
_BYTES = 24


def write_passwords(path: Path) -> bool:
    """Make the file unless it is there, readable by its owner only; whether it was made.

    It is written aside and linked into its place, so no other one is ever overwritten, and no half
    of one is left.

    Raises:
        SettingError: the file is there and lacks a name, or cannot be made.
    """
    if path.exists():
        _check(path)
        return False
    try:
        handle, aside = tempfile.mkstemp(dir=path.parent, prefix=".hookbench-")  # mode 0600
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(_text())
            os.link(aside, path)
        finally:
            os.unlink(aside)  # noqa: PTH108 - the name as mkstemp gave it
    except FileExistsError:  # somebody else was faster
        _check(path)
        return False
    except OSError as error:
        raise SettingError(
            f"{path} cannot be made ({error.strerror}): give another folder"
        ) from error
    return True


def _text() -> str:
    lines = [f"{name}=p{secrets.token_hex(_BYTES)}" for name in NAMES]
    return "\n".join(
        [
            "# Passwords for docker-compose.yml, made at random. They are for nobody else.",
            *lines,
            f"{USER_ID}={os.getuid() or _PLAIN_USER}",
            "",
        ]
    )


def _check(path: Path) -> None:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"{path} cannot be read: {error}") from error
    given = {line.partition("=")[0].strip() for line in lines if line.partition("=")[2].strip()}
    missing = [name for name in NAMES if name not in given]
    if missing:
        raise SettingError(
            f"{path} is there, and is kept: add {', '.join(missing)}, or move it away to have a new"
            " one made"
        )
