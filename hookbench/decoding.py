"""Limits on what is decoded: the size of a document, and how deep it is nested.

Parsers go as deep as the interpreter lets them, and then raise what no caller expects; here it is
an error of the parser's own kind.
"""

import errno
import tomllib
from pathlib import Path
from typing import Any, TypeVar

import msgspec

__all__ = [
    "MAX_CONFIGURATION_BYTES",
    "MAX_DOCUMENT_BYTES",
    "decode_json",
    "decode_toml",
    "read_document",
]

MAX_DOCUMENT_BYTES = 256 * 1024 * 1024
"""Of a file that a run has written: a manifest, a plan, announcements."""
MAX_CONFIGURATION_BYTES = 1_000_000
"""Of a file that somebody has written: a scenario, a plan, settings, prices."""
_TOO_DEEP = "nested too deep"

Kind = TypeVar("Kind")


def read_document(path: Path, limit_bytes: int = MAX_DOCUMENT_BYTES) -> bytes:
    """A whole file.

    Raises:
        OSError: it cannot be read, or is larger than ``limit_bytes``.
    """
    with path.open("rb") as file:
        data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise OSError(errno.EFBIG, f"more than {limit_bytes:,} bytes: it is no such file", path)
    return data


def decode_json(data: bytes | str, kind: type[Kind], *, strict: bool = True) -> Kind:
    """JSON of a type.

    Raises:
        msgspec.MsgspecError: it is none, or nested too deep.
    """
    try:
        return msgspec.json.decode(data, type=kind, strict=strict)
    except (RecursionError, UnicodeDecodeError) as error:
        why = _TOO_DEEP if isinstance(error, RecursionError) else "no UTF-8"
        raise msgspec.DecodeError(why) from error


def decode_toml(text: str) -> dict[str, Any]:
    """A TOML document.

    Raises:
        tomllib.TOMLDecodeError: it is none, nested too deep, or has a number that is too long.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except ValueError as error:  # of int, which refuses what takes it too long
        raise tomllib.TOMLDecodeError("a number with too many digits") from error
    except RecursionError as error:
        raise tomllib.TOMLDecodeError(_TOO_DEEP) from error
