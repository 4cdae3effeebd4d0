"""The operator of a simulated fleet: takes it from phase to phase by the procedures, through gates.

He starts a process for each move, as ``hookbench move`` is one. It may be killed at any step, and
is started again: the progress file tells it where to go on.
"""

import asyncio
from typing import TYPE_CHECKING

from hookbench.errors import HeldBackError, HookbenchError
from hookbench.ledger.events import LedgerWriter
from hookbench.migration.announcements import announcement_of
from hookbench.migration.gates import is_known
from hookbench.migration.phases import Phase
from hookbench.migration.reconcile import Patience
from hookbench.migration.snapshot import Announcement
from hookbench.rehearsal.gated import GatedChanges, open_done_stores
from hookbench.sim.errors import SimulationError
from hookbench.task import Names

if TYPE_CHECKING:
    from hookbench.sim.migration import SimulatedSite

__all__ = ["change_phase"]

_PATIENCE = Patience(gate_s=120.0, announce_s=60.0)
"""That of a rehearsal with faults: a gate has to wait until they are over."""
_AGAIN_S = 0.5
_MAX_STARTS = 200


class _ToldFleet:
    """Producers and workers of a site, in one step of its timeline: ``AskedFleet``."""

    def __init__(self, site: "SimulatedSite", index: int) -> None:
        self._site = site
        self._index = index

    async def enter(self, role: str, phase: Phase) -> None:
        """Write the phase file of a role, also for who takes a place that is empty now."""
        self._site.enter_role(role, self._index, phase)

    async def not_in(self, role: str, phase: Phase) -> list[str]:
        """Those that have not said that they are in this step, and in that phase of it."""
        wanted = (self._index, phase.label)
        return [
            name
            for name, said in self._site.said_by(role)
            if (said.get("index"), said.get("phase")) != wanted
        ]

    async def refresh(self) -> None:
        """What they said is there at once."""

    def announcements(self) -> list[Announcement]:
        """Of all that have said something."""
        return [
            announcement
            for role in ("producer", "worker")
            for name, said in self._site.said_by(role)
            if (announcement := announcement_of(name, role, said)) is not None
        ]


async def change_phase(site: "SimulatedSite", index: int) -> str:
    """Enter a phase of the timeline by its procedure; why not, if something holds it back.

    Args:
        site: whose fleet and brokers.
        index: of the phase; from the one before there is a procedure, or all are told at once.
    """
    source, target = site.plan.phases[index - 1 : index + 1]
    if not is_known(source, target):
        site.enter(index, target)
        return ""

    async def main(ledger: LedgerWriter) -> None:
        await _carry_out(site, index, ledger)

    for number in range(_MAX_STARTS):
        if number:
            await site.clock.sleep(_AGAIN_S)
            site.note(f"the operator goes on with {target.label}")
        task = site.start_operator(main)
        error = await _end_of(site, task)
        if error is None:
            return ""
        if isinstance(error, HeldBackError):
            site.note(f"held back: {error}")
            return str(error)
        site.note(f"the operator ended: {type(error).__name__}: {error}")
    return f"{source.label} to {target.label}: the operator was started {_MAX_STARTS} times"


async def _end_of(site: "SimulatedSite", task: "asyncio.Task[None]") -> Exception | None:
    """How the operator's process ended, ``None`` for well.

    Raises:
        BaseException: it failed in another way than a procedure may.
    """
    process = site.operator
    assert process is not None
    killed: asyncio.Future[None] = site.loop.create_future()
    process.on_killed.append(lambda: killed.set_result(None))
    await asyncio.wait({task, killed}, return_when=asyncio.FIRST_COMPLETED)
    site.forget_operator()
    if killed.done():
        return SimulationError("it was killed")
    error = task.exception()
    if error is None or isinstance(error, HookbenchError | OSError):
        return error
    raise error


async def _carry_out(site: "SimulatedSite", index: int, ledger: LedgerWriter) -> None:
    """What the operator's process does."""
    source, target = site.plan.phases[index - 1 : index + 1]
    changes = GatedChanges(
        *site.urls,
        Names(),
        stream=site.stream,
        clock=site.clock,
        folder=site.folder,
        open_stores=open_done_stores(site.measures, site.stream, site.clock),
        patience=_PATIENCE,
        recorder=ledger,
        say=site.note,
        dialer=site.dialer("operator"),
    )
    try:
        await changes.change(index, source, target, _ToldFleet(site, index))
    finally:
        await changes.close()
