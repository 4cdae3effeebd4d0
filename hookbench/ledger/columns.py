"""What the ledger says of each task, as one array per fact."""

import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hookbench.ledger.events import NO_TASK, Broker, Event
from hookbench.ledger.read import Ledger

__all__ = ["Bools", "Ints", "TaskColumns", "without_end"]

EXAMPLES = 3
_IN_HAND = frozenset({Event.CLAIMED, Event.STARTED, Event.EFFECT, Event.STALE})
"""Last records of a worker that died with a task that it had begun."""
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.signedinteger[Any]]


class TaskColumns:
    """What the ledger says of each task, as one array per fact."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        records = ledger.records
        self.count = len(ledger.ids)
        # Copies: they are compared dozens of times, and a stride makes that five times as slow.
        self.event = np.ascontiguousarray(records["event"])
        self.time = records["time_ns"]
        self.phase = records["phase"].astype(np.int64)
        self.broker = np.ascontiguousarray(records["broker"])
        self.value = records["value"]
        self.task = ledger.task
        crashed = [name in ledger.crashed for name in ledger.writers]
        self.writer_died = np.array(crashed or [False], dtype=bool)
        """Per writer."""
        self.died = self.writer_died[ledger.writer]
        """Per record, of its writer."""
        self.real = np.ones(self.count, dtype=bool)
        self.real[ledger.rows_of([NO_TASK])] = False

        put = self.where(Event.PUT_INVOKED)
        self.put_step = self.first(put, self.phase, -1)
        self.invoked_ns = self.first(put, self.time, 0)
        intended = self.first(put, self.value, 0)
        self.intended_ns = np.where(intended > 0, intended, self.invoked_ns)
        self.repository = self.first(put, records["repository"], 0)
        self.offered = self.put_step >= 0
        accepted = self.where(Event.ACCEPTED)
        self.accepted = self.any(accepted)
        self.accepted_ns = self.first(accepted, self.time, 0)
        self.refused = self.any(self.where(Event.REFUSED)) & ~self.accepted
        self.doubtful = self.any(self.where(Event.DOUBTFUL)) & ~self.accepted
        done = self.where(Event.DONE)
        self.done_count = np.bincount(self.task[done], minlength=self.count)
        self.done_ns = self.first(done, self.time, 0)
        self.dead = self.any(self.where(Event.DEAD)) & self.real
        self.superseded = self.any(self.where(Event.SUPERSEDED)) & self.real
        self.unsaid = self._unsaid()
        """Done, and known to be so by the authority alone, see ``_unsaid``."""
        self._count_ends()
        nats_put = self.where(Event.PUT_OK) & (self.broker == Broker.NATS)
        self.sequence = self.first(nats_put, self.value, 0)
        self.put_unknown = self.any(self.where(Event.PUT_UNKNOWN))
        self.received = self.any(self.where(Event.RECEIVED))
        self.acked = self.any(self.where(Event.ACK_SENT))
        roles = np.array([name.startswith("hook") for name in ledger.writers], dtype=bool)
        self.pushed = self.any(put & roles[ledger.writer]) if len(roles) else self.offered & False
        self.promised = self.accepted | self.pushed
        """Acknowledged to the caller; a push is acknowledged by the spool, before any put."""

    def _count_ends(self) -> None:
        self.ends = (self.done_count > 0) * 1 + self.dead + self.superseded + self.unsaid
        """In how many ways a task ended; one is right."""
        self.terminal = self.ends > 0

    def learn_ended(self, ids: Sequence[bytes]) -> None:
        """Take over the authority's word for tasks whose worker could not record their end.

        One that died: what it recorded last tells how they ended. If it is the delivery, the
        authority ended the task as superseded, which it does as it is asked; else it was
        completed. One that lives was not told that its completion came through, or that the task is
        superseded: then each claim of it has failed, and a later one of its repository is done.
        """
        untold = self.any(self.where(Event.STALE))
        open_claims = self._records_of(Event.CLAIMED) > self._records_of(Event.FAILED)
        given_back = self.received & ~open_claims
        for row in self.ledger.rows_of(ids).tolist():
            if self.ends[row] or not self.real[row]:
                continue
            mine = np.flatnonzero((self.task == row) & (self.event >= Event.RECEIVED) & self.died)
            last = {int(self.ledger.writer[item]): int(self.event[item]) for item in mine}
            if untold[row] or any(event in _IN_HAND for event in last.values()):
                self.unsaid[row] = True
            elif Event.RECEIVED in last.values() or (given_back[row] and self._is_overtaken(row)):
                self.superseded[row] = True
        self._count_ends()

    def _is_overtaken(self, row: int) -> bool:
        """Whether a task that was put later into the same repository is done."""
        later = (self.repository == self.repository[row]) & (self.done_count > 0)
        return bool((later & (self.invoked_ns > self.invoked_ns[row])).any())

    def _unsaid(self) -> Bools:
        """Tasks that were skipped as ended, and whose end nobody has recorded.

        The worker died between the two records, the authority's and its own, or was not told
        that its completion came through. Whether there is an effect says the effect store.
        """
        unsaid: Bools = self.any(self.where(Event.SKIPPED)) & (self.done_count == 0)
        unsaid &= ~self.dead & ~self.superseded & self.real
        if not unsaid.any():
            return unsaid
        unsaid &= self.any((self.where(Event.STARTED) & self.died) | self.where(Event.STALE))
        return unsaid

    def _records_of(self, event: Event) -> Ints:
        """Per task how many it has of a kind."""
        return np.bincount(self.task[self.where(event)], minlength=self.count)

    def where(self, event: Event) -> Bools:
        """Records of one kind."""
        mask: Bools = self.event == event
        return mask

    def first(self, mask: Bools, column: npt.NDArray[Any], default: int) -> Ints:
        """Per task the column's value in its earliest record of ``mask``."""
        out = np.full(self.count, default, dtype=np.int64)
        rows = np.flatnonzero(mask)[::-1]  # records are sorted by time: the last write wins
        out[self.task[rows]] = column[rows]
        return out

    def any(self, mask: Bools) -> Bools:
        """Per task whether it has a record of ``mask``."""
        out = np.zeros(self.count, dtype=bool)
        out[self.task[mask]] = True
        return out

    def names(self, tasks: npt.NDArray[Any], limit: int = EXAMPLES) -> list[str]:
        """Ids of some of the tasks."""
        rows = np.flatnonzero(tasks) if tasks.dtype == bool else tasks
        ids = self.ledger.ids
        return [str(uuid.UUID(bytes=bytes(ids[row]))) for row in rows[:limit]]


def without_end(ledger: Ledger) -> list[uuid.UUID]:
    """Tasks that were put, and of whose end there is no record."""
    event = ledger.records["event"]
    is_open = np.zeros(len(ledger.ids), dtype=bool)
    is_open[ledger.task[event == Event.PUT_INVOKED]] = True
    for end in (Event.DONE, Event.DEAD, Event.SUPERSEDED):
        is_open[ledger.task[event == end]] = False
    return [uuid.UUID(bytes=bytes(item)) for item in ledger.ids[is_open]]
