"""What every checker of a run is given, and where it says what it found."""

import dataclasses
import functools

import numpy as np

from hookbench.effects.read import Effects
from hookbench.ledger.columns import Bools, Ints, TaskColumns
from hookbench.ledger.events import Broker, Event
from hookbench.ledger.explanation import Explanation, explain
from hookbench.ledger.losses import faults_of_losses
from hookbench.ledger.model import (
    Bounds,
    FaultWindow,
    Finding,
    Place,
    Residue,
    StepAccount,
    StepPlan,
)
from hookbench.ledger.repeats import Repeats, find_repeats

__all__ = ["PHASE", "TRANSITION", "History", "NotCheckedError", "RowKey", "find_lying"]

PHASE = "phase"
TRANSITION = "transition"
RowKey = tuple[str, int]
"""Kind and index of a row: ``("transition", 2)``."""


class NotCheckedError(Exception):
    """A checker cannot answer; its invariant is unknown. The text says why."""


@dataclasses.dataclass(kw_only=True)
class History:
    """One run, as its checkers see it.

    Attributes:
        step_starts_ns: when each step began, monotonic.
        end_ns: when the last step ended.
        lying: for each place, which tasks lie there; shape (tasks,) each.
        residue: what was left on the brokers, ``None`` where nobody looked.
        effects: what the effect store holds, ``None`` for a run without one.
        rows: the figures, filled by the checkers.
        findings: what breaks an invariant.
        faults: those that fired.
        effects_explained: repeated effects that are explained, see ``explain``.
    """

    columns: TaskColumns
    steps: list[StepPlan]
    step_starts_ns: list[int]
    end_ns: int
    residue: Residue | None
    lying: dict[Place, Bools]
    effects: Effects | None
    bounds: Bounds
    rows: dict[RowKey, StepAccount]
    findings: list[Finding] = dataclasses.field(default_factory=list)
    effects_explained: int = 0
    faults: list[FaultWindow] = dataclasses.field(default_factory=list)

    def find(
        self,
        invariant: int,
        key: RowKey,
        tasks: Bools | Ints,
        text: str,
        *,
        hazard: str = "-",
        count: int | None = None,
    ) -> int:
        """Add a finding about some tasks, unless there are none.

        Args:
            invariant: number of the one that is broken.
            key: the row that it counts for.
            tasks: a mask over all tasks, or task rows.
            text: what happened; ``{count}`` stands for the number.
            hazard: id in the table of hazards.
            count: if it is not the number of tasks.

        Returns:
            The number.
        """
        number = int(tasks.sum()) if tasks.dtype == bool else len(tasks)
        number = number if count is None else count
        if number:
            row = self.rows[key]
            self.findings.append(
                Finding(
                    hazard=hazard,
                    row=row.name,
                    count=number,
                    text=text.format(count=f"{number:,}"),
                    examples=self.columns.names(tasks if tasks.dtype == bool else np.unique(tasks)),
                    invariant=invariant,
                    step=row.step,
                    transition=row.transition,
                )
            )
        return number

    @functools.cached_property
    def repeats(self) -> Repeats:
        """Executions that were done beyond the first of a task."""
        return find_repeats(self.columns, self.steps)

    @functools.cached_property
    def explanation(self) -> Explanation:
        """Why each of ``repeats`` had to be."""
        return explain(self.columns, self.repeats, self.faults)

    @functools.cached_property
    def letterless(self) -> Bools:
        """Tasks that a worker says it buried, and of which no broker holds a letter."""
        columns = self.columns
        letters = None if self.residue is None else self.residue.letters
        if letters is None:
            return columns.offered & False
        held = np.zeros(columns.count, dtype=bool)
        held[columns.ledger.rows_of([item.bytes for item in letters])] = True
        missing: Bools = columns.dead & ~held
        return missing

    @functools.cached_property
    def lost(self) -> Bools:
        """Tasks that were promised and have no end, not even one in some place; or no letter.

        None where nobody looked at the places: those without an end may lie there.
        """
        columns = self.columns
        if self.residue is None:
            return columns.offered & False
        anywhere = np.zeros(columns.count, dtype=bool)
        for mask in self.lying.values():
            anywhere |= mask
        gone: Bools = (~columns.terminal & ~anywhere) | self.letterless
        return columns.promised & columns.real & gone

    @functools.cached_property
    def loss_faults(self) -> Ints:
        """Per task the place in ``faults`` of the one that lost it; -1 for none, or no loss."""
        return faults_of_losses(self.columns, self.lost, self.faults)

    @property
    def crashed_text(self) -> str:
        """Who died, to be put behind a text; empty for nobody."""
        crashed = self.columns.ledger.crashed
        return f"; processes that died: {', '.join(crashed)}" if crashed else ""


def find_lying(columns: TaskColumns, residue: Residue | None) -> dict[Place, Bools]:
    """For each place, which tasks lie there after the drain; none where nobody looked.

    The stream keeps what is acknowledged until it is too old, so what lies in it and still waits
    is told by sequences: above what the consumer has delivered, or not acknowledged; without a
    consumer all of it. A stream that was rolled back by a power cut ends before what it had given.
    """
    lying = {place: np.zeros(columns.count, dtype=bool) for place in Place}
    if residue is None:
        return lying
    for place, mask in lying.items():
        found = [item.bytes for item in residue.places.get(place, [])]
        mask[columns.ledger.rows_of(found)] = True
    kept = (columns.sequence > 0) & (columns.sequence >= residue.first_sequence)
    if residue.last_sequence is not None:
        kept &= columns.sequence <= residue.last_sequence
    if residue.delivered_sequence is None:
        if residue.first_sequence:  # a stream that nobody reads yet
            in_redis = lying[Place.REDIS_PENDING] | lying[Place.REDIS_WORK]
            lying[Place.STREAM] |= kept & ~in_redis
        return lying
    delivered = columns.sequence <= residue.delivered_sequence
    waiting = ~columns.terminal & ~acked_on(columns, Broker.NATS)
    lying[Place.STREAM] |= kept & ~delivered
    if residue.max_deliver:
        attempts = columns.ledger.records["attempt"]
        last = columns.where(Event.RECEIVED) & (columns.broker == Broker.NATS)
        given_up = columns.any(last & (attempts >= residue.max_deliver))
        lying[Place.STREAM] |= kept & delivered & waiting & given_up
    if residue.ack_pending and residue.ack_floor_sequence is not None:
        pending = kept & delivered & waiting & (columns.sequence > residue.ack_floor_sequence)
        lying[Place.CONSUMER_PENDING] |= pending & ~lying[Place.STREAM]
    return lying


def acked_on(columns: TaskColumns, broker: Broker) -> Bools:
    """Tasks of which a delivery of that broker was acknowledged or ended for good."""
    ended = columns.where(Event.ACK_SENT) | columns.where(Event.TERM)
    return columns.any(ended & (columns.broker == broker))
