"""Changes of phase by procedure: the gates are asked, and what they say is kept."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from hookbench import __version__
from hookbench.clock import Clock
from hookbench.ledger.events import Recorder
from hookbench.migration.announcements import announcement_of
from hookbench.migration.checks import GateBounds, Moment, Move
from hookbench.migration.gates import GateAnswer, decide, records_to
from hookbench.migration.measures import Measures
from hookbench.migration.phases import Phase, PhaseFile
from hookbench.migration.reconcile import FleetControl, Patience, Procedure, Progress
from hookbench.migration.snapshot import Announcement
from hookbench.queues.dialing import NETWORK, Dialer
from hookbench.queues.jetstream import StreamSettings
from hookbench.queues.moving import AreDone, Assure, Mover, MoveRecords, nobody_else
from hookbench.queues.redis_client import RedisClient
from hookbench.queues.replica_wait import replicas_of
from hookbench.queues.transport import AppTransport
from hookbench.rehearsal.done_stores import BothStores
from hookbench.rehearsal.fleet import Fleet, Member
from hookbench.rehearsal.stage import Stage
from hookbench.rehearsal.survey import BrokerSurvey, FindUnmoved
from hookbench.results.store import GateRecord
from hookbench.task import Names

__all__ = [
    "AskedFleet",
    "DoneStores",
    "FleetPhases",
    "GatedChanges",
    "OpenStores",
    "open_changes",
    "open_done_stores",
]


class AskedFleet(FleetControl, Protocol):
    """Processes that also say what they are."""

    async def refresh(self) -> None:
        """Ask them again, where they have to be asked."""
        ...

    def announcements(self) -> list[Announcement]:
        """Of all that run, and have said it."""
        ...


class FleetPhases:
    """The processes of a fleet and the git hooks, in one step of a timeline.

    Args:
        fleet: the processes.
        index: of the step that begins.
        hooks: phase file of the git hooks, ``None`` without any.
        measures: of the hooks.
    """

    def __init__(self, fleet: Fleet, index: int, *, hooks: Path | None, measures: str) -> None:
        self._fleet = fleet
        self._index = index
        self._hooks = None if hooks is None else PhaseFile(hooks)
        self._measures = measures

    def _members(self, role: str) -> list[Member]:
        return [
            member
            for member in self._fleet.of(role)
            if not member.expected_end and member.said.get("event") != "stopped"
        ]

    async def enter(self, role: str, phase: Phase) -> None:
        """Write the phase files; also of a process that has just died, for the next one."""
        self._fleet.poll()
        if role == "producer" and self._hooks is not None:
            self._hooks.write(self._index, phase)
        for member in self._fleet.of(role):
            if not member.expected_end:
                self._fleet.enter(member, self._index, phase)

    async def not_in(self, role: str, phase: Phase) -> list[str]:
        """Those that have not said that they are in this step, and in that phase of it."""
        self._fleet.poll()
        wanted = (self._index, phase.label)
        return [
            member.name
            for member in self._members(role)
            if (member.said.get("index"), member.said.get("phase")) != wanted
        ]

    async def refresh(self) -> None:
        """They are polled when they are asked."""

    def announcements(self) -> list[Announcement]:
        """Of producers, workers and hooks."""
        self._fleet.poll()
        found = [
            announcement
            for role in ("producer", "worker")
            for member in self._members(role)
            if (announcement := announcement_of(member.name, role, member.said)) is not None
        ]
        if self._hooks is not None:
            _index, phase = self._hooks.read()
            found.append(
                Announcement(
                    name="hooks",
                    role="producer",
                    phase=phase,
                    version=__version__,
                    measures=self._measures,
                )
            )
        return found


class DoneStores(msgspec.Struct, frozen=True, kw_only=True):
    """What gates and moves ask of the done-stores; each ``None`` where there is nobody to ask.

    Attributes:
        are_done: which of these tasks have ended, by whichever store is the authority.
        move_records: copies what one store knows to the other one.
        unmoved: what one store knows and the other one does not.
    """

    are_done: AreDone | None = None
    move_records: MoveRecords | None = None
    unmoved: FindUnmoved | None = None


OpenStores = Callable[[RedisClient, AppTransport], DoneStores]
"""Opens the done-stores of a queue over connections that its caller closes."""


class GatedChanges:
    """Carries changes of phase out, each as the procedure of its transition or rollback.

    Args:
        redis_url, nats_url: the brokers themselves, past any proxy.
        names: of the queue.
        stream: as it should be.
        clock: of everything.
        folder: of the progress files.
        open_stores: opens the done-stores on both brokers; ``None`` without any.
        bounds: of the gates.
        patience: of the procedures.
        recorder: of the moves.
        say: is told each step.
        dialer: opens the connections.
        assure: is asked before anything is changed; it raises where that must not be any more.

    Attributes:
        records: what the gates said.
    """

    def __init__(
        self,
        redis_url: str,
        nats_url: str,
        names: Names,
        *,
        stream: StreamSettings,
        clock: Clock,
        folder: Path,
        open_stores: OpenStores | None = None,
        bounds: GateBounds | None = None,
        patience: Patience | None = None,
        recorder: Recorder | None = None,
        say: Callable[[str], None] | None = None,
        dialer: Dialer = NETWORK,
        assure: Assure = nobody_else,
    ) -> None:
        self._assure = assure
        self._redis_url = redis_url
        self._dialer = dialer
        self._redis = dialer.redis(redis_url)
        self._nats_url = nats_url
        self._names = names
        self._clock = clock
        self._folder = folder
        self._stream = stream
        self._open_stores = open_stores
        self._bounds = bounds or GateBounds()
        self._patience = patience
        self._recorder = recorder
        self._say = say or (lambda _text: None)
        self._transport: AppTransport | None = None
        self._tools: tuple[BrokerSurvey, Mover] | None = None
        self.records: list[GateRecord] = []

    async def change(
        self,
        index: int,
        source: Phase,
        target: Phase,
        fleet: AskedFleet,
        *,
        progress: Path | None = None,
    ) -> Progress:
        """Go from one phase to another; what was done, by the file of the progress.

        Args:
            index: of the step that begins.
            source: the phase that is left.
            target: the one that is entered.
            fleet: whom to tell.
            progress: file of the progress, by default one of the step in the folder.

        Raises:
            HeldBackError: a gate says no, or a process does not follow.
            HookbenchError: a broker does not answer.
        """
        survey, mover = await self._open()

        async def ask(move: Move, earlier_sequence: int) -> GateAnswer:
            await fleet.refresh()
            snapshot = await survey.look(
                fleet.announcements(),
                earlier_sequence=earlier_sequence,
                records_to=records_to(move),
                whole=move.moment is Moment.AFTER or move.target < move.source,
            )
            answer = decide(snapshot, move, self._bounds)
            self._keep(index, answer)
            return answer

        return await Procedure(
            source,
            target,
            fleet=fleet,
            movers=mover,
            ask=ask,
            progress=progress or self._folder / f"procedure-{index}.json",
            clock=self._clock,
            patience=self._patience,
            tell=self._say,
            assure=self._assure,
        ).run()

    async def _open(self) -> tuple[BrokerSurvey, Mover]:
        """What looks and what moves, over connections of their own."""
        if self._tools is not None:
            return self._tools
        self._transport = await self._dialer.nats(
            self._nats_url, names=self._names, clock=self._clock
        )
        stores = DoneStores()
        if self._open_stores is not None:
            stores = self._open_stores(self._redis, self._transport)
        survey = BrokerSurvey(
            self._redis_url,
            self._nats_url,
            self._names,
            clock=self._clock,
            stream=self._stream,
            are_done=stores.are_done,
            unmoved=stores.unmoved,
            dialer=self._dialer,
        )
        mover = Mover(
            self._redis,
            self._transport,
            clock=self._clock,
            are_done=stores.are_done,
            move_records=stores.move_records,
            settle_s=self._bounds.settle_s,
            recorder=self._recorder,
            replicas=replicas_of(self._redis_url),
            assure=self._assure,
        )
        self._tools = survey, mover
        return self._tools

    def _keep(self, index: int, answer: GateAnswer) -> None:
        record = GateRecord(
            time_ns=self._clock.monotonic_ns(),
            step=index,
            source=answer.source,
            target=answer.target,
            moment=answer.moment,
            answer=answer.answer,
            asked=1,
            checks=list(answer.checks),
        )
        last = self.records[-1] if self.records else None
        if last is not None and _same(last, record):
            self.records[-1] = msgspec.structs.replace(
                record, time_ns=last.time_ns, asked=last.asked + 1
            )
        else:
            self.records.append(record)

    async def close(self) -> None:
        """Disconnect."""
        if self._tools is not None:
            await self._tools[0].close()
        if self._transport is not None:
            await self._transport.close()
        await self._redis.aclose()


def open_done_stores(measures: Measures, stream: StreamSettings, clock: Clock) -> OpenStores:
    """How the done-stores of a run are opened; without that measure there are none."""

    def opened(redis: RedisClient, transport: AppTransport) -> DoneStores:
        if not measures.done_store:
            return DoneStores()
        both = BothStores(redis, transport, stream=stream, clock=clock)
        return DoneStores(
            are_done=both.are_done, move_records=both.move_records, unmoved=both.unmoved
        )

    return opened


def open_changes(
    measures: Measures,
    stage: Stage,
    folder: Path,
    *,
    clock: Clock,
    recorder: Recorder,
    has_faults: bool,
    say: Callable[[str], None] | None = None,
) -> GatedChanges | None:
    """The changes of a run with gates, straight to its brokers; ``None`` for one without.

    Args:
        measures: of the run.
        stage: its brokers.
        folder: of the progress files.
        clock: of everything.
        recorder: of the moves.
        has_faults: whether some may meet a procedure: a gate has to wait until they are over.
        say: is told each step.
    """
    if not measures.gates:
        return None
    return GatedChanges(
        stage.redis_url,
        stage.nats_url,
        stage.names,
        stream=stage.stream,
        clock=clock,
        folder=folder,
        open_stores=open_done_stores(measures, stage.stream, clock),
        patience=Patience(gate_s=120.0, announce_s=60.0) if has_faults else None,
        recorder=recorder,
        say=say,
    )


def _same(one: GateRecord, other: GateRecord) -> bool:
    return (one.step, one.moment, one.answer) == (other.step, other.moment, other.answer)
