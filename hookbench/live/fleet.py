"""A fleet that follows places: it is told its phase one place after the other, gates between."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from hookbench.clock import NS_PER_S, Clock
from hookbench.decoding import decode_json
from hookbench.errors import HeldBackError, SettingError
from hookbench.live.boards import Boards
from hookbench.live.places import FILE, NATS, REDIS, Place, decode_step, encode_step
from hookbench.migration.announcements import announcement_of, read_announced
from hookbench.migration.phases import Phase
from hookbench.migration.snapshot import Announcement

__all__ = ["AskBetween", "LiveFleet", "PlaceState", "check_places"]

ROLES = ("producer", "worker")
_EVERY_S = 0.25

AskBetween = Callable[[Phase, Sequence[Announcement]], Awaitable[str]]
"""Looks at the brokers and at the fleet between two processes, while a phase is entered: what is
wrong, or nothing."""


class PlaceState(msgspec.Struct, frozen=True, kw_only=True):
    """A place, its phase, and who follows it."""

    role: str
    place: str
    index: int
    phase: str
    followers: tuple[str, ...]


def check_places(places: dict[str, list[Place]], target: Phase) -> None:
    """Refuse places that cannot carry a move.

    Raises:
        SettingError: a role has none, both have the same, or it is on a broker that is left.
    """
    for role, found in places.items():
        if not found:
            raise SettingError(f"no place of a {role}: give --{role}s, so that it can be told")
    if shared := {item.text for item in places["producer"]} & {
        item.text for item in places["worker"]
    }:
        raise SettingError(
            f"{min(shared)} is of producers and of workers: give each one of its own, for the one"
            " is told before the other"
        )
    left = {Phase.NATS_ONLY: REDIS, Phase.REDIS_ONLY: NATS}.get(target)
    for place in (item for found in places.values() for item in found):
        if place.kind == left:
            raise SettingError(
                f"{place.text} is on the broker that {target.label} leaves: let the fleet follow"
                " the other broker, or files"
            )


class LiveFleet:
    """Processes that somebody else started.

    Args:
        places: of producers and workers.
        boards: where the places are.
        printed: what processes print with ``--json``: files, or folders of ``*.jsonl``; for those
            that follow files.
        clock: for waits.
        patience_s: for a process to follow, and for the look between to find nothing wrong.
        between: see ``AskBetween``.
        tell: is told each place.
        write: tells a place, by default whoever holds it; see ``Hold.write``.
    """

    def __init__(
        self,
        places: dict[str, list[Place]],
        boards: Boards,
        *,
        printed: Sequence[Path],
        clock: Clock,
        patience_s: float,
        between: AskBetween | None = None,
        tell: Callable[[str], None] | None = None,
        write: Callable[[Place, bytes], Awaitable[None]] | None = None,
    ) -> None:
        self._write = write or self._write_unheld
        self._places = places
        self._boards = boards
        self._printed = printed
        self._clock = clock
        self._patience_s = patience_s
        self._between = between
        self._tell = tell or (lambda _text: None)
        self._said: list[Announcement] = []

    async def refresh(self) -> None:
        """Read again what the processes say.

        Raises:
            BrokerUnreachableError: a board does not answer.
        """
        found = await asyncio.to_thread(read_announced, self._printed)
        said = list(found)
        for role in ROLES:
            for place in self._places[role]:
                board = await self._boards.of(place)
                for name, data in (await board.announced(place.key)).items():
                    event = _decode(place, name, data)
                    announcement = announcement_of(name, role, event)
                    if announcement is not None:
                        said.append(announcement)
        self._said = said

    def announcements(self) -> list[Announcement]:
        """As they were read last."""
        return list(self._said)

    async def not_in(self, role: str, phase: Phase) -> list[str]:
        """Those that last announced another phase."""
        await self.refresh()
        return [item.name for item in self._said if item.role == role and item.phase is not phase]

    async def states(self) -> list[PlaceState]:
        """Every place as it is, in the order in which they are told.

        Raises:
            SettingError: one holds no phase.
        """
        await self.refresh()
        found = []
        for role in ROLES:
            for place in self._places[role]:
                index, phase = await self._read(place)
                found.append(
                    PlaceState(
                        role=role,
                        place=place.text,
                        index=index,
                        phase=phase.label,
                        followers=tuple(item.name for item in self._followers(place)),
                    )
                )
        return found

    async def enter(self, role: str, phase: Phase) -> None:
        """Tell one place after the other; who was told already is not told again.

        After each the process has to say that it is there, and the look between has to find nothing
        wrong, before the next one is told.

        Raises:
            HeldBackError: one does not follow, or something is wrong; those before it are there.
            SettingError: a place holds no phase.
            BrokerUnreachableError: a board does not answer.
        """
        steps = [await self._read(place) for each in ROLES for place in self._places[each]]
        newest = max(index for index, _phase in steps)
        # Both roles are to be in the same step, and so are those that a killed procedure left out.
        index = newest if (newest, phase) in steps else newest + 1
        for place in self._places[role]:
            await self.refresh()
            if (await self._read(place))[1] is phase and not self._behind(place, phase):
                continue
            before = [item.name for item in self._followers(place)]
            if (await self._read(place))[1] is not phase:
                await self._write(place, encode_step(index, phase))
                self._tell(f"{role}s at {place.text}: {phase.label}")
            await self._followed(role, place, phase, before)
            await self._look_between(role, place, phase)

    async def _write_unheld(self, place: Place, data: bytes) -> None:
        board = await self._boards.of(place)
        await board.write(place.key, data)

    async def _read(self, place: Place) -> tuple[int, Phase]:
        board = await self._boards.of(place)
        return decode_step(place, await board.read(place.key))

    def _followers(self, place: Place) -> list[Announcement]:
        return [item for item in self._said if item.follows == place.text]

    def _behind(self, place: Place, phase: Phase) -> list[str]:
        return [item.name for item in self._followers(place) if item.phase is not phase]

    async def _followed(self, role: str, place: Place, phase: Phase, before: list[str]) -> None:
        """Wait for those that follow a place; of a file they need not say that they do."""
        if not before and place.kind == FILE:
            return

        async def there() -> str:
            await self.refresh()
            if behind := self._behind(place, phase):
                return f"{', '.join(behind)} not in {phase.label}"
            return "" if self._followers(place) else f"nobody follows {place.text}"

        await self._wait(there, role, place)

    async def _look_between(self, role: str, place: Place, phase: Phase) -> None:
        between = self._between
        if between is None:
            return

        async def fine() -> str:
            await self.refresh()
            return await between(phase, self._said)

        await self._wait(fine, role, place)

    async def _wait(self, wrong: Callable[[], Awaitable[str]], role: str, place: Place) -> None:
        deadline_ns = self._clock.monotonic_ns() + int(self._patience_s * NS_PER_S)
        while why := await wrong():
            if self._clock.monotonic_ns() > deadline_ns:
                raise HeldBackError(
                    f"{role}s at {place.text}: {why}", step=f"reroute_{role}s", evidence=why
                )
            await self._clock.sleep(_EVERY_S)


def _decode(place: Place, name: str, data: bytes) -> dict[str, Any]:
    """What somebody said at a place, which any worker or producer may write to."""
    try:
        return decode_json(data, dict)
    except msgspec.MsgspecError as error:
        raise SettingError(f"{place.text}: {name[:100]!r} said what is no JSON: {error}") from error
