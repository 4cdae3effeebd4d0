"""One number for everything that a run wrote, to tell whether it was repeated to the byte."""

import hashlib
from pathlib import Path

import numpy as np

from hookbench.ledger.events import HEADER_BYTES, Event
from hookbench.ledger.segment import RECORD_DTYPE

__all__ = ["ledger_digest"]


def ledger_digest(folder: Path) -> str:
    """SHA-256 of all records of a ledger, segment by segment.

    Only what is the machine's is left out: boot and process id, which stand in the header and in
    the record that opens a segment's writer.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.ledger")):
        records = np.frombuffer(path.read_bytes()[HEADER_BYTES:], dtype=RECORD_DTYPE).copy()
        records["value"][records["event"] == Event.WRITER_OPEN] = 0
        digest.update(path.name.encode())
        digest.update(records.tobytes())
    return digest.hexdigest()
