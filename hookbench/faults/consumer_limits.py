"""The workers' consumer with other limits for a while."""

from hookbench.clock import NS_PER_S
from hookbench.errors import BrokerUnreachableError, SettingError
from hookbench.faults.base import Fault, Targets, insist
from hookbench.faults.jetstream_api import (
    change_consumer,
    consumer_info,
    consumer_name,
    find_consumer,
)

__all__ = ["ConsumerLimits"]

UNLIMITED = -1
MIN_ACK_WAIT_S = 0.01
_SETTING = "consumer "


class ConsumerLimits(Fault, frozen=True, kw_only=True, tag="consumer_limits"):
    """Limits of the workers' consumer, changed in place and put back after ``for_s``.

    A task that was given up under a lower ``max_deliver`` is not delivered again (hazard N3).

    Attributes:
        ack_wait_s: a delivery that is not acknowledged for so long is delivered again.
        max_deliver: deliveries of a task, -1 for no bound.
        max_ack_pending: tasks that all workers together may have unacknowledged.
    """

    ack_wait_s: float | None = None
    max_deliver: int | None = None
    max_ack_pending: int | None = None

    def check(self) -> None:
        """Refuse another target, no limit, no end, and a limit that makes no sense."""
        if self.target != "nats":
            raise SettingError(f"fault {self.name}: target {self.target!r}: use nats")
        if self.for_s <= 0:
            raise SettingError(f"fault {self.name}: for_s {self.for_s}: use more than 0")
        if self.ack_wait_s is None and self.max_deliver is None and self.max_ack_pending is None:
            raise SettingError(
                f"fault {self.name}: no limit: give ack_wait_s, max_deliver or max_ack_pending"
            )
        if self.ack_wait_s is not None and self.ack_wait_s < MIN_ACK_WAIT_S:
            raise SettingError(
                f"fault {self.name}: ack_wait_s {self.ack_wait_s}: use {MIN_ACK_WAIT_S} or more"
            )
        if self.max_deliver is not None and self.max_deliver < 1 and self.max_deliver != UNLIMITED:
            raise SettingError(
                f"fault {self.name}: max_deliver {self.max_deliver}: use 1 or more, or {UNLIMITED}"
            )
        if self.max_ack_pending is not None and self.max_ack_pending < 1:
            raise SettingError(
                f"fault {self.name}: max_ack_pending {self.max_ack_pending}: use 1 or more"
            )

    @property
    def what(self) -> str:
        """The consumer's settings."""
        return "consumer"

    def needs(self) -> dict[str, int]:
        """NATS."""
        return {"nats": 1}

    @property
    def _changes(self) -> dict[str, int]:
        ack_wait_ns = None if self.ack_wait_s is None else int(self.ack_wait_s * NS_PER_S)
        wanted = {
            "ack_wait": ack_wait_ns,
            "max_deliver": self.max_deliver,
            "max_ack_pending": self.max_ack_pending,
        }
        return {name: value for name, value in wanted.items() if value is not None}

    async def inject(self, targets: Targets) -> None:
        """Change them, and read them back."""
        config = (await consumer_info(targets.administration))["config"]
        for name in self._changes:
            targets.memory.hold(self, f"{_SETTING}{name}", config.get(name, 0))
        await change_consumer(targets.administration, self._changes)

    async def heal(self, targets: Targets) -> None:
        """Put back what they were, and read that back."""
        held = targets.memory.release(self)
        if not held:
            return
        former = {name.removeprefix(_SETTING): value for name, value in held.items()}

        async def put_back() -> None:
            administration = targets.administration
            name = await consumer_name(administration)
            if await find_consumer(administration, name) is None:
                raise BrokerUnreachableError(f"consumer {name} is gone at the moment")
            await change_consumer(administration, former)

        await insist(put_back, targets.clock)
