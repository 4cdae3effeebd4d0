"""How long a task waits after a failure."""

import msgspec

from hookbench.errors import SettingError
from hookbench.ids import Entropy

__all__ = ["NakDelays"]

_MAX_EXPONENT = 64
_JITTER_BITS = 32


class NakDelays(msgspec.Struct, frozen=True, kw_only=True):
    """Delays that grow from attempt to attempt.

    Attributes:
        base_s: after the first attempt.
        factor: of one delay and the next.
        cap_s: the longest one.
        jitter: the share of a delay that is left to chance, so that tasks that failed together do
            not come back together; 0 for none.
    """

    base_s: float = 1.0
    factor: float = 4.0
    cap_s: float = 60.0
    jitter: float = 0.2

    def __post_init__(self) -> None:
        """Refuse what does not grow."""
        if self.base_s <= 0 or self.cap_s < self.base_s or self.factor < 1:
            raise SettingError(
                f"delays from {self.base_s} s by {self.factor} up to {self.cap_s} s: use a first"
                " one above 0, a factor of at least 1, and a longest one that is not shorter"
            )
        if not 0 <= self.jitter <= 1:
            raise SettingError(f"jitter of {self.jitter}: use a share between 0 and 1")

    def after(self, attempt: int, entropy: Entropy | None = None) -> float:
        """Seconds after the 1-based ``attempt``; without entropy the whole delay."""
        exponent = min(max(attempt, 1) - 1, _MAX_EXPONENT)
        delay_s = min(self.cap_s, self.base_s * self.factor**exponent)
        if entropy is None:
            return delay_s
        chance = entropy.getrandbits(_JITTER_BITS) / (1 << _JITTER_BITS)
        return delay_s * (1 - self.jitter * chance)
