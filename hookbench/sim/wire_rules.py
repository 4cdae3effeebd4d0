"""Rules for single messages on a link: what the wire proxy of a rehearsal does to frames."""

import enum
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hookbench.sim.connection import Connection, Direction

__all__ = ["WireAction", "WireRule"]


class WireAction(enum.StrEnum):
    """What happens to a message that a rule matches."""

    LOSE = "lose"
    """It never arrives; the connection stands."""
    REPEAT = "repeat"
    """It arrives twice."""
    HOLD = "hold"
    """It, and what comes behind it in the connection, arrives later."""
    RESET = "reset"
    """It never arrives, and both sides find the connection reset."""


class WireRule:
    """Does something to messages, a number of times.

    Args:
        action: what.
        way: of which direction.
        matches: which messages; by default all.
        skip: how many that match pass first.
        times: to how many it is done; after that the rule is spent.
        hold_ns: how much later, of ``HOLD``.

    Attributes:
        hits: to how many it was done so far.
    """

    def __init__(
        self,
        action: WireAction,
        way: "Direction",
        *,
        matches: Callable[[Any], bool] | None = None,
        skip: int = 0,
        times: int = 1,
        hold_ns: int = 0,
    ) -> None:
        self.action = action
        self.way = way
        self._matches = matches
        self._skip = skip
        self._times = times
        self.hold_ns = hold_ns
        self.hits = 0

    def applies(
        self,
        way: "Direction",
        message: Any,
        connection: "Connection",  # noqa: ARG002 - for rules that look at what went before
    ) -> bool:
        """Whether it is done to this message; asking counts."""
        if way is not self.way or self.hits >= self._times:
            return False
        if self._matches is not None and not self._matches(message):
            return False
        if self._skip > 0:
            self._skip -= 1
            return False
        self.hits += 1
        return True
