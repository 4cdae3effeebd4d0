"""Where a fleet finds its phase: a key of Redis, a key of a NATS bucket, or a file.

A place holds what a phase file holds. Who follows a key says there what it is and in which phase,
again and again: who says nothing for ``SILENT_S`` is gone. Who follows a file says so in the lines
that it prints with ``--json``.
"""

import re
from pathlib import Path
from typing import Protocol

import msgspec

from hookbench.decoding import decode_json
from hookbench.errors import SettingError
from hookbench.migration.phases import Phase, parse_phase

__all__ = [
    "FILE",
    "LEASE_S",
    "NATS",
    "REDIS",
    "SILENT_S",
    "Board",
    "Place",
    "PlaceKind",
    "decode_step",
    "encode_step",
    "parse_place",
]

SILENT_S = 10.0
LEASE_S = 15.0
"""For which an operator holds a place on a broker, see ``hold``."""
_KEY = re.compile(r"[A-Za-z0-9_-]{1,100}")
PlaceKind = str
REDIS, NATS, FILE = "redis", "nats", "file"


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """``redis:KEY``, ``nats:KEY`` or ``file:PATH``."""

    kind: PlaceKind
    key: str

    @property
    def text(self) -> str:
        """As it is written."""
        return f"{self.kind}:{self.key}"


class _Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    index: int
    phase: str


def parse_place(text: str) -> Place:
    """A place as it is written.

    Raises:
        SettingError: it is none.
    """
    kind, colon, key = text.partition(":")
    if colon and kind == FILE and key:
        return Place(kind=FILE, key=str(Path(key).resolve()))
    if colon and kind in (REDIS, NATS) and _KEY.fullmatch(key):
        return Place(kind=kind, key=key)
    raise SettingError(
        f"place of a phase {text!r}: use redis:KEY, nats:KEY (of letters, digits, - and _) or"
        " file:PATH"
    )


def encode_step(index: int, phase: Phase) -> bytes:
    """What a place holds."""
    return msgspec.json.encode(_Step(index=index, phase=phase.label))


def decode_step(place: Place, data: bytes | None) -> tuple[int, Phase]:
    """Index of the step, and its phase.

    Raises:
        SettingError: there is none, or something else.
    """
    if data is None:
        raise SettingError(
            f"{place.text} holds no phase: give it one with hookbench phase set {place.text} PHASE"
        )
    try:
        step = decode_json(data, _Step)
    except msgspec.MsgspecError as error:
        raise SettingError(f"{place.text} holds no phase: {error}") from error
    return step.index, parse_phase(step.phase)


class Board(Protocol):
    """The places of one kind."""

    async def read(self, key: str) -> bytes | None:
        """What a place holds, ``None`` for nothing."""
        ...

    async def write(self, key: str, data: bytes, *, held_by: bytes | None = None) -> bytes | None:
        """Put something there.

        Args:
            key: of the place.
            data: what it is to hold.
            held_by: the operator who writes; ``None`` writes whoever has the place.

        Returns:
            Who has taken the place since that operator took it, empty if nobody knows, in which
            case nothing was written; ``None`` if it was.
        """
        ...

    async def announce(self, key: str, name: str, data: bytes) -> None:
        """Say something as a follower; it is forgotten after ``SILENT_S``."""
        ...

    async def retract(self, key: str, name: str) -> None:
        """Have it forgotten now."""
        ...

    async def announced(self, key: str) -> dict[str, bytes]:
        """What each follower said last."""
        ...

    async def hold(self, key: str, data: bytes, *, instead_of: bytes | None = None) -> bytes | None:
        """Take a place as an operator, for ``LEASE_S`` on a broker.

        Whoever took it before can neither renew nor write from then on, also when this one has let
        it go again.

        Args:
            key: of the place.
            data: who takes it; two that do say different things, also of one process.
            instead_of: who may be displaced.

        Returns:
            Who holds it in the way of that; ``None`` if it is held now.
        """
        ...

    async def renew(self, key: str, data: bytes) -> bytes | None:
        """Go on holding a place for another ``LEASE_S``, unless somebody took it in between.

        A lease that has ended is renewed if nobody did.

        Returns:
            As ``write``.
        """
        ...

    async def let_go(self, key: str, data: bytes) -> None:
        """No longer hold a place; nothing if somebody else holds it."""
        ...
