"""Subjects and patterns: ``*`` stands for one token, ``>`` for the rest."""

import functools

__all__ = ["is_literal", "literal_head", "matches"]


def is_literal(pattern: str) -> bool:
    """Whether it stands for itself alone."""
    return "*" not in pattern and ">" not in pattern


def literal_head(pattern: str) -> str:
    """What all of its subjects begin with: ``orders.`` of ``orders.>``, or of ``orders.*.new``."""
    return pattern.partition("*")[0].partition(">")[0]


@functools.lru_cache(maxsize=65_536)
def matches(pattern: str, subject: str) -> bool:
    """Whether a subject falls under a pattern."""
    if pattern == subject:
        return True
    if is_literal(pattern):
        return False
    wanted, tokens = pattern.split("."), subject.split(".")
    for place, part in enumerate(wanted):
        if part == ">":
            return len(tokens) > place
        if place >= len(tokens) or part not in ("*", tokens[place]):
            return False
    return len(wanted) == len(tokens)
