"""A process that follows a place: its phase file is kept as the place is, and it says how it is."""

import logging
import os
import socket
from collections.abc import Callable
from typing import Any

import msgspec

from hookbench.cancellation import raise_if_cancelled
from hookbench.clock import NS_PER_S, Clock
from hookbench.errors import HookbenchError
from hookbench.live.boards import Boards
from hookbench.live.places import Place, decode_step
from hookbench.migration.phases import PhaseFile

__all__ = ["Follower", "process_name"]

_log = logging.getLogger(__name__)

POLL_S = 0.25
SAY_EVERY_S = 2.0
RETRY_S = 1.0

Announce = Callable[[dict[str, Any]], None]


def process_name() -> str:
    """Of this process, among all of a fleet."""
    return f"{socket.gethostname()}-{os.getpid()}"


class Follower:
    """Keeps a phase file as a place is, and announces there what the process says of itself.

    The reference worker and producer watch a file: whoever follows a key does the same, and the
    key is read here. While the place cannot be read the phase stays as it is.

    Args:
        place: that is followed.
        boards: where it is.
        file: that the process watches; written before ``start`` returns.
        name: of the process.
        clock: for pauses.
    """

    def __init__(
        self, place: Place, boards: Boards, file: PhaseFile, *, name: str, clock: Clock
    ) -> None:
        self._place = place
        self._boards = boards
        self._file = file
        self._name = name
        self._clock = clock
        self._said: dict[str, Any] = {}
        self._news = False
        self._silent_since_ns = 0

    def listening(self, announce: Announce) -> Announce:
        """``announce`` of a process, that is heard here as well."""

        def heard(event: dict[str, Any]) -> None:
            if event.get("event") in ("phase", "stopped"):
                event = {**event, "follows": self._place.text}
                self._said.update(event)
                self._news = True
            announce(event)

        return heard

    async def start(self) -> None:
        """Read the place for the first time.

        Raises:
            SettingError: it holds no phase.
            BrokerUnreachableError: its broker does not answer.
        """
        await self._look()

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            await self._clock.sleep(POLL_S)
            try:
                await self._look()
                await self._say()
            except HookbenchError as error:
                raise_if_cancelled()
                _log.warning("%s cannot be followed at the moment: %s", self._place.text, error)
                await self._clock.sleep(RETRY_S)

    async def close(self) -> None:
        """Say no more, and disconnect."""
        try:
            if self._said:
                board = await self._boards.of(self._place)
                await board.retract(self._place.key, self._name)
        except HookbenchError as error:
            _log.warning("%s still has what %s said: %s", self._place.text, self._name, error)
        finally:
            await self._boards.close()

    async def _look(self) -> None:
        board = await self._boards.of(self._place)
        index, phase = decode_step(self._place, await board.read(self._place.key))
        if not self._file.exists() or self._file.read() != (index, phase):
            self._file.write(index, phase)

    async def _say(self) -> None:
        now_ns = self._clock.monotonic_ns()
        due = now_ns - self._silent_since_ns >= SAY_EVERY_S * NS_PER_S
        if not self._said or not (self._news or due):
            return
        board = await self._boards.of(self._place)
        self._news = False
        try:
            await board.announce(self._place.key, self._name, msgspec.json.encode(self._said))
        except BaseException:
            self._news = True
            raise
        self._silent_since_ns = now_ns
