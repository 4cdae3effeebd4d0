"""Reading the arguments of a command, with Redis' own errors."""

from hookbench.sim.redis.replies import CommandError

__all__ = ["number_of", "score_of", "score_text", "slice_of", "syntax_error"]

NOT_AN_INTEGER = "ERR value is not an integer or out of range"
_LEAST, _MOST = -(2**63), 2**63 - 1


def number_of(text: bytes, error: str = NOT_AN_INTEGER) -> int:
    """A 64-bit integer as Redis reads it: no spaces, no plus, no leading zeros."""
    try:
        value = int(text)
    except ValueError:
        raise CommandError(error) from None
    if not _LEAST <= value <= _MOST or b"%d" % value != text:
        raise CommandError(error)
    return value


def score_of(text: bytes) -> tuple[float, bool]:
    """A bound of a range of scores, and whether it is itself left out."""
    excluded = text.startswith(b"(")
    try:
        return float(text[excluded:].replace(b"inf", b"inf")), excluded
    except ValueError:
        raise CommandError("ERR min or max is not a float") from None


def score_text(score: float) -> bytes:
    """A score as Redis writes it: 17 digits, whole numbers without a point."""
    if score == int(score) and abs(score) < 1e17:  # noqa: PLR2004 - what %.17g keeps whole
        return b"%d" % int(score)
    return f"{score:.17g}".encode()


def slice_of(start: int, stop: int, length: int) -> range:
    """Indexes from ``start`` to ``stop``, both included; negative ones count from the end."""
    if start < 0:
        start = max(0, start + length)
    if stop < 0:
        stop += length
    return range(start, min(stop, length - 1) + 1)


def syntax_error() -> CommandError:
    """What does not fit the command."""
    return CommandError("ERR syntax error")
