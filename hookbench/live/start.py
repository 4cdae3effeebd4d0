"""Where a consumer is to start when NATS is first read, in ``dual_read``."""

import msgspec

from hookbench.migration.checks import GateBounds
from hookbench.migration.snapshot import Snapshot

__all__ = ["StartSequence", "start_sequence"]


class StartSequence(msgspec.Struct, frozen=True, kw_only=True):
    """The first sequence that is still to be done; all before it is.

    Attributes:
        sequence: of the stream; one beyond its end if nothing is open.
        by_type: likewise of each task type, for a consumer of its own.
        skipped: tasks before it.
        proved: of these, those that a done-store knows as ended. The others are in no list of
            Redis, which is read alone until now, so a worker has taken them out.
    """

    sequence: int
    by_type: dict[str, int]
    skipped: int
    proved: int


def start_sequence(snapshot: Snapshot, bounds: GateBounds) -> StartSequence | None:
    """The start, or ``None`` where not everything was read, or there is no stream.

    A task is open if no done-store says that it has ended; without one, if a list of Redis has it,
    or if it is so young that it may be on its way there.
    """
    redis, nats = snapshot.redis, snapshot.nats
    if redis is None or nats is None or not nats.exists:
        return None
    if redis.sampled or nats.sampled or not redis.whole or not nats.whole:
        return None
    if snapshot.ended is not None:
        is_open = nats.ids - snapshot.ended
    else:
        young = nats.ids - snapshot.settled(nats.ids, bounds.settle_s)
        is_open = (nats.ids & redis.ids) | young
    beyond = nats.last_sequence + 1
    by_type: dict[str, int] = {}
    for task_type in nats.types:
        sequences = [nats.sequences[item] for item in is_open if nats.task_types[item] == task_type]
        by_type[task_type] = min(sequences, default=beyond)
    sequence = min(by_type.values(), default=beyond)
    skipped = {item for item, number in nats.sequences.items() if number < sequence}
    return StartSequence(
        sequence=sequence,
        by_type=by_type,
        skipped=len(skipped),
        proved=len(skipped & (snapshot.ended or frozenset())),
    )
