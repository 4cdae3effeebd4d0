"""Which boot of the machine this is: monotonic times compare only within one. Standard library."""

import uuid
from pathlib import Path

__all__ = ["boot_id"]


def boot_id() -> bytes:
    """16 bytes that name this boot; all zero where the system does not tell."""
    path = Path("/proc/sys/kernel/random/boot_id")
    try:
        return uuid.UUID(path.read_text().strip()).bytes
    except OSError:
        return bytes(16)
