"""The ledger of a process on another machine, written here with the times of this one."""

import os
from pathlib import Path
from typing import IO

import numpy as np

from hookbench.errors import LedgerError
from hookbench.ledger.boot import boot_id
from hookbench.ledger.events import (
    DEFAULT_CAPACITY,
    HEADER,
    HEADER_BYTES,
    MAGIC,
    RECORD_BYTES,
    SCHEMA_VERSION,
    SEGMENT_SUFFIX,
    Event,
)
from hookbench.ledger.segment import RECORD_DTYPE

__all__ = ["LedgerRelay"]


class LedgerRelay:
    """Appends records that came from elsewhere to segments of their writer.

    Args:
        folder: of the ledger.
        role, writer: of the process; the number must be no other writer's.
    """

    def __init__(self, folder: Path, *, role: str, writer: int) -> None:
        self._folder = folder
        self._role = role
        self._writer = writer
        self._segment = 0
        self._file: IO[bytes] | None = None
        self._left = 0
        self._last_ns = 0
        self._ended = False

    def add(self, data: bytes, offset_ns: int) -> None:
        """Append whole records.

        Times do not go back, though what is known of the other clock may change.

        Args:
            data: as they were written.
            offset_ns: what the clock of this machine is ahead of the other one.

        Raises:
            LedgerError: half a record, or there is no room for them.
        """
        if len(data) % RECORD_BYTES:
            raise LedgerError(f"{len(data)} bytes of {self._role}.{self._writer}: no whole records")
        records = np.frombuffer(data, dtype=RECORD_DTYPE).copy()
        if not len(records):
            return
        times_ns = records["time_ns"] + offset_ns
        times_ns[0] = max(int(times_ns[0]), self._last_ns)
        records["time_ns"] = np.maximum.accumulate(times_ns)
        self._last_ns = int(records["time_ns"][-1])
        intended = (records["event"] == Event.PUT_INVOKED) & (records["value"] > 0)
        records["value"][intended] += offset_ns
        self._ended = bool(records["event"][-1] == Event.WRITER_CLOSE)
        try:
            self._write(records.tobytes())
        except OSError as error:
            raise LedgerError(
                f"ledger {self._folder}: {error.strerror}; free some room or choose another folder"
            ) from error

    def _write(self, data: bytes) -> None:
        while data:
            if self._file is None or not self._left:
                self._open()
            part = data[: self._left * RECORD_BYTES]
            data = data[len(part) :]
            assert self._file is not None
            self._file.write(part)
            self._left -= len(part) // RECORD_BYTES

    def _open(self) -> None:
        if self._file is not None:
            self._file.close()
        name = f"{self._role}.{self._writer:05d}.{self._segment:04d}{SEGMENT_SUFFIX}"
        header = bytearray(HEADER_BYTES)
        HEADER.pack_into(
            header, 0, MAGIC, SCHEMA_VERSION, RECORD_BYTES, DEFAULT_CAPACITY, os.getpid(),
            boot_id(), self._role.encode()[:24],
        )  # fmt: skip
        self._file = (self._folder / name).open("xb", buffering=0)
        # As long as it may become: that it was cut short tells that its writer has ended.
        self._file.truncate(HEADER_BYTES + DEFAULT_CAPACITY * RECORD_BYTES)
        self._file.write(header)
        self._segment += 1
        self._left = DEFAULT_CAPACITY

    def close(self) -> None:
        """Nothing more comes: what its writer did not close has crashed."""
        if self._file is not None:
            if self._ended:
                self._file.truncate(self._file.tell())
            self._file.close()
            self._file = None
