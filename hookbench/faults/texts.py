"""Faults as somebody types them: ``pause nats at=5 for=2``.

Several are separated by semicolons. What a kind needs beside its target is given by name, as in a
scenario; ``at`` and ``for`` are ``at_s`` and ``for_s``, in seconds.
"""

import msgspec

from hookbench.errors import SettingError
from hookbench.faults.registry import AnyFault, parse_fault

__all__ = ["parse_fault_text", "parse_fault_texts"]

_SHORT = {"at": "at_s", "for": "for_s"}
_EXAMPLE = "kill worker-0 at=3; pause nats at=5 for=2; slow_handler workers for=3 service_ms=50"


def parse_fault_texts(text: str) -> tuple[AnyFault, ...]:
    """The faults of a schedule, none for an empty text.

    Raises:
        SettingError: see ``parse_fault_text``.
    """
    parts = (part.strip() for part in text.replace("\n", ";").split(";"))
    return tuple(parse_fault_text(part) for part in parts if part)


def parse_fault_text(text: str) -> AnyFault:
    """One fault; without ``at`` it is due at once.

    Raises:
        SettingError: no such kind, a key that it does not have, or a value that does not fit.
    """
    kind, target, *rest = [*text.split(), "", ""]
    if not target or "=" in target:
        raise SettingError(f"fault {text!r}: use KIND TARGET name=value, as in {_EXAMPLE}")
    data: dict[str, object] = {"kind": kind, "target": target, "at_s": 0.0}
    seen: set[str] = set()
    for word in filter(None, rest):
        short, equals, value = word.partition("=")
        name = _SHORT.get(short, short)
        if not equals or not name:
            raise SettingError(f"fault {text!r}: {word!r}: use name=value, as in {_EXAMPLE}")
        if name in seen or name in ("kind", "target"):
            raise SettingError(f"fault {text!r}: {short} is given twice")
        seen.add(name)
        data[name] = _value(value)
    return parse_fault(data, f"fault {text!r}")


def _value(text: str) -> object:
    """A number or a truth value where it is one, else the text."""
    try:
        value = msgspec.json.decode(text.encode())
    except msgspec.DecodeError:
        return text
    return value if isinstance(value, bool | int | float) else text
