"""Workers that died, and what became of what they had in hand."""

import numpy as np

from hookbench.ledger.columns import Bools, Ints, TaskColumns
from hookbench.ledger.events import Event
from hookbench.ledger.history import History
from hookbench.ledger.latency import histogram_of, percentiles_of
from hookbench.ledger.model import Crash

__all__ = ["account_for_crashes"]


def account_for_crashes(history: History) -> list[Crash]:
    """For each worker that died, what became of the tasks that it had received and not ended."""
    columns = history.columns
    ledger = columns.ledger
    anywhere = np.zeros(columns.count, dtype=bool)
    for mask in history.lying.values():
        anywhere |= mask
    crashes = []
    for number, name in enumerate(ledger.writers):
        if name not in ledger.crashed or not name.startswith("worker"):
            continue
        own = ledger.writer == number
        taken = columns.any(own & columns.where(Event.RECEIVED))
        ended = columns.any(own & (columns.where(Event.DONE) | columns.where(Event.DEAD)))
        in_hand = taken & ~ended & columns.real
        left = in_hand & ~columns.terminal
        crashes.append(
            Crash(
                writer=name,
                in_hand=int(in_hand.sum()),
                done_by_others=int((in_hand & columns.terminal).sum()),
                stuck=int((left & anywhere).sum()),
                lost=int((left & ~anywhere & columns.promised).sum()),
                examples=columns.names(in_hand),
                restart_ns=_restarts(columns, number, in_hand),
            )
        )
    return crashes


def _restarts(columns: TaskColumns, writer: int, in_hand: Bools) -> dict[str, int] | None:
    """From the last event of a writer to the next start of each of its tasks by another."""
    own = columns.ledger.writer == writer
    last_ns = int(columns.time[own][-1])
    others = ~own & columns.where(Event.STARTED) & (columns.time >= last_ns)
    next_ns = columns.first(others, columns.time, 0)[in_hand]
    restarts: Ints = next_ns[next_ns > 0] - last_ns
    if len(restarts) == 0:
        return None
    return percentiles_of(histogram_of(restarts), int(restarts.max()))
