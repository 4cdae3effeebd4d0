"""What a simulated Redis is told: limits, and what a crash leaves of it."""

import enum

import msgspec

from hookbench.sim.redis.replies import CommandError

__all__ = ["Persistence", "RedisSettings", "memory_bytes"]

_UNITS = {"k": 1000, "kb": 1024, "m": 1000**2, "mb": 1024**2, "g": 1000**3, "gb": 1024**3}


class Persistence(enum.StrEnum):
    """What is on the disk.

    The log is written before a reply is sent, so SIGKILL takes nothing that was answered from
    either of the AOF classes; a power cut takes what was not synced.
    """

    NONE = "none"
    EVERYSEC = "everysec"
    ALWAYS = "always"


class RedisSettings(msgspec.Struct, kw_only=True):
    """The configuration of one server, which CONFIG SET changes."""

    persistence: Persistence = Persistence.NONE
    maxmemory_bytes: int = 0
    policy: str = "noeviction"
    version: str = "8.2.3"

    def told(self) -> dict[str, str]:
        """As CONFIG GET tells it."""
        aof = self.persistence is not Persistence.NONE
        return {
            "appendfsync": "always" if self.persistence is Persistence.ALWAYS else "everysec",
            "appendonly": "yes" if aof else "no",
            "maxmemory": str(self.maxmemory_bytes),
            "maxmemory-policy": self.policy,
            "save": "",
        }

    def change(self, name: str, value: str) -> None:
        """CONFIG SET of a setting that is kept here.

        Raises:
            CommandError: it is none.
        """
        if name == "maxmemory":
            self.maxmemory_bytes = memory_bytes(value)
        elif name == "maxmemory-policy":
            self.policy = value
        else:
            raise CommandError(
                f"ERR Unknown option or number of arguments for CONFIG SET - '{name}'"
            )


def memory_bytes(text: str) -> int:
    """``100mb`` in bytes.

    Raises:
        CommandError: it is no amount of memory.
    """
    number = text.lower().rstrip("kmgb")
    unit = text.lower()[len(number) :]
    if not number.isdigit() or unit not in {"", "b", *_UNITS}:
        raise CommandError("ERR CONFIG SET failed - argument must be a memory value")
    return int(number) * _UNITS.get(unit, 1)
