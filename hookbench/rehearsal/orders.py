"""The orders that faults of the load give to the processes of a fleet."""

import itertools
from pathlib import Path

from hookbench.errors import SettingError
from hookbench.faults.orders import Order, read_hits, replace_json
from hookbench.rehearsal.fleet import Fleet, Member, fault_file

__all__ = ["FleetOrders"]

_GROUPS = {"workers": "worker", "producers": "producer"}


class FleetOrders:
    """Writes each process the orders that are in force for it, and reads what it answers."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._numbers = itertools.count(1)
        self._given: dict[int, tuple[list[Path], Order]] = {}

    def give(self, target: str, order: Order) -> int:
        """Tell a process, or all ``workers`` or ``producers``; the number of the order.

        Raises:
            SettingError: there is no such target.
        """
        number = next(self._numbers)
        files = [fault_file(member.phase_file) for member in self._members(target)]
        self._given[number] = (files, order)
        self._write(files)
        return number

    def withdraw(self, number: int) -> None:
        """Tell them that it is over."""
        files, _order = self._given.pop(number)
        self._write(files)

    def hits(self, number: int) -> list[int]:
        """How often each of the processes has obeyed; of one that was replaced, the new one."""
        files, _order = self._given[number]
        return [read_hits(path).get(number, 0) for path in files]

    def _members(self, target: str) -> list[Member]:
        members = [
            member
            for member in self._fleet.members
            if target == member.name or _GROUPS.get(target) == member.role
        ]
        if not members:
            raise SettingError(f"fault target {target!r}: there is no such process")
        return members

    def _write(self, files: list[Path]) -> None:
        for path in files:
            mine = {number: order for number, (all_, order) in self._given.items() if path in all_}
            replace_json(path, mine)
