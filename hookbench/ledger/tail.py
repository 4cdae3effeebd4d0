"""Follows a ledger while it is written: the records that are whole, each once."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from hookbench.ledger.events import (
    COMMIT_MARKER,
    HEADER_BYTES,
    RECORD_BYTES,
    SEGMENT_SUFFIX,
)
from hookbench.ledger.segment import RECORD_DTYPE

__all__ = ["LedgerTail", "Records"]

_CHUNK_RECORDS = 8_192

Records = npt.NDArray[np.void]
"""One-dimensional, of ``RECORD_DTYPE``."""


class _Segment(msgspec.Struct):
    """How far one segment was read."""

    path: Path
    offset_bytes: int = HEADER_BYTES


class LedgerTail:
    """What the writers of a role have written since it was read last.

    Args:
        folder: of the ledger.
        role: of the writers.
    """

    def __init__(self, folder: Path, role: str) -> None:
        self._folder = folder
        self._role = role
        self._segments: dict[str, _Segment] = {}

    def read(self) -> Iterator[Records]:
        """Records of one writer after the other, in parts of thousands."""
        for path in sorted(self._folder.glob(f"{self._role}.*{SEGMENT_SUFFIX}")):
            yield from _read_on(self._segments.setdefault(path.name, _Segment(path)))


def _read_on(segment: _Segment) -> Iterator[Records]:
    with segment.path.open("rb") as file:
        file.seek(segment.offset_bytes)
        while data := file.read(_CHUNK_RECORDS * RECORD_BYTES):
            whole = len(data) // RECORD_BYTES
            records = np.frombuffer(data, dtype=RECORD_DTYPE, count=whole)
            open_records = np.flatnonzero(records["commit"] != COMMIT_MARKER)
            committed = int(open_records[0]) if len(open_records) else whole
            segment.offset_bytes += committed * RECORD_BYTES
            yield records[:committed]
            if committed < _CHUNK_RECORDS:
                return
