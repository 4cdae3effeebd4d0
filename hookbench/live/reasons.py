"""Why a condition that does not hold matters: the hazards behind it, and what to do."""

from collections.abc import Callable

import msgspec

from hookbench.migration.checks import Answer, Check, Move
from hookbench.migration.phases import Phase
from hookbench.migration.snapshot import Snapshot

__all__ = ["Reason", "reasons_of"]


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """One hazard whose precondition was found.

    Attributes:
        hazard: its row in docs/hazards.md; empty for what is none of them.
        harm: what would happen.
        remedy: what to do before the gate is asked again.
    """

    hazard: str
    harm: str
    remedy: str


def _reason(hazard: str, harm: str, remedy: str) -> Reason:
    return Reason(hazard=hazard, harm=harm, remedy=remedy)


_P1 = _reason(
    "P1",
    "what an old producer puts into Redis alone is read by nobody once the workers read NATS",
    "bring every producer into the phase that is left, then reconcile (hookbench reconcile)",
)
_P2 = _reason(
    "P2",
    "NATS did not take tasks that Redis took: accepted, and missing once NATS is read",
    "publish them with their ids: hookbench reconcile --once",
)
_P3 = _reason(
    "P3",
    "NATS took tasks that Redis did not: nobody works on them once Redis is read alone",
    "bring them back to Redis: hookbench migrate does, from what the stream alone has",
)
_P5 = _reason(
    "P5",
    "a consumer that delivers all gives out again what Redis workers have done",
    "start the consumer at the start sequence, or have every worker use epoch_consumer or"
    " done_store",
)
_NOT_KNOWN = _reason(
    "P5",
    "nobody can tell what Redis workers have done from what is still to be done",
    "start every worker with --measures all (or done_store), which keeps that, before dual_write"
    " begins; the gate then asks it",
)
_NOT_ASKED = _reason(
    "P5",
    "nobody can tell what Redis workers have done from what is still to be done",
    "ask with --done-store: the workers keep that",
)
_NO_RECORD = _reason(
    "P5",
    "NATS delivers them: those that Redis workers did before they kept records are done again",
    "reconcile (hookbench reconcile --once, or the measure): each then gets its record, and those"
    " of them are done again now; or wait until max-age has removed them",
)
_B1 = _reason(
    "B1",
    "on a second entry the stream still has the history of the first one, and replays it",
    "start the consumer at the start sequence; the old one is behind it",
)
_P6 = _reason(
    "P6",
    "what is left in the pending lists of Redis is not read any more",
    "let the workers finish it, or have every worker use read_both",
)
_R3 = _reason(
    "R3",
    "what a worker that died left in a work list is read by nobody",
    "ask again, for a worker may have it in hand; what stays is put back (measure leases has it"
    " done), or by whoever sees whose list it is",
)
_P7 = _reason(
    "P7",
    "a task that waits for longer than the stream's max-age vanishes without a word",
    "find out why nobody works on it; raise max-age until it is done",
)
_P12 = _reason(
    "P12",
    "workers of two kinds serve one queue: an old one sees nothing of what NATS alone has",
    "bring all workers to one version, one set of measures and the phase that is left",
)
_C1 = _reason(
    "C1",
    "what is left in a list of Redis goes with Redis",
    "move it: hookbench migrate does; dead letters by hookbench dead",
)
_AUTHORITY = _reason(
    "C1",
    "what only one done-store knows as done runs again once the other one is asked alone",
    "copy the records: hookbench migrate does, and asks again",
)
_B2 = _reason(
    "B2",
    "Redis still holds tasks that are finished, and its readers run them again",
    "trim them (measure trim), or have every worker use done_store",
)
_B3 = _reason(
    "B3",
    "what NATS alone has is stranded when nobody reads it any more",
    "let it be drained, and stop who still publishes: hookbench migrate brings the rest back",
)
_R6 = _reason(
    "R6",
    "at its limit Redis refuses reads that move a task, or evicts the whole queue",
    "raise maxmemory or drain, and set maxmemory-policy noeviction",
)
_FULL = _reason(
    "R6",
    "a stream at its limit refuses tasks, or drops the oldest",
    "raise the limits of the stream, or drain it",
)
_N3 = _reason(
    "N3",
    "tasks that are given out again and again come to max-deliver, and are then given to nobody",
    "find the failing handler or the AckWait that is too short; raise max-deliver",
)
_N5 = _reason(
    "N5",
    "a consumer with as many open deliveries as it allows starves every other worker",
    "find the worker that acknowledges nothing; raise max-ack-pending",
)
_N8 = _reason(
    "N8",
    "clients ignore settings that differ from those of an existing stream or consumer",
    "edit the stream or consumer, or start workers and gate with its settings",
)
_N10 = _reason(
    "N10",
    "what JetStream acknowledged since its last sync goes with a power cut",
    "set sync_interval of the jetstream block to always, or to 10s or less",
)
_T1 = _reason(
    "T1",
    "tasks of a type that no consumer takes stay until max-age",
    "make a consumer for each type, or have workers do so (consumer_per_type)",
)
_S1 = _reason(
    "S1",
    "a task over max_payload is on Redis alone",
    "raise max_payload of the NATS server, or have its producer send less",
)
_HEARD = (
    "say where they are heard: --{0}s with the place that they follow (--phase-at), or --announced"
    " with what they print with --json"
)
_AWAY = _reason("", "nobody can tell what a broker holds", "give its URL, and see that it answers")

