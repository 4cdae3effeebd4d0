"""The counts of a run as Jepsen's total-queue checker makes them."""

import numpy as np

from hookbench.ledger.events import Event
from hookbench.ledger.history import History
from hookbench.ledger.model import Counts

__all__ = ["count_tasks"]


def count_tasks(history: History) -> Counts:
    """What was attempted, what was promised, and what came out, in tasks.

    The words are those of the total-queue checker, see
    https://jepsen-io.github.io/jepsen/jepsen.checker.html#var-total-queue, with two differences. A
    task comes out when it ends (done, superseded, or dead with a letter to show for it), not when
    it is read. And what lies in a queue at the end waits and is not lost: Jepsen drains a queue
    until it is empty, which the guide's work list never is.
    """
    columns = history.columns
    attempted = columns.offered & columns.real
    acknowledged = attempted & columns.promised
    out = columns.terminal & ~history.letterless & columns.real
    lost = history.lost & attempted
    came = columns.any(columns.where(Event.RECEIVED) | columns.where(Event.DONE)) & columns.real
    repeated = attempted[history.repeats.task]
    return Counts(
        attempted=int(attempted.sum()),
        acknowledged=int(acknowledged.sum()),
        ok=int((attempted & out).sum()),
        lost=int(lost.sum()),
        waiting=int((acknowledged & ~out & ~lost).sum()),
        duplicated=int(np.count_nonzero(repeated)),
        recovered=int((attempted & ~acknowledged & out).sum()),
        unexpected=int((came & ~columns.offered).sum()),
    )
