"""A leader of a NATS cluster that gives its place up."""

from typing import Any, Literal

from hookbench.errors import (
    BrokerUnreachableError,
    FaultError,
    FaultTargetMissingError,
    SettingError,
)
from hookbench.faults.administration import Administration
from hookbench.faults.base import Fault, FaultNotFiredError, Targets, wait_for
from hookbench.faults.jetstream_api import ask, consumer_info, consumer_name, stream_info

__all__ = ["StepDown"]

_LEAST_NODES = 3
_ASK_AGAIN_S = 2.0


class StepDown(Fault, frozen=True, kw_only=True, tag="step_down"):
    """The leader of the hook stream, or of the workers' consumer, steps down in order.

    There is nothing to heal: the others have chosen a new one.

    Attributes:
        of: ``stream`` or ``consumer``.
        within_s: how long to wait for another leader.
    """

    of: Literal["stream", "consumer"] = "stream"
    within_s: float = 10.0

    def check(self) -> None:
        """Refuse another target, and an end."""
        if self.target != "nats":
            raise SettingError(f"fault {self.name}: target {self.target!r}: use nats")
        if self.for_s > 0:
            raise SettingError(f"fault {self.name}: for_s {self.for_s}: leave it out")

    def needs(self) -> dict[str, int]:
        """A NATS cluster."""
        return {"nats": _LEAST_NODES}

    async def inject(self, targets: Targets) -> None:
        """Ask it to step down, and wait until another leads."""
        administration = targets.administration
        former = _leader(await self._info(administration))
        if former is None:
            raise FaultTargetMissingError(f"the {self.of} has no leader that could step down")
        names = administration.names
        request = f"STREAM.LEADER.STEPDOWN.{names.stream}"
        if self.of == "consumer":
            durable = await consumer_name(administration)
            request = f"CONSUMER.LEADER.STEPDOWN.{names.stream}.{durable}"
        seen: list[str | None] = [former]

        async def another() -> bool:
            try:
                seen.append(_leader(await self._info(administration)))
            except (BrokerUnreachableError, FaultError):
                return False  # nobody answers while there is no leader
            return seen[-1] not in (None, former)

        tries = max(1, int(self.within_s / _ASK_AGAIN_S))
        for number in range(tries):
            # While the others are cut off or catch up, the one that stepped down may win again.
            try:
                await ask(administration, request)
            except BrokerUnreachableError:
                if number == 0:
                    raise
            if await wait_for(another, targets.clock, tries=int(self.within_s * 100 / tries)):
                break
        else:
            raise FaultNotFiredError(
                f"the leader of the {self.of} was {former} and is {seen[-1]} after"
                f" {self.within_s:g} s"
            )
        targets.memory.note(self, "leader", f"{former}, then {seen[-1]}")

    async def _info(self, administration: Administration) -> dict[str, Any]:
        ask_for = consumer_info if self.of == "consumer" else stream_info
        return await ask_for(administration)


def _leader(info: dict[str, Any]) -> str | None:
    return (info.get("cluster") or {}).get("leader") or None
