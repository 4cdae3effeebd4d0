"""Planted bugs that the search does not see under hardened, each with how and why."""

import dataclasses

from tests.mutations.silence import HARMLESS, HEALED, NOT_CALLED

__all__ = ["UNSEEN", "Unseen"]


@dataclasses.dataclass(frozen=True)
class Unseen:
    """How a bug stays unseen.

    Attributes:
        hardened: as of ``Search.silence``.
        guide: likewise; empty where guide shows it.
        reason: why, for a person.
    """

    hardened: str
    guide: str
    reason: str


_NO_FLUSH = "the flush of the git hook is not simulated"
_SKIPS = "the done-store refuses the second start"

UNSEEN: dict[str, Unseen] = {
    "second-write-is-skipped": Unseen(
        HEALED, "", "the measure reconcile puts on Redis what NATS alone has"
    ),
    "removed-before-it-is-sent": Unseen(NOT_CALLED, NOT_CALLED, _NO_FLUSH),
    "cleared-by-one-of-two": Unseen(
        HEALED, NOT_CALLED, "the measure reconcile puts on the other broker what one has"
    ),
    "repeated-under-another-id": Unseen(
        HEALED, HARMLESS, "the done-store skips the second copy; guide repeats no publish"
    ),
    "started-twice": Unseen(HEALED, "", _SKIPS),
    "started-twice-on-a-retry": Unseen(HEALED, "", _SKIPS),
}
