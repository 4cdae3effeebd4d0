"""What Redis did, from its own append-only file. Knows nothing of hookbench.

``MONITOR`` tells what Redis was told; the file has what came of it, in the order in which it came:
only commands that changed something, BLMOVE as the LMOVE at the moment when it moved, and the
changes of a script together.
"""

import time
from pathlib import Path

import redis

__all__ = ["AofError", "read_units", "wait_for_mark"]

MARK = "witness:mark"
_POLL_S = 0.02
_TIMEOUT_S = 20.0

Command = tuple[bytes, ...]


class AofError(ValueError):
    """The file is not whole."""


def wait_for_mark(port: int, data: Path, mark: str) -> Path:
    """Write a mark, and wait until the file has it; the file.

    Raises:
        AofError: there is no single file, or the mark does not come.
    """
    with redis.Redis(port=port) as client:
        client.set(MARK, mark)
        client.delete(MARK)
    deadline = time.monotonic() + _TIMEOUT_S
    while time.monotonic() < deadline:
        found = list(data.glob("appendonlydir/*.incr.aof"))
        # A rewrite begins another file, and what was before is not told any more.
        if len(found) != 1 or not found[0].name.endswith(".1.incr.aof"):
            raise AofError(f"append-only files {[item.name for item in found]}, not the first one")
        if mark.encode() in found[0].read_bytes()[-4096:]:
            return found[0]
        time.sleep(_POLL_S)
    raise AofError("the append-only file does not get its mark")


def read_units(data: bytes) -> list[list[Command]]:
    """The commands, those between MULTI and EXEC as one unit.

    Raises:
        AofError: it has another form.
    """
    units: list[list[Command]] = []
    open_unit: list[Command] | None = None
    at = 0
    while at < len(data):
        command, at = _command(data, at)
        name = command[0].upper()
        if name == b"MULTI":
            open_unit = []
        elif name == b"EXEC":
            if open_unit is None:
                raise AofError(f"EXEC without MULTI before byte {at}")
            units.append(open_unit)
            open_unit = None
        elif open_unit is not None:
            open_unit.append(command)
        elif name != b"SELECT":
            units.append([command])
    return units


def _command(data: bytes, at: int) -> tuple[Command, int]:
    count, at = _number(data, at, b"*")
    arguments = []
    for _ in range(count):
        length, at = _number(data, at, b"$")
        arguments.append(data[at : at + length])
        at += length + 2
    if not arguments or at > len(data):
        raise AofError(f"the append-only file ends within a command, at byte {at}")
    return tuple(arguments), at


def _number(data: bytes, at: int, sign: bytes) -> tuple[int, int]:
    end = data.find(b"\r\n", at)
    if end < 0 or data[at : at + 1] != sign:
        raise AofError(f"no command at byte {at}: {data[at : at + 40]!r}")
    return int(data[at + 1 : end]), end + 2
