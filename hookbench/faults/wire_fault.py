"""Faults of the wire: what happens to frames between processes and a broker."""

import msgspec

from hookbench.errors import FaultError, SettingError
from hookbench.faults.base import Fault, FaultNotFiredError, Targets, wait_for
from hookbench.faults.wire.model import Rule
from hookbench.faults.wire.rules import LINK_ACTIONS, parse_rule

__all__ = ["LINKS", "Wire"]

LINKS = ("producers-redis", "producers-nats", "workers-redis", "workers-nats")
"""Whose connections to which broker. Only a link that a fault is aimed at goes through a proxy."""
_NOT_OF_A_RULE = ("target", "at_s", "for_s", "phase_index", "within_s")


class Wire(Fault, frozen=True, kw_only=True, tag="wire"):
    """A rule of the proxy on one link, from ``at_s`` on for ``for_s``; see ``Rule``.

    A rule that waits for a frame fires when the frame comes; a rule on the whole link at once.

    Attributes:
        within_s: how long to wait for the first frame that it fires on.
    """

    action: str
    direction: str | None = None
    command: str | None = None
    key: str | None = None
    subject: str | None = None
    nth: int = 1
    count: int = 1
    probability: float = 1.0
    seed: int = 0
    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    bytes_per_s: float = 0.0
    then: str = "half_open"
    refuse: bool = False
    within_s: float = 30.0

    @property
    def name(self) -> str:
        """``drop reply BLMOVE workers-redis``."""
        words = (self.action, self.direction, self.command, self.target)
        return " ".join(word for word in words if word)

    @property
    def rule(self) -> Rule:
        """What the proxy is told."""
        # Only what was set: the proxy refuses a field that an action does not have.
        rest = {
            field.name: value
            for field in msgspec.structs.fields(self)
            if field.name not in _NOT_OF_A_RULE
            and (value := getattr(self, field.name)) != field.default
        }
        return Rule(link=self.target, **rest)

    def check(self) -> None:
        """Refuse a link that there is not, and a rule that makes no sense."""
        if self.target not in LINKS:
            raise SettingError(f"fault {self.name}: target {self.target!r}: use {', '.join(LINKS)}")
        protocols = {link: "resp" if link.endswith("redis") else "nats" for link in LINKS}
        try:
            parse_rule(msgspec.json.decode(msgspec.json.encode(self.rule)), protocols)
        except FaultError as error:
            raise SettingError(f"fault {self.name}: {error}") from error
        if self.action in LINK_ACTIONS and self.for_s <= 0:
            raise SettingError(f"fault {self.name}: for_s {self.for_s}: use more than 0")

    async def inject(self, targets: Targets) -> None:
        """Put the rule to work, and wait until it has fired."""
        number = await targets.add_rule(self)
        if self.action in LINK_ACTIONS:
            return

        async def fired() -> bool:
            return await targets.firings(number) > 0

        if not await wait_for(fired, targets.clock, tries=int(self.within_s * 100)):
            raise FaultNotFiredError(
                f"no frame met the rule within {self.within_s:g} s (its {self.nth}. match)"
            )

    async def heal(self, targets: Targets) -> None:
        """End the rule, and whatever it holds back or half open."""
        await targets.remove_rule(self)
