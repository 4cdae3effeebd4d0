"""Passwords of the roles: made here, kept in a file each, and told to a broker as hashes."""

import hashlib
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from hookbench.acl.roles import Role
from hookbench.errors import SettingError
from hookbench.queues.access import read_secret

__all__ = ["bcrypt_of", "make_passwords", "password_file", "sha256_of"]

_PASSWORD_BYTES = 32
# A password that was made here cannot be guessed, so its hash need not be slow; one of somebody
# else's may be in the file as well. nats-server computes it at each connection.
_BCRYPT_ROUNDS = 10
_BCRYPT_MAX_BYTES = 72


def password_file(folder: Path, broker: str, role: Role) -> Path:
    """Where the password of a role on ``redis`` or ``nats`` is kept."""
    return folder / f"{broker}-{role}"


def make_passwords(folder: Path, roles: Iterable[Role], *, force: bool = False) -> list[Path]:
    """Make a password for each role and broker, readable by its owner only.

    Args:
        folder: made if it is not there; the files have names as of ``password_file``.
        roles: whose.
        force: replace those that are there.

    Raises:
        SettingError: one is there already, in which case none is made, or it cannot be written.
    """
    files = [password_file(folder, broker, role) for broker in ("redis", "nats") for role in roles]
    there = [path for path in files if path.exists() or path.is_symlink()]
    if there and not force:
        raise SettingError(
            f"{there[0]} is there already: its broker knows that password; say --force to replace"
            " it, and give the broker the new rules"
        )
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in files:
            _write(path, secrets.token_urlsafe(_PASSWORD_BYTES))
    except OSError as error:
        raise SettingError(f"{error.filename or folder}: {error.strerror}") from error
    return files


def _write(path: Path, password: str) -> None:
    """Aside and renamed: a file of other rights, or a link, is replaced and not followed."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(f"{password}\n")
    aside.replace(path)


def sha256_of(path: Path) -> str:
    """The password in a file as Redis' ACL has it: ``#`` and hexadecimal digits.

    Raises:
        SettingError: see ``read_secret``.
    """
    return "#" + hashlib.sha256(read_secret(path, "password of Redis").encode()).hexdigest()


def bcrypt_of(path: Path) -> str:
    """The password in a file as nats-server has it.

    Raises:
        SettingError: see ``read_secret``; or it is longer than bcrypt looks at.
    """
    import bcrypt  # noqa: PLC0415 - only who writes rules for NATS pays for it

    password = read_secret(path, "password of NATS").encode()
    if len(password) > _BCRYPT_MAX_BYTES:
        raise SettingError(f"{path}: bcrypt takes {_BCRYPT_MAX_BYTES} bytes of a password at most")
    # nats-server takes a hash for one by its beginning, $2a$.
    salt = bcrypt.gensalt(_BCRYPT_ROUNDS, prefix=b"2a")
    return bcrypt.hashpw(password, salt).decode()
