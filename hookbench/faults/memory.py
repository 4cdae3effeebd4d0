"""What the faults of a run remember from their beginning to their end; a fault itself is frozen."""

from typing import Any

__all__ = ["FaultMemory"]


class FaultMemory:
    """Former settings, things to go on with, and notes for the record, by fault.

    Several faults may hold one setting at once. What it was before the first of them is put back
    by the last, whatever order they end in.
    """

    def __init__(self) -> None:
        self._settings: dict[str, tuple[Any, set[int]]] = {}
        self._notes: dict[int, dict[str, str]] = {}
        self._kept: dict[int, Any] = {}
        self._known: dict[int, object] = {}  # so that no other fault gets the same id

    def _id(self, fault: object) -> int:
        self._known[id(fault)] = fault
        return id(fault)

    def hold(self, fault: object, setting: str, value: Any) -> None:
        """Say that ``fault`` is about to change a setting that is ``value`` now."""
        _former, holders = self._settings.setdefault(setting, (value, set()))
        holders.add(self._id(fault))

    def release(self, fault: object) -> dict[str, Any]:
        """The settings that only ``fault`` held, with their values before; to be put back now."""
        alone = {}
        for setting, (former, holders) in list(self._settings.items()):
            if id(fault) in holders:
                holders.discard(id(fault))
                if not holders:
                    alone[setting] = former
                    del self._settings[setting]
        return alone

    def keep(self, fault: object, thing: Any) -> None:
        """Keep a thing for the end of ``fault``."""
        self._kept[self._id(fault)] = thing

    def kept(self, fault: object) -> Any:
        """What is kept for ``fault``; ``None`` for nothing."""
        return self._kept.get(id(fault))

    def take(self, fault: object) -> Any:
        """What was kept for ``fault``, which is then gone; ``None`` for nothing."""
        return self._kept.pop(id(fault), None)

    def note(self, fault: object, name: str, value: object) -> None:
        """Write something down for the record of ``fault``."""
        self._notes.setdefault(self._id(fault), {})[name] = str(value)

    def notes(self, fault: object) -> dict[str, str]:
        """What was written down for ``fault``."""
        return dict(self._notes.get(id(fault), {}))
