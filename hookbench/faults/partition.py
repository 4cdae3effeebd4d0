"""A node that is cut off from the other nodes of its broker, while clients still reach it."""

from hookbench.errors import SettingError
from hookbench.faults.base import Fault, FaultNotFiredError, Targets, wait_for

__all__ = ["Partition"]

_TRIES = 1_500  # of 10 ms each: nodes say something every second, and every ten at the latest


class Partition(Fault, frozen=True, kw_only=True, tag="partition"):
    """Nothing gets through between a node and the others: routes of a NATS cluster, or replication.

    The connections stay, and what is sent on them is lost. They are closed when it ends, as their
    retransmissions would have failed.
    """

    def check(self) -> None:
        """A partition needs an end."""
        if self.for_s <= 0:
            raise SettingError(f"{self.name}: for_s {self.for_s}: use more than 0")

    async def inject(self, targets: Targets) -> None:
        """Cut it off, and wait until something that was sent got lost."""
        number = await targets.add_rule(self)

        async def lost() -> bool:
            return await targets.firings(number) > 0

        if not await wait_for(lost, targets.clock, tries=_TRIES):
            raise FaultNotFiredError(
                f"{self.target}: nothing was lost within {_TRIES // 100} s: were they connected?"
            )

    async def heal(self, targets: Targets) -> None:
        """Let it reach the others again."""
        await targets.remove_rule(self)
