"""Workers that died, and what became of what they had in hand."""

import numpy as np

from hookbench.ledger.columns import Bools, Ints, TaskColumns
from hookbench.ledger.events import Event
from hookbench.ledger.history import History
from hookbench.ledger.latency import histogram_of, percentiles_of
from hookbench.ledger.model import Crash

__all__ = ["account_for_crashes", "redelivery_of"]

_ENDS = (Event.DONE, Event.DEAD, Event.SUPERSEDED, Event.SKIPPED)


def account_for_crashes(history: History) -> tuple[list[Crash], Ints]:
    """For each worker that died, what became of the tasks that it had received and not ended.

    Also, over all of them, the times from the death to the next start of each of these tasks, ns.
    """
    columns = history.columns
    ledger = columns.ledger
    anywhere = np.zeros(columns.count, dtype=bool)
    for mask in history.lying.values():
        anywhere |= mask
    crashes, all_restarts_ns = [], []
    for number, name in enumerate(ledger.writers):
        if name not in ledger.crashed or not name.startswith("worker"):
            continue
        own = ledger.writer == number
        taken = columns.any(own & columns.where(Event.RECEIVED))
        ended = columns.any(own & np.isin(columns.event, _ENDS))
        in_hand = taken & ~ended & columns.real
        left = in_hand & ~columns.terminal
        restarts_ns = _restarts(columns, number, in_hand)
        all_restarts_ns.append(restarts_ns)
        crashes.append(
            Crash(
                writer=name,
                in_hand=int(in_hand.sum()),
                done_by_others=int((in_hand & columns.terminal).sum()),
                stuck=int((left & anywhere).sum()),
                lost=int((left & ~anywhere & columns.promised).sum()),
                examples=columns.names(in_hand),
                restart_ns=redelivery_of(restarts_ns),
            )
        )
    return crashes, np.concatenate([np.zeros(0, dtype=np.int64), *all_restarts_ns])


def redelivery_of(restarts_ns: Ints) -> dict[str, int] | None:
    """Percentiles of times from a death to the next start; ``None`` for none."""
    if len(restarts_ns) == 0:
        return None
    return percentiles_of(histogram_of(restarts_ns), int(restarts_ns.max()))


def _restarts(columns: TaskColumns, writer: int, in_hand: Bools) -> Ints:
    """From the last event of a writer to the next start of each of its tasks by another."""
    own = columns.ledger.writer == writer
    last_ns = int(columns.time[own][-1])
    others = ~own & columns.where(Event.STARTED) & (columns.time >= last_ns)
    next_ns = columns.first(others, columns.time, 0)[in_hand]
    restarts: Ints = next_ns[next_ns > 0] - last_ns
    return restarts
