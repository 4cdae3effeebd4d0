"""The effect store of a simulated run, in memory: no fault is aimed at it, and nobody shares it.

It says what ``SqliteEffectStore`` says; that was a twelfth of the time of a run.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from hookbench.clock import Clock
from hookbench.effects.classes import Execution, HandlerClass
from hookbench.effects.read import EFFECT_DTYPE, MAX_ATTEMPT, STATE_DTYPE, Effects
from hookbench.errors import EffectStoreError

__all__ = ["SimulatedEffects"]


class SimulatedEffects:
    """All effects of a run.

    Args:
        clock: of the run.
    """

    def __init__(self, clock: Clock) -> None:
        self._now_ns = clock.monotonic_ns
        self._rows: list[tuple[bytes, int, int, int, int, int]] = []
        self._done: dict[bytes, int] = {}
        self._state: dict[bytes, int] = {}

    def of(self, writer: int) -> "WorkersEffects":
        """The store as a worker has it.

        Args:
            writer: the number of its ledger.
        """
        return WorkersEffects(self, writer)

    def add(self, task: bytes, handler_class: HandlerClass, writer: int, it: Execution) -> None:
        """One effect, now."""
        attempt = min(it.attempt, MAX_ATTEMPT)
        row = (task, int(handler_class), writer, attempt, it.token, self._now_ns())
        self._rows.append(row)

    def set_state(self, task: bytes, value: int) -> None:
        """What an idempotent effect leaves."""
        self._state[task] = value

    def finish(self, task: bytes, token: int) -> bool:
        """Whether a task is done now; ``False``: it was before.

        Raises:
            EffectStoreError: the token is lower than the one that it was done with.
        """
        before = self._done.get(task)
        if before is None:
            self._done[task] = token
            return True
        if token < before:
            raise EffectStoreError(
                f"effect store: token {token} of task {task.hex()} is older than {before}, which"
                " it was done with: the claim of this worker has expired"
            )
        return False

    def read(self) -> Effects:
        """See ``read_effects``."""
        return Effects(
            rows=_columns(self._rows, EFFECT_DTYPE),
            state=_columns(sorted(self._state.items()), STATE_DTYPE),
        )


class WorkersEffects:
    """``EffectStore`` of one worker."""

    def __init__(self, effects: SimulatedEffects, writer: int) -> None:
        self._effects = effects
        self._writer = writer

    def append(self, task: bytes, execution: Execution) -> None:
        """See ``EffectStore``."""
        self._effects.add(task, HandlerClass.PLAIN, self._writer, execution)

    def set_state(self, task: bytes, execution: Execution, value: int) -> None:
        """See ``EffectStore``."""
        self._effects.set_state(task, value)
        self._effects.add(task, HandlerClass.IDEMPOTENT, self._writer, execution)

    def apply_once(self, task: bytes, execution: Execution) -> bool:
        """See ``EffectStore``.

        Raises:
            EffectStoreError: the token is lower than the one that the task was done with.
        """
        if not self._effects.finish(task, execution.token):
            return False
        self._effects.add(task, HandlerClass.TRANSACTIONAL, self._writer, execution)
        return True


def _columns(rows: list[Any], dtype: np.dtype[np.void]) -> npt.NDArray[np.void]:
    return np.array(rows, dtype=dtype) if rows else np.empty(0, dtype=dtype)
