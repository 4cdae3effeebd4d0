"""Who has to follow a change of phase: the workers of the fleet, and the processes of Locust."""

from collections.abc import Callable

import msgspec
from _protocol import Enter, Entered

from hookbench.migration.phases import Phase, parse_phase
from hookbench.migration.snapshot import Announcement
from hookbench.rehearsal.fleet import Fleet
from hookbench.rehearsal.gated import FleetPhases

__all__ = ["Everybody", "Producers", "Say"]

Say = Callable[[msgspec.Struct], None]
"""Is told what Locust has to know."""


class Producers:
    """The processes of Locust that have users, as far as a change of phase needs them."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._present: list[str] = []
        self._entered: dict[str, Entered] = {}

    def be(self, names: list[str]) -> None:
        """These there are."""
        self._present = names

    def hear(self, entered: Entered) -> None:
        """One has entered a step."""
        self._entered[entered.producer] = entered

    def enter(self, index: int, phase: Phase) -> None:
        """Tell them all."""
        self._say(Enter(index=index, phase=phase.label))

    def not_in(self, index: int, phase: Phase) -> list[str]:
        """Those that have not said that they are in a step."""
        found = {name: self._entered.get(name) for name in self._present}
        wanted = (index, phase.label)
        return [
            name
            for name, said in found.items()
            if said is None or (said.index, said.phase) != wanted
        ]

    def announcements(self) -> list[Announcement]:
        """Of those that have said what they are."""
        return [
            Announcement(
                name=name,
                role="producer",
                phase=parse_phase(said.phase),
                version=said.version,
                measures=said.measures,
            )
            for name in self._present
            if (said := self._entered.get(name)) is not None
        ]


class Everybody(FleetPhases):
    """Workers and producers in one step, as procedures and gates see them."""

    def __init__(self, fleet: Fleet, index: int, producers: Producers) -> None:
        super().__init__(fleet, index, hooks=None, measures="")
        self._step = index
        self._producers = producers

    async def enter(self, role: str, phase: Phase) -> None:
        """Tell a role its phase."""
        if role == "producer":
            self._producers.enter(self._step, phase)
        else:
            await super().enter(role, phase)

    async def not_in(self, role: str, phase: Phase) -> list[str]:
        """Those that are behind."""
        if role == "producer":
            return self._producers.not_in(self._step, phase)
        return await super().not_in(role, phase)

    def announcements(self) -> list[Announcement]:
        """Of both roles."""
        return [*super().announcements(), *self._producers.announcements()]
