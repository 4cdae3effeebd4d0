"""Task ids: UUID version 7 (RFC 9562), with clock and entropy passed in. Standard library only."""

import random
import uuid
from typing import Protocol

from hookbench.clock import NS_PER_MS, Clock

__all__ = ["Entropy", "system_entropy", "uuid7", "uuid7_wall_ms"]

_VERSION_7 = 0x7
_VARIANT_RFC = 0b10


class Entropy(Protocol):
    """A source of random bits: ``random.Random(seed)`` or ``random.SystemRandom()``."""

    def getrandbits(self, k: int, /) -> int:
        """An integer of ``k`` random bits."""
        ...


def system_entropy() -> Entropy:
    """The operating system's entropy, for ids outside of any seeded run."""
    return random.SystemRandom()


def uuid7(clock: Clock, entropy: Entropy) -> uuid.UUID:
    """A new id: 48 bits of Unix milliseconds, 74 random bits (RFC 9562, section 5.7)."""
    unix_ms = (clock.wall_ns() // NS_PER_MS) & ((1 << 48) - 1)
    value = unix_ms << 80
    value |= _VERSION_7 << 76
    value |= entropy.getrandbits(12) << 64
    value |= _VARIANT_RFC << 62
    value |= entropy.getrandbits(62)
    return uuid.UUID(int=value)


def uuid7_wall_ms(task_id: uuid.UUID) -> int | None:
    """The Unix milliseconds in a version 7 id, ``None`` for an id of another version."""
    number = task_id.int
    if number >> 76 & 0xF != _VERSION_7 or number >> 62 & 0b11 != _VARIANT_RFC:
        return None
    return number >> 80
