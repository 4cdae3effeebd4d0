"""Invariants 1, 2 and 5: every task that was promised has one end, and nothing is left over."""

from hookbench.ledger.columns import Bools
from hookbench.ledger.events import Broker, Event
from hookbench.ledger.history import PHASE, History, NotCheckedError, acked_on
from hookbench.ledger.model import Place, Residue, State, StepPlan

__all__ = ["check_accepted", "check_quiescence", "check_unknown"]

_PLACES = (
    Place.REDIS_WORK,
    Place.CONSUMER_PENDING,
    Place.STREAM,
    Place.REDIS_PENDING,
    Place.SPOOL,
)


def check_accepted(history: History) -> None:
    """1: a task acknowledged to its caller is not lost, and does not end in two ways."""
    columns = history.columns
    _find_two_ends(history, 1, columns.promised, "acknowledged to the caller")
    residue = _residue_of(history)
    lost = history.lost & ~history.letterless
    aged_out = lost & (columns.sequence > 0)
    aged_out &= (columns.sequence < residue.first_sequence) & ~columns.received
    early = lost & columns.received & columns.acked
    consumer = residue.delivered_sequence
    where = "" if consumer is None else f" (consumer at {consumer})"
    kinds = (
        (State.ACKED_EARLY, "P10", early, "acknowledged before they were processed"),
        (State.AGED_OUT, "P7", aged_out, "too old for the stream before they were read"),
        (
            State.VANISHED,
            "-",
            lost & ~early & ~aged_out,
            f"acknowledged to the caller, in no queue, never done{where}",
        ),
        (
            State.NO_LETTER,
            "-",
            history.lost & history.letterless,
            "recorded as dead, and no broker holds a dead letter of them",
        ),
    )
    for step in history.steps:
        row = history.rows[PHASE, step.index]
        here = columns.put_step == step.index
        for state, hazard, mask, what in kinds:
            count = history.find(
                1,
                (PHASE, step.index),
                mask & here,
                f"{{count}} tasks lost: {what}{history.crashed_text}",
                hazard=hazard,
            )
            if count:
                row.lost_by[state.value] = count
                row.lost += count


def _residue_of(history: History) -> Residue:
    """What was left on the brokers.

    Raises:
        NotCheckedError: nobody looked, so what has no end may be lost or lie somewhere.
    """
    if history.residue is None:
        columns = history.columns
        count = int((columns.promised & columns.real & ~columns.terminal).sum())
        raise NotCheckedError(
            f"what was left on the brokers was not recorded: {count:,} acknowledged tasks have no"
            " end, and may be lost or lie somewhere"
        )
    return history.residue


def check_unknown(history: History) -> None:
    """2: a task whose caller was left in doubt has one end or none."""
    columns = history.columns
    doubtful = columns.offered & ~columns.promised & ~columns.refused
    _find_two_ends(history, 2, doubtful, "whose caller was left in doubt")


def _find_two_ends(history: History, invariant: int, of: Bools, whose: str) -> None:
    columns = history.columns
    both = of & columns.real & (columns.ends > 1)
    for step in history.steps:
        history.rows[PHASE, step.index].unexpected += history.find(
            invariant,
            (PHASE, step.index),
            both & (columns.put_step == step.index),
            f"{{count}} tasks {whose} ended twice: done, dead or superseded",
        )


def check_quiescence(history: History) -> None:
    """5: nothing lies anywhere without an end, and no copy of what has ended is left in Redis."""
    columns = history.columns
    residue = _residue_of(history)
    open_tasks = columns.offered & ~columns.terminal & columns.real
    placed = open_tasks & False
    for place in _PLACES:
        here = open_tasks & history.lying[place] & ~placed
        placed |= here
        for state, mask in _states(history, residue, place, here):
            for step in history.steps:
                hazard, text = _stuck_reason(history, place, state)
                count = history.find(
                    5,
                    (PHASE, step.index),
                    mask & (columns.put_step == step.index),
                    f"{{count}} tasks {text}",
                    hazard=hazard,
                )
                if count:
                    key = f"{place.value}/{state.value}"
                    history.rows[PHASE, step.index].stuck[key] = count
    _find_left(history)


def _states(
    history: History, residue: Residue, place: Place, here: Bools
) -> list[tuple[State, Bools]]:
    """The tasks of a place by their state there."""
    columns = history.columns
    if place is Place.REDIS_WORK:
        return [(State.ORPHANED, here)]
    if place is Place.CONSUMER_PENDING:
        return [(State.ACK_PENDING, here)]
    if place is Place.STREAM:
        delivered = residue.delivered_sequence
        read = here & (columns.sequence > 0)
        read &= columns.sequence <= (delivered if delivered is not None else 0)
        return [(State.MAX_DELIVER, read), (State.NEVER_READ, here & ~read)]
    if place is Place.REDIS_PENDING:
        # Meant for both brokers, and only Redis took it.
        failed = columns.where(Event.PUT_FAIL) | columns.where(Event.PUT_UNKNOWN)
        one = here & columns.any(failed & (columns.broker == Broker.NATS))
        one &= ~acked_on(columns, Broker.NATS)
        return [(State.ONE_BROKER_ONLY, one), (State.NEVER_READ, here & ~one)]
    return [(State.NEVER_READ, here)]


def _stuck_reason(history: History, place: Place, state: State) -> tuple[str, str]:
    """Hazard and text; what is read in the last phase decides whether a task can still move."""
    last: StepPlan = history.steps[-1]
    crashes = history.crashed_text
    only_fallback = last.reads_redis and last.reads_nats
    pending = ("-", "in the Redis list, never delivered")
    if not last.reads_redis:
        pending = ("P6", "only in the Redis list, which is not read any more")
    elif only_fallback:
        pending = ("P9", "only in the Redis list, which is read after a failed NATS read alone")
    if state is State.ONE_BROKER_ONLY and pending[0] != "-":
        pending = ("P2", f"{pending[1]}: NATS did not take them when they were put")
    stream = ("-", "in the stream, never delivered")
    if state is State.MAX_DELIVER:
        stream = ("N3", "in the stream, given up after the last delivery that the consumer allows")
    unacked = ("-", f"delivered and neither acknowledged nor delivered again{crashes}")
    if not last.reads_nats:
        stream = unacked = ("B3", "only in the stream, which is not read any more")
        if not any(step.reads_nats for step in history.steps):
            stream = ("P3", "only in the stream, which is not read yet")
    return {
        Place.REDIS_WORK: ("R3", f"orphaned in the Redis work list, which nothing reads{crashes}"),
        Place.REDIS_PENDING: pending,
        Place.SPOOL: ("-", "still in the spool of the git hook, or in the outbox of a producer"),
        Place.STREAM: stream,
        Place.CONSUMER_PENDING: unacked,
    }[place]


def _find_left(history: History) -> None:
    """Copies of finished tasks that stay in Redis (hazard P8)."""
    columns = history.columns
    copies = history.lying[Place.REDIS_PENDING] | history.lying[Place.REDIS_WORK]
    copies = copies & columns.terminal
    for step in history.steps:
        history.rows[PHASE, step.index].left = history.find(
            5,
            (PHASE, step.index),
            copies & (columns.put_step == step.index),
            "{count} Redis copies of finished tasks left behind: nothing trims them, and a fallback"
            " or a rollback runs them again",
            hazard="P8",
        )
