"""A transition or rollback on a live fleet: a plan, and its procedure, which can be resumed."""

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from hookbench.clock import Clock
from hookbench.errors import HeldBackError, SettingError
from hookbench.ids import system_entropy
from hookbench.ledger.events import Recorder
from hookbench.live.conditions import consumers_have_room
from hookbench.live.fleet import AskBetween, LiveFleet, PlaceState
from hookbench.live.gate import LiveAnswer, ask_gate
from hookbench.migration.checks import Answer, Check, GateBounds, Moment, Move, go_if, make_check
from hookbench.migration.fleet_conditions import both_answer, few_redeliveries, head_room
from hookbench.migration.gates import is_known
from hookbench.migration.measures import Measures
from hookbench.migration.phases import Phase
from hookbench.migration.procedures import JOINED, PROCEDURES, Step
from hookbench.migration.reconcile import Patience, Progress, read_progress
from hookbench.migration.snapshot import Announcement, Snapshot
from hookbench.queues.jetstream import StreamSettings
from hookbench.queues.moving import Assure, nobody_else
from hookbench.rehearsal.done_stores import OpenedStores
from hookbench.rehearsal.gated import GatedChanges, open_done_stores
from hookbench.rehearsal.survey import BrokerSurvey, Sample
from hookbench.task import Names

__all__ = ["Migration", "Plan", "Site", "plan_of", "turn_round"]

