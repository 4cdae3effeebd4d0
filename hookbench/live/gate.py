"""The gate of a transition or rollback on live brokers: read, decide, and say why."""

from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from hookbench.brokers.sync_check import check_synced
from hookbench.clock import Clock
from hookbench.errors import BrokerUnsuitableError, SettingError
from hookbench.live.conditions import conditions_beyond
from hookbench.live.reasons import Reason, reasons_of
from hookbench.live.start import StartSequence, start_sequence
from hookbench.migration.checks import Answer, Check, GateBounds, Moment, Move, go_if, make_check
from hookbench.migration.gates import GateAnswer, conditions_of, decide, records_to
from hookbench.migration.phases import Phase
from hookbench.migration.snapshot import Announcement, Snapshot
from hookbench.migration.task_conditions import nobody_publishes
from hookbench.rehearsal.survey import BrokerSurvey

__all__ = ["LiveAnswer", "LiveCheck", "Looked", "SyncSettings", "ask_gate", "check_sample"]

_BETWEEN_LOOKS_S = 1.0
_EXACT = ("ids reconciled", "copies of finished tasks")
"""Conditions that compare both brokers: what a sample does not find may lie elsewhere."""

Announcements = Callable[[], Sequence[Announcement] | None]


class LiveCheck(msgspec.Struct, frozen=True, kw_only=True):
    """What one condition came to, and, where it is not ``go``, why that matters."""

    name: str
    answer: Answer
    evidence: str
    ids: tuple[str, ...] = ()
    reasons: tuple[Reason, ...] = ()


class Looked(msgspec.Struct, frozen=True, kw_only=True):
    """How much was read of what the brokers hold."""

    redis_read: int = 0
    redis_held: int = 0
    stream_read: int = 0
    stream_held: int = 0

    @property
    def text(self) -> str:
        """For a person."""
        return (
            f"read {self.redis_read} of {self.redis_held} entries of Redis lists,"
            f" {self.stream_read} of {self.stream_held} of the stream"
        )


class LiveAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a gate said.

    Attributes:
        start: for dual_write to dual_read: where the consumer is to start.
    """

    source: str
    target: str
    moment: Moment
    answer: Answer
    sampled: bool
    looked: Looked
    checks: tuple[LiveCheck, ...]
    start: StartSequence | None = None


class SyncSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the sync interval of JetStream is told, or what it is."""

    monitor_url: str | None = None
    interval_s: float | None = None


def check_sample(move: Move) -> None:
    """Refuse a sample where every task counts.

    Raises:
        SettingError: the text says where it does.
    """
    if move.target < move.source or move.moment is not Moment.BEFORE:
        raise SettingError(
            f"{move.label}: what is left is counted to the last task, and a sample cannot: leave"
            " --sample out; it is for the gates before a transition"
        )


async def ask_gate(
    survey: BrokerSurvey,
    move: Move,
    announcements: Announcements,
    *,
    clock: Clock,
    bounds: GateBounds | None = None,
    sync: SyncSettings | None = None,
) -> LiveAnswer:
    """Look at the brokers once, or twice where a condition is about what comes in between.

    Args:
        survey: of the brokers, over connections that only read.
        move: what is asked about.
        announcements: what the processes say of themselves.
        clock: for the pause between two looks.
        bounds: of the conditions.
        sync: for moves after which JetStream alone has the tasks.

    Raises:
        SettingError: there is no such gate.
    """
    bounds = bounds or GateBounds()
    conditions = conditions_of(move)
    look = partial(
        survey.look,
        records_to=records_to(move),
        whole=move.moment is Moment.AFTER or move.target < move.source,
    )
    snapshot = await look(announcements())
    if snapshot.nats is not None and nobody_publishes in conditions:
        await clock.sleep(_BETWEEN_LOOKS_S)
        snapshot = await look(announcements(), earlier_sequence=snapshot.nats.last_sequence)
    decided = decide(snapshot, move, bounds)
    beyond = [condition(snapshot, move, bounds) for condition in conditions_beyond(move)]
    if sync is not None and move.target >= Phase.NATS_PRIMARY and move.moment is Moment.BEFORE:
        beyond += await _synced(sync)
    return _with_reasons(decided, beyond, snapshot, move, bounds)


async def _synced(sync: SyncSettings) -> list[Check]:
    """Nothing where nobody says how to find out (hazard N10)."""
    if sync.monitor_url is None and sync.interval_s is None:
        return []
    name = "sync interval"
    try:
        report = await check_synced(sync.monitor_url, sync.interval_s)
    except BrokerUnsuitableError as error:
        return [make_check(name, Answer.NO_GO, str(error))]
    if report.interval_s is None:
        return [make_check(name, Answer.UNKNOWN, report.text)]
    told = f"synced every {report.interval_s:g} s" if report.interval_s else "synced always"
    return [make_check(name, go_if(True), f"{told} ({report.text})")]


def _with_reasons(
    decided: GateAnswer,
    beyond: Sequence[Check],
    snapshot: Snapshot,
    move: Move,
    bounds: GateBounds,
) -> LiveAnswer:
    looked, sampled = _looked(snapshot), _is_sampled(snapshot)
    checks = []
    for check in (*decided.checks, *beyond):
        answer, evidence = check.answer, check.evidence
        if sampled and answer is Answer.NO_GO and check.name in _EXACT:
            answer = Answer.UNKNOWN
            evidence += "; not found where they should be: ask without --sample"
        judged = msgspec.structs.replace(check, answer=answer)
        checks.append(
            LiveCheck(
                name=check.name,
                answer=answer,
                evidence=f"{evidence} (of a sample)" if sampled else evidence,
                ids=check.ids,
                reasons=reasons_of(judged, snapshot, move),
            )
        )
    entering = (move.source, move.target) == (Phase.DUAL_WRITE, Phase.DUAL_READ)
    return LiveAnswer(
        source=move.source.label,
        target=move.target.label,
        moment=move.moment,
        answer=_all_of([check.answer for check in checks]),
        sampled=sampled,
        looked=looked,
        checks=tuple(checks),
        start=start_sequence(snapshot, bounds) if entering else None,
    )


def _all_of(answers: Sequence[Answer]) -> Answer:
    for answer in (Answer.NO_GO, Answer.UNKNOWN):
        if answer in answers:
            return answer
    return Answer.GO


def _is_sampled(snapshot: Snapshot) -> bool:
    views = (snapshot.redis, snapshot.nats)
    return any(view is not None and view.sampled for view in views)


def _looked(snapshot: Snapshot) -> Looked:
    redis, nats = snapshot.redis, snapshot.nats
    return Looked(
        redis_read=0 if redis is None else len(redis.pending) + len(redis.work) + redis.junk,
        redis_held=0 if redis is None else redis.held,
        stream_read=0 if nats is None else sum(nats.types.values()),
        stream_held=0 if nats is None else nats.messages,
    )
