"""Which phase a process is to be in, and how it follows a change."""

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from hookbench.clock import Clock
from hookbench.errors import HookbenchError, SettingError
from hookbench.migration.phases import Phase, PhaseFile

__all__ = ["PhaseSource"]

_log = logging.getLogger(__name__)

POLL_S = 0.05
RETRY_S = 0.5

Enter = Callable[[int, Phase], Awaitable[None]]
"""Carries a change out: the step's index in the timeline, and its phase."""


class PhaseSource:
    """A phase that is fixed, or one in a file that is watched.

    Raises:
        SettingError: both are given, or neither.
    """

    def __init__(self, phase: Phase | None, phase_file: Path | None) -> None:
        if (phase is None) == (phase_file is None):
            raise SettingError("give either a phase or a phase file, not both and not neither")
        self._phase = phase
        self._file = PhaseFile(phase_file) if phase_file is not None else None

    def read(self) -> tuple[int, Phase]:
        """The step's index and its phase; the index of a fixed phase is 0.

        Raises:
            SettingError: the file is missing or holds something else.
        """
        if self._file is not None:
            return self._file.read()
        if self._phase is None:
            raise SettingError("neither a phase nor a phase file")
        return 0, self._phase

    async def follow(self, current: tuple[int, Phase], enter: Enter, clock: Clock) -> None:
        """Call ``enter`` at each change, until cancelled; a change that fails is tried again."""
        if self._file is None:
            return
        look, sleep = self._file.read, clock.sleep
        while True:
            await sleep(POLL_S)
            try:
                wanted = look()
                if wanted != current:
                    await enter(*wanted)
                    current = wanted
            except HookbenchError as error:
                _log.warning("phase change put off by %.1f s: %s", RETRY_S, error)
                await clock.sleep(RETRY_S)
