"""The measures of the hardened design, each a switch of its own.

With one measure off, or one alone on, a hazard can be shown open and closed while all else stays
equal. Processes are told their measures as a text, see ``parse_measures``.
"""

import difflib

import msgspec

from hookbench.errors import SettingError
from hookbench.migration.phases import AckMode, Design

__all__ = ["HARDENED", "NO_MEASURES", "Measures", "measures_of", "parse_measures"]


class Measures(msgspec.Struct, frozen=True, kw_only=True):
    """Which measures are on; by default none, which is the guide to the letter.

    Attributes:
        ack_after: NATS is acknowledged after processing, not before (hazard P10).
        read_both: in ``dual_read`` Redis is read as well, all through the phase, where a task has
            lain there for longer than NATS needs to bring its copy (hazards P1, P6, P9). It needs
            a done-store, or what is done by NATS and not trimmed in Redis is done again (P8).
        gates: a phase is entered and left by a procedure that asks before and after whether the
            brokers and the processes are ready (hazards P1, P6, P12, C1, B1, B2, B3).
    """

    ack_after: bool = False
    read_both: bool = False
    gates: bool = False

    @property
    def ack_mode(self) -> AckMode:
        """When a NATS delivery is acknowledged."""
        return AckMode.AFTER_PROCESSING if self.ack_after else AckMode.IMMEDIATE

    @property
    def text(self) -> str:
        """As ``parse_measures`` reads it: the names of those that are on, or ``none``."""
        names = [name for name in self.__struct_fields__ if getattr(self, name)]
        return ",".join(names) or _NONE


_NONE = "none"
NO_MEASURES = Measures()
HARDENED = Measures(**dict.fromkeys(Measures.__struct_fields__, True))


def measures_of(design: Design) -> Measures:
    """All of them for ``hardened``, none for ``guide``."""
    return HARDENED if design is Design.HARDENED else NO_MEASURES


def parse_measures(text: str, base: Measures = NO_MEASURES) -> Measures:
    """Measures by a list of changes, from left to right.

    Args:
        text: names separated by commas; each is switched on, or off with a ``-`` before it.
            ``none`` (or ``guide``) switches all off, ``all`` (or ``hardened``) all on.
        base: what the changes are made to.

    Raises:
        SettingError: there is no such measure; the text names the nearest.
    """
    measures = base
    for word in (item.strip() for item in text.split(",")):
        if not word:
            continue
        if word in (_NONE, Design.GUIDE):
            measures = NO_MEASURES
        elif word in ("all", Design.HARDENED):
            measures = HARDENED
        else:
            name = word.removeprefix("-")
            _check_name(name)
            measures = msgspec.structs.replace(measures, **{name: not word.startswith("-")})
    return measures


def _check_name(name: str) -> None:
    known = Measures.__struct_fields__
    if name in known:
        return
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise SettingError(
        f"measure {name!r}: there is none{hint}; use none, all, or of {', '.join(known)}, with a -"
        " before those to be off"
    )
