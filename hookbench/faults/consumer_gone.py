"""The workers' consumer deleted, for a while or for a moment (hazard N7)."""

import contextlib

from hookbench.errors import FaultTargetMissingError, SettingError
from hookbench.faults.administration import Administration
from hookbench.faults.base import Fault, FaultNotFiredError, Targets, insist
from hookbench.faults.jetstream_api import (
    consumer_info,
    consumer_name,
    create_consumer,
    delete_consumer,
    find_consumer,
)

__all__ = ["DeleteConsumer", "RecreateConsumer"]

_TRIES = 10


class DeleteConsumer(Fault, frozen=True, kw_only=True, tag="delete_consumer"):
    """No consumer for ``for_s``, then one with the former settings that delivers all again."""

    def check(self) -> None:
        """Refuse another target, and no end."""
        if self.target != "nats":
            raise SettingError(f"fault {self.name}: target {self.target!r}: use nats")
        if self.for_s <= 0:
            raise SettingError(
                f"fault {self.name}: for_s {self.for_s}: use more than 0, or recreate_consumer"
            )

    @property
    def what(self) -> str:
        """The consumer, and its settings."""
        return "consumer"

    def needs(self) -> dict[str, int]:
        """NATS."""
        return {"nats": 1}

    async def inject(self, targets: Targets) -> None:
        """Delete it, and see that it is gone.

        A worker that starts at that moment may make it anew: that one is deleted as well, and at
        once, so that whatever it has delivered meanwhile lies within the fault.
        """
        administration = targets.administration
        name = await consumer_name(administration)
        info = await consumer_info(administration)
        targets.memory.keep(self, info["config"])
        targets.memory.note(self, "delivered before", info["delivered"]["stream_seq"])
        for _ in range(_TRIES):
            await _delete(administration, name)
            found = await find_consumer(administration, name)
            if found is None:
                return
            if found["created"] == info["created"]:
                raise FaultNotFiredError(f"consumer {name} is there after its deletion")
        raise FaultNotFiredError(
            f"consumer {name} is there after {_TRIES} deletions: workers that start make it anew"
            " each time"
        )

    async def heal(self, targets: Targets) -> None:
        """Create it again, unless a worker that started meanwhile has done so."""
        config = targets.memory.take(self)
        if config is None:
            return

        async def create() -> None:
            name = await consumer_name(targets.administration)
            if await find_consumer(targets.administration, name) is None:
                await create_consumer(targets.administration, config)
            else:
                targets.memory.note(self, "made anew by", "a worker, before its end")

        await insist(create, targets.clock)


class RecreateConsumer(Fault, frozen=True, kw_only=True, tag="recreate_consumer"):
    """Deleted and created again at once, as the guide does: it delivers all again.

    There is nothing to heal: where the former one stood, nobody knows any more.
    """

    def check(self) -> None:
        """Refuse another target, and an end."""
        if self.target != "nats":
            raise SettingError(f"fault {self.name}: target {self.target!r}: use nats")
        if self.for_s > 0:
            raise SettingError(
                f"fault {self.name}: for_s {self.for_s}: leave it out, or use delete_consumer"
            )

    @property
    def what(self) -> str:
        """The consumer, and its settings."""
        return "consumer"

    def needs(self) -> dict[str, int]:
        """NATS."""
        return {"nats": 1}

    async def inject(self, targets: Targets) -> None:
        """Delete and create it, and see that it is another one."""
        administration = targets.administration
        name = await consumer_name(administration)
        former = await consumer_info(administration)
        targets.memory.keep(self, former["config"])
        targets.memory.note(self, "delivered before", former["delivered"]["stream_seq"])
        await delete_consumer(administration, name)
        try:
            await create_consumer(administration, former["config"])
        except FaultTargetMissingError:  # the one that is there delivers all again as well
            targets.memory.note(self, "made anew by", "a worker")
        targets.memory.take(self)
        now = await find_consumer(administration, name)
        if now is not None and now["created"] == former["created"]:
            raise FaultNotFiredError(f"consumer {name} is the one of {former['created']} still")

    async def heal(self, targets: Targets) -> None:
        """Only what was deleted and could not be created is left to do."""
        config = targets.memory.take(self)
        if config is None:
            return

        async def create() -> None:
            name = await consumer_name(targets.administration)
            if await find_consumer(targets.administration, name) is None:
                await create_consumer(targets.administration, config)

        await insist(create, targets.clock)


async def _delete(administration: Administration, name: str) -> None:
    """Delete it, unless it is gone already."""
    with contextlib.suppress(FaultTargetMissingError):
        await delete_consumer(administration, name)
