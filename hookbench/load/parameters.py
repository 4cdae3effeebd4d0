"""The parameters in texts such as ``ramp:from=0.1,to=2``: a name, and numbers by name."""

import difflib
import math
from collections.abc import Collection, Mapping

from hookbench.errors import SettingError

__all__ = ["check_name", "number_of", "numbers_of", "split_name"]


def split_name(text: str) -> tuple[str, str]:
    """The name, and what follows the first colon."""
    name, _colon, rest = text.strip().partition(":")
    return name.strip(), rest.strip()


def check_name(kind: str, name: str, known: Collection[str]) -> None:
    """Refuse a name that there is not.

    Raises:
        SettingError: the text has the names that there are, the nearest first.
    """
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=1)
    first = f"did you mean {near[0]!r}? " if near else ""
    raise SettingError(f"{kind} {name!r}: {first}use {', '.join(known)}")


def number_of(kind: str, text: str) -> float:
    """A finite number.

    Raises:
        SettingError: it is none.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise SettingError(f"{kind} {text!r}: use a number")
    return value


def numbers_of(kind: str, text: str, defaults: Mapping[str, float]) -> dict[str, float]:
    """The numbers in ``from=0.1,to=2``, by name.

    Args:
        kind: for messages: of what they are.
        text: as given.
        defaults: the names that there are, and the numbers that are not given.

    Raises:
        SettingError: another form, an unknown name, one that is given twice, or no number.
    """
    found: dict[str, float] = {}
    for part in filter(None, (item.strip() for item in text.split(","))):
        name, equals, value = (item.strip() for item in part.partition("="))
        if not equals:
            raise SettingError(f"{kind} {text!r}: use name=number, as in {_example(defaults)}")
        check_name(f"{kind}: parameter", name, list(defaults))
        if name in found:
            raise SettingError(f"{kind} {text!r}: {name} is given twice")
        found[name] = number_of(f"{kind}: {name}", value)
    return {**defaults, **found}


def _example(defaults: Mapping[str, float]) -> str:
    return ",".join(f"{name}={value:g}" for name, value in defaults.items()) or "its name alone"
