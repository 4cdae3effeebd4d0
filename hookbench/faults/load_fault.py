"""What faults of the load have in common: an order to processes, and what they answer."""

from typing import ClassVar

from hookbench.errors import SettingError
from hookbench.faults.base import Fault, FaultNotFiredError, Targets, wait_until
from hookbench.faults.orders import Order

__all__ = ["LoadFault"]


class LoadFault(Fault, frozen=True, kw_only=True):
    """An order that is in force for ``for_s``; it fires when it is obeyed.

    Attributes:
        within_s: how long to wait for that.
    """

    ROLE: ClassVar[str] = "worker"

    within_s: float = 10.0

    @property
    def order(self) -> Order:
        """What the processes are told."""
        raise NotImplementedError

    def has_fired(self, hits: list[int]) -> bool:
        """Whether processes that obeyed so often make it a fault: here, each has begun."""
        return all(hits)

    def check(self) -> None:
        """Refuse a target of another role, and no end."""
        group, number = f"{self.ROLE}s", self.target.removeprefix(f"{self.ROLE}-")
        if self.target != group and (number == self.target or not number.isdigit()):
            raise SettingError(
                f"fault {self.name}: target {self.target!r}: use {group}, {self.ROLE}-0,"
                f" {self.ROLE}-1, …"
            )
        if self.for_s <= 0:
            raise SettingError(f"fault {self.name}: for_s {self.for_s}: use more than 0")

    def needs(self) -> dict[str, int] | None:
        """No broker; one process is found by its name."""
        return {} if self.target == f"{self.ROLE}s" else None

    async def inject(self, targets: Targets) -> None:
        """Give the order, and wait until each process says that it obeyed."""
        number = targets.orders.give(self.target, self.order)
        targets.memory.keep(self, number)

        def obeyed() -> bool:
            return self.has_fired(targets.orders.hits(number))

        if not await wait_until(obeyed, targets.clock, tries=int(self.within_s * 100)):
            raise FaultNotFiredError(
                f"{self.target} obeyed {targets.orders.hits(number)} times within"
                f" {self.within_s:g} s: is there work for each?"
            )

    async def heal(self, targets: Targets) -> None:
        """Take the order back."""
        number: int | None = targets.memory.take(self)
        if number is None:
            return
        targets.memory.note(self, "obeyed", sum(targets.orders.hits(number)))
        targets.orders.withdraw(number)
