"""A plan of a matrix as a strict TOML file."""

import difflib
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from hookbench.decoding import MAX_CONFIGURATION_BYTES, decode_toml, read_document
from hookbench.errors import SettingError
from hookbench.migration.phases import parse_phase
from hookbench.rehearsal.matrix_plan import MatrixPlan

__all__ = ["change_plan", "load_plan"]


def load_plan(path: Path) -> MatrixPlan:
    """The plan in a file; a key that is not there has its default.

    Raises:
        SettingError: no TOML, an unknown key, or a wrong value; the text names it.
    """
    try:
        data = decode_toml(read_document(path, MAX_CONFIGURATION_BYTES).decode())
    except OSError as error:
        raise SettingError(f"plan {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingError(f"plan {path}: {error}") from error
    return change_plan(MatrixPlan(), data, f"plan {path}")


def change_plan(plan: MatrixPlan, changes: dict[str, Any], where: str) -> MatrixPlan:
    """A plan with other values for some keys, which are checked as those of a file.

    Raises:
        SettingError: an unknown key, or a wrong value; the text names it.
    """
    known = plan.__struct_fields__
    for key in changes:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise SettingError(f"{where}: unknown key {key!r}{hint}; known are {', '.join(known)}")
    try:
        changed = msgspec.convert(msgspec.to_builtins(plan) | changes, MatrixPlan)
    except msgspec.ValidationError as error:
        problem, _, place = str(error).partition(" - at `$.")
        key = place.removesuffix("`").partition("[")[0]
        value = f" {changes[key]!r}" if key in changes else ""
        raise SettingError(f"{where}: {key}{value}: {problem}") from error
    return msgspec.structs.replace(  # one way to write each, so that equal plans are equal
        changed,
        phases=tuple(parse_phase(text).label for text in changed.phases),
        payload=tuple(_size(item) for item in changed.payload),
    )


def _size(payload: int | str) -> int | str:
    return int(payload) if isinstance(payload, str) and payload.isdigit() else payload
