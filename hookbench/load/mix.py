"""The task mix: how many tasks of each handler class a generator offers."""

import bisect
import itertools
import math
import random
from collections.abc import Mapping

from hookbench.effects.classes import HandlerClass, parse_handler_class
from hookbench.errors import SettingError

__all__ = ["ALL_PLAIN", "TaskMix", "parse_mix"]


class TaskMix:
    """Weights of the handler classes, by label; they need not add up to 1.

    Raises:
        SettingError: an unknown class, a weight that is negative or no number, or none above 0.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        for label, weight in weights.items():
            parse_handler_class(label)
            if not (math.isfinite(weight) and weight >= 0):
                raise SettingError(f"weight {weight} of {label} in the task mix: use 0 or more")
        if not any(weights.values()):
            raise SettingError(f"task mix {dict(weights)}: give one class a weight above 0")
        self.weights = {item.label: float(weights.get(item.label, 0.0)) for item in HandlerClass}
        self._labels = [label for label, weight in self.weights.items() if weight]
        self._up_to = list(itertools.accumulate(self.weights[label] for label in self._labels))
        self._last = len(self._labels) - 1
        self.text = ",".join(f"{label}={self.weights[label]!r}" for label in self._labels)
        """As ``parse_mix`` reads it."""

    def choose(self, rng: random.Random) -> str:
        """The label of a class, with the probability of its share."""
        if len(self._labels) == 1:
            return self._labels[0]
        # As ``rng.choices`` draws, which costs three times as much for one.
        place = bisect.bisect(self._up_to, rng.random() * self._up_to[-1], hi=self._last)
        return self._labels[place]


ALL_PLAIN = "plain=1"


def parse_mix(text: str) -> TaskMix:
    """The mix in ``plain=2,idempotent=1,transactional=1``.

    Raises:
        SettingError: another form, or see ``TaskMix``.
    """
    weights: dict[str, float] = {}
    for part in text.split(","):
        label, equals, weight = part.strip().partition("=")
        try:
            weights[label] = float(weight)
        except ValueError:
            equals = ""
        if not equals:
            raise SettingError(f"task mix {text!r}: use class=weight, as in plain=2,idempotent=1")
    return TaskMix(weights)
