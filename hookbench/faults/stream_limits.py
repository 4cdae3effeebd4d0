"""The hook stream with tighter limits for a while."""

from typing import Any

from hookbench.clock import NS_PER_S
from hookbench.errors import SettingError
from hookbench.faults.base import Fault, Targets, insist
from hookbench.faults.jetstream_api import change_stream, stream_info

__all__ = ["StreamLimits"]

MIN_AGE_S = 0.1  # nats-server takes no shorter age or window
_SETTING = "stream "


class StreamLimits(Fault, frozen=True, kw_only=True, tag="stream_limits"):
    """Limits of the hook stream, changed in place and put back after ``for_s``.

    What a limit removed stays removed, and a ``Nats-Msg-Id`` that a shorter window forgot stays
    forgotten. A window is never longer than the age: a ``max_age_s`` below it shortens it as well.

    Attributes:
        max_bytes, max_msgs: the oldest tasks go when there are more.
        max_age_s: a task goes when it is older, read or not.
        duplicate_window_s: for how long a ``Nats-Msg-Id`` is known again.
    """

    max_bytes: int | None = None
    max_msgs: int | None = None
    max_age_s: float | None = None
    duplicate_window_s: float | None = None

    def check(self) -> None:
        """Refuse another target, no limit, no end, and a limit that the server would refuse."""
        if self.target != "nats":
            raise SettingError(f"fault {self.name}: target {self.target!r}: use nats")
        if self.for_s <= 0:
            raise SettingError(f"fault {self.name}: for_s {self.for_s}: use more than 0")
        limits = {
            "max_bytes": (self.max_bytes, 1),
            "max_msgs": (self.max_msgs, 1),
            "max_age_s": (self.max_age_s, MIN_AGE_S),
            "duplicate_window_s": (self.duplicate_window_s, MIN_AGE_S),
        }
        if all(value is None for value, _least in limits.values()):
            raise SettingError(f"fault {self.name}: no limit: give {', '.join(limits)}")
        for name, (value, least) in limits.items():
            if value is not None and value < least:
                raise SettingError(f"fault {self.name}: {name} {value}: use {least} or more")
        if (self.duplicate_window_s or 0.0) > (self.max_age_s or float("inf")):
            raise SettingError(
                f"fault {self.name}: duplicate_window_s {self.duplicate_window_s}: use no more than"
                f" max_age_s {self.max_age_s}"
            )

    @property
    def what(self) -> str:
        """The stream's settings."""
        return "stream"

    def needs(self) -> dict[str, int]:
        """NATS."""
        return {"nats": 1}

    async def inject(self, targets: Targets) -> None:
        """Change them, and read them back."""
        info = await stream_info(targets.administration)
        changes = self._changes(info["config"])
        for name in changes:
            targets.memory.hold(self, f"{_SETTING}{name}", info["config"].get(name, 0))
        targets.memory.note(self, "messages before", info["state"]["messages"])
        await change_stream(targets.administration, changes)

    def _changes(self, config: dict[str, Any]) -> dict[str, int]:
        wanted = {
            "max_bytes": self.max_bytes,
            "max_msgs": self.max_msgs,
            "max_age": _ns(self.max_age_s),
            "duplicate_window": _ns(self.duplicate_window_s),
        }
        changes = {name: value for name, value in wanted.items() if value is not None}
        age_ns = changes.get("max_age")
        if age_ns is not None and "duplicate_window" not in changes:
            changes["duplicate_window"] = min(age_ns, int(config.get("duplicate_window", 0)))
        return changes

    async def heal(self, targets: Targets) -> None:
        """Put back what they were, and read that back."""
        held = targets.memory.release(self)
        if not held:
            return
        former = {name.removeprefix(_SETTING): value for name, value in held.items()}

        async def put_back() -> None:
            info = await stream_info(targets.administration)
            targets.memory.note(self, "messages at its end", info["state"]["messages"])
            await change_stream(targets.administration, former)

        await insist(put_back, targets.clock)


def _ns(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds * NS_PER_S)