Choose = Callable[[Check, Snapshot, Move], tuple[Reason, ...]]


def _fleet(reason: Reason, role: str) -> Choose:
    """Of processes that nobody has heard it is not known whether anything is wrong."""
    unheard = msgspec.structs.replace(reason, remedy=_HEARD.format(role))
    return lambda check, _snapshot, _move: (
        (unheard,) if check.answer is Answer.UNKNOWN else (reason,)
    )


def _watermark(check: Check, snapshot: Snapshot, _move: Move) -> tuple[Reason, ...]:
    if check.answer is not Answer.UNKNOWN:
        return (_P5, _B1)
    if snapshot.redis is None or snapshot.nats is None:
        return (_AWAY,)
    return (_NOT_ASKED if snapshot.every_worker_has("done_store") else _NOT_KNOWN,)


def _backlog(_check: Check, snapshot: Snapshot, move: Move) -> tuple[Reason, ...]:
    """What of it the workers will not read on."""
    if snapshot.redis is None:
        return (_AWAY,)
    entering = move.target is Phase.DUAL_READ
    found = []
    if snapshot.open(snapshot.redis.pending):
        found += [] if entering and snapshot.every_worker_has("read_both") else [_P6]
    if snapshot.open(snapshot.redis.work):
        found += [] if entering and snapshot.every_worker_has("leases") else [_R3]
    return tuple(found) or (_C1,)


def _reconciled(_check: Check, _snapshot: Snapshot, move: Move) -> tuple[Reason, ...]:
    return (_P2, _P1) if move.target > move.source else (_P3,)


def _room(check: Check, snapshot: Snapshot, _move: Move) -> tuple[Reason, ...]:
    if snapshot.redis is None:
        return (_AWAY,)
    is_redis = snapshot.redis.policy.startswith("allkeys") or "Redis memory" in check.evidence
    return (_R6,) if is_redis else (_FULL,)


_REASONS: dict[str, tuple[Reason, ...] | Choose] = {
    "brokers answer": (_AWAY,),
    "no old producer": _fleet(_P1, "producer"),
    "homogeneous fleet": _fleet(_P12, "worker"),
    "backlog and orphans": _backlog,
    "redis is empty": (_C1,),
    "oldest age": (_P7,),
    "ids reconciled": _reconciled,
    "watermark": _watermark,
    "tasks without a record": (_NO_RECORD,),
    "copies of finished tasks": (_B2,),
    "nats drained": (_B3,),
    "forgotten tasks": (_B3,),
    "late publishes": (_B3,),
    "redeliveries": (_N3,),
    "configuration": (_N8,),
    "head-room": _room,
    "authority": (_AUTHORITY,),
    "task types": (_T1,),
    "payload size": (_S1,),
    "consumer room": (_N5,),
    "sync interval": (_N10,),
}


def reasons_of(check: Check, snapshot: Snapshot, move: Move) -> tuple[Reason, ...]:
    """The hazards whose precondition a condition found, the likeliest first; none for ``go``."""
    if check.answer is Answer.GO:
        return ()
    found = _REASONS[check.name]
    return found if isinstance(found, tuple) else found(check, snapshot, move)
