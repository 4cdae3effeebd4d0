"""What a simulated process writes, which ends with its life: its ledger, and its effects.

A process that is killed by what it records runs on to its next await; nothing of that is kept.
"""

from typing import TYPE_CHECKING, Any

from hookbench.effects.classes import Execution
from hookbench.effects.store import EffectStore
from hookbench.ledger.events import NO_TASK, Broker, Event, LedgerWriter
from hookbench.sim.processes import PROCESS

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["EffectsOfTheLiving", "WatchedLedger"]

_PUTS = {Event.PUT_INVOKED: 1, Event.ACCEPTED: -1, Event.REFUSED: -1, Event.DOUBTFUL: -1}
"""By how much an event changes the number of tasks whose caller has no answer yet."""


class WatchedLedger(LedgerWriter):
    """A ledger that tells of its records, and whose process may die right behind one.

    Attributes:
        on_record: called with each event.
        dead: its process is.
        open_puts: tasks whose caller has no answer yet.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self.on_record: list[Callable[[Event], None]] = []
        self.dead = False
        self.open_puts = 0
        super().__init__(*args, **options)

    def record(
        self,
        event: Event,
        task: bytes = NO_TASK,
        *,
        broker: Broker = Broker.NONE,
        value: int = 0,
        attempt: int = 0,
        repository: int = 0,
    ) -> None:
        """See ``LedgerWriter``; a dead process records nothing on the way to its next await."""
        if self.dead:
            return
        LedgerWriter.record(  # as super(), which is slow for what each step of a task calls
            self, event, task, broker=broker, value=value, attempt=attempt, repository=repository
        )
        self.open_puts += _PUTS.get(event, 0)
        for tell in self.on_record:
            tell(event)

    def close(self) -> None:
        """See ``LedgerWriter``; a dead process closes nothing."""
        if not self.dead:
            super().close()


class EffectsOfTheLiving:
    """The effect store, for who is alive: a killed process has no effect up to its next await."""

    def __init__(self, store: EffectStore) -> None:
        self._store = store

    def append(self, task: bytes, execution: Execution) -> None:
        """See ``EffectStore``."""
        if _is_alive():
            self._store.append(task, execution)

    def set_state(self, task: bytes, execution: Execution, value: int) -> None:
        """See ``EffectStore``."""
        if _is_alive():
            self._store.set_state(task, execution, value)

    def apply_once(self, task: bytes, execution: Execution) -> bool:
        """See ``EffectStore``."""
        return _is_alive() and self._store.apply_once(task, execution)


def _is_alive() -> bool:
    process = PROCESS.get()
    return process is None or process.alive
