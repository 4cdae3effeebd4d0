"""The effect store as numpy columns."""

import sqlite3
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from hookbench.effects.store import EFFECTS_SCHEMA
from hookbench.errors import EffectStoreError

__all__ = ["Effects", "read_effects"]

ID_DTYPE = np.dtype("V16")
EFFECT_DTYPE = np.dtype(
    [
        ("task", ID_DTYPE),
        ("class", "u1"),
        ("writer", "<u2"),
        ("attempt", "<u2"),
        ("token", "<i8"),
        ("time_ns", "<i8"),
    ]
)
STATE_DTYPE = np.dtype([("task", ID_DTYPE), ("value", "<i8")])
_CHUNK_ROWS = 50_000
_MAX_ATTEMPT = 0xFFFF


class Effects(msgspec.Struct, frozen=True, kw_only=True):
    """What the store holds.

    Attributes:
        rows: one per effect, in the order in which they happened, of ``EFFECT_DTYPE``.
        state: one per task with an idempotent effect, of ``STATE_DTYPE``.
    """

    rows: npt.NDArray[np.void]
    state: npt.NDArray[np.void]


def read_effects(path: Path) -> Effects:
    """Read a store, also one whose writers were killed.

    Raises:
        EffectStoreError: missing, damaged, no effect store, or written by a newer version.
    """
    if not path.is_file():
        raise EffectStoreError(f"effect store {path}: no such file")
    try:
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        try:
            (schema,) = db.execute("PRAGMA user_version").fetchone()
            if schema > EFFECTS_SCHEMA:
                raise EffectStoreError(
                    f"effect store {path}: schema {schema}, this version reads up to"
                    f" {EFFECTS_SCHEMA}; use the hookbench that wrote it, or a newer one"
                )
            rows = db.execute(
                "SELECT task, class, writer, min(attempt, ?), token, time_ns"
                " FROM effects ORDER BY number",
                (_MAX_ATTEMPT,),
            )
            return Effects(
                rows=_columns(rows, EFFECT_DTYPE),
                state=_columns(db.execute("SELECT task, value FROM state"), STATE_DTYPE),
            )
        finally:
            db.close()
    except (sqlite3.Error, ValueError, TypeError) as error:
        raise EffectStoreError(f"effect store {path}: {error}") from error


def _columns(cursor: sqlite3.Cursor, dtype: np.dtype[np.void]) -> npt.NDArray[np.void]:
    """All rows of a query, without holding more than a part of them as Python objects."""
    parts = [np.empty(0, dtype=dtype)]
    while rows := cursor.fetchmany(_CHUNK_ROWS):
        parts.append(np.array(rows, dtype=dtype))
    return np.concatenate(parts)