_SAMPLE = 10
"""Tasks of a list that are read between two processes: what is looked at is not the tasks."""


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """The brokers of a migration, and what the queue is called there."""

    redis_url: str
    nats_url: str
    names: Names
    stream: StreamSettings


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a migration would do, or go on with.

    Attributes:
        done, left: names of the steps.
        places: in the order in which they are told.
        gate: what the gate before says now; ``None`` where it was passed already.
    """

    source: str
    target: str
    done: tuple[str, ...]
    left: tuple[str, ...]
    places: tuple[PlaceState, ...]
    gate: LiveAnswer | None = None


def turn_round(path: Path, source: Phase, target: Phase) -> tuple[Phase, Phase]:
    """Give an unfinished move up for the way back; the phases of that one.

    The progress of the move is replaced by that of its rollback, which moves whatever the part that
    was done has brought forward. Called again it is found begun.

    Raises:
        SettingError: the file is of another move, or there is no such way back.
    """
    found = read_progress(path)
    way, turned = _turned(path, found, (source, target))
    if found is not None and turned is None:
        path.unlink()
    return way


def _turned(
    path: Path, found: Progress | None, way: tuple[Phase, Phase]
) -> tuple[tuple[Phase, Phase], Progress | None]:
    """The way back, and how far that one came already."""
    source, target = way
    if not is_known(target, source):
        raise SettingError(
            f"from {target.label} to {source.label}: no such transition or rollback, so this move"
            " is finished, and then left by another one"
        )
    back = (target.label, source.label)
    if found is not None and (found.source, found.target) not in (back, back[::-1]):
        raise SettingError(
            f"progress file {path} is of {found.source} to {found.target}: finish that one first"
        )
    begun = found is not None and (found.source, found.target) == back
    return (target, source), found if begun else None


async def plan_of(
    site: Site,
    way: tuple[Phase, Phase],
    fleet: LiveFleet,
    progress: Path,
    *,
    clock: Clock,
    settle_s: float,
    back: bool = False,
) -> Plan:
    """What is to be done, and what the gate before it says; nothing is changed.

    With ``back`` it is the way back of an unfinished move, see ``turn_round``.

    Raises:
        SettingError: there is no such move, the progress is of another one, or a place holds no
            phase.
    """
    found = read_progress(progress)
    if back:
        way, found = _turned(progress, found, way)
    source, target = way
    if not is_known(source, target):
        raise SettingError(f"from {source.label} to {target.label}: no such procedure")
    found = found or Progress(source=source.label, target=target.label)
    if (found.source, found.target) != (source.label, target.label):
        raise SettingError(
            f"progress file {progress} is of {found.source} to {found.target}: finish that one"
            " first, turn it round with --back, or remove the file"
        )
    places = await fleet.states()
    gate = None
    if Step.ASK_BEFORE.value not in found.done:
        gate = await _ask_before(site, way, fleet, clock=clock, settle_s=settle_s)
    return Plan(
        source=source.label,
        target=target.label,
        done=tuple(found.done),
        left=tuple(step.value for step in PROCEDURES[way] if step.value not in found.done),
        places=tuple(places),
        gate=gate,
    )


async def _ask_before(
    site: Site, way: tuple[Phase, Phase], fleet: LiveFleet, *, clock: Clock, settle_s: float
) -> LiveAnswer:
    stores = OpenedStores(
        site.redis_url, site.nats_url, site.names, stream=site.stream, clock=clock, reads_only=True
    )
    claims = has_done_store(fleet.announcements())
    survey = BrokerSurvey(
        site.redis_url,
        site.nats_url,
        site.names,
        clock=clock,
        stream=site.stream,
        are_done=stores.are_done if claims else None,
        unmoved=stores.unmoved if claims else None,
        reads_only=True,
    )
    move = Move(source=way[0], target=way[1], moment=Moment.BEFORE)
    try:
        return await ask_gate(
            survey, move, fleet.announcements, clock=clock, bounds=GateBounds(settle_s=settle_s)
        )
    finally:
        await survey.close()
        await stores.close()


def has_done_store(announcements: Sequence[Announcement]) -> bool:
    """Whether workers claim; of a fleet that has stopped nobody says that it has none."""
    workers = [item for item in announcements if item.role == "worker"]
    return not workers or any(item.has("done_store") for item in workers)


class Between:
    """The look between two processes of a rolling change.

    Args:
        site: the brokers.
        way: the phases of the move.
        clock: of the look.
        bounds: of the conditions.
    """

    def __init__(
        self, site: Site, way: tuple[Phase, Phase], *, clock: Clock, bounds: GateBounds
    ) -> None:
        self._way = way
        self._bounds = bounds
        self._survey = BrokerSurvey(
            site.redis_url,
            site.nats_url,
            site.names,
            clock=clock,
            reads_only=True,
            sample=Sample(count=_SAMPLE, entropy=system_entropy()),
        )

    async def ask(self, phase: Phase, announcements: Sequence[Announcement]) -> str:
        """What is wrong, or nothing; see ``fleet.AskBetween``."""
        snapshot = await self._survey.look(announcements)
        source, target = self._way
        move = Move(source=source, target=target, moment=Moment.BEFORE)
        joins = Step.JOIN_WORKERS in PROCEDURES[self._way]
        allowed = {source, target, phase} | ({JOINED} if joins else set())
        checks = [
            both_answer(snapshot, move, self._bounds),
            head_room(snapshot, move, self._bounds),
            _planned_phases(snapshot, allowed),
        ]
        if target > source:
            checks += [
                few_redeliveries(snapshot, move, self._bounds),
                consumers_have_room(snapshot, move, self._bounds),
            ]
        return "; ".join(
            f"{check.name} {check.answer}: {check.evidence}"
            for check in checks
            if check.answer is not Answer.GO
        )

    async def close(self) -> None:
        """Disconnect."""
        await self._survey.close()


def _planned_phases(snapshot: Snapshot, allowed: set[Phase]) -> Check:
    """While a fleet changes, each process is where the move begins or leads to."""
    name = "fleet on its way"
    strays = [item for item in snapshot.announcements or () if item.phase not in allowed]
    told = ", ".join(f"{item.name} in {item.phase.label}" for item in strays)
    return make_check(name, go_if(not strays), told or "all where the move begins or leads to")


class Migration:
    """Carries a move out.

    Args:
        site: the brokers.
        way: the phases.
        progress: the file that a killed move is resumed by.
        clock: of everything.
        patience_s: for a gate to say go, and for a process to follow.
        settle_s: for which a task may be on its way to a broker.
        recorder: of what is put.
        tell: is told each step.
        assure: is asked before anything is changed, see ``Hold.assure``.
    """

    def __init__(
        self,
        site: Site,
        way: tuple[Phase, Phase],
        progress: Path,
        *,
        clock: Clock,
        patience_s: float,
        settle_s: float,
        recorder: Recorder | None = None,
        tell: Callable[[str], None] | None = None,
        assure: Assure = nobody_else,
    ) -> None:
        self._assure = assure
        self._site = site
        self._way = way
        self._progress = progress
        self._clock = clock
        self._patience = Patience(gate_s=patience_s, announce_s=patience_s)
        self._bounds = GateBounds(settle_s=settle_s)
        self._recorder = recorder
        self._tell = tell
        self._between = Between(site, way, clock=clock, bounds=self._bounds)

    @property
    def between(self) -> AskBetween:
        """For the fleet."""
        return self._between.ask

    async def run(self, fleet: LiveFleet) -> Progress:
        """Do what is not done yet, and remove the progress.

        Raises:
            HeldBackError: a gate says no, or a process does not follow; called again it goes on.
        """
        await fleet.refresh()
        if not fleet.announcements():
            raise HeldBackError(
                "no process says what it is: start the fleet, or give --announced",
                step=Step.ASK_BEFORE.value,
                evidence="nobody announced itself",
            )
        claims = has_done_store(fleet.announcements())
        changes = GatedChanges(
            self._site.redis_url,
            self._site.nats_url,
            self._site.names,
            stream=self._site.stream,
            clock=self._clock,
            folder=self._progress.parent,
            open_stores=open_done_stores(
                Measures(done_store=claims), self._site.stream, self._clock
            ),
            bounds=self._bounds,
            patience=self._patience,
            recorder=self._recorder,
            say=self._tell,
            assure=self._assure,
        )
        try:
            done = await changes.change(0, *self._way, fleet, progress=self._progress)
        finally:
            await changes.close()
        await self._assure()
        self._progress.unlink()
        return done

    async def close(self) -> None:
        """Disconnect."""
        await self._between.close()
