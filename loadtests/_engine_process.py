"""The engine of one Locust process, as that sees it: started, told, listened to, and gone."""

import sys
from pathlib import Path

import gevent
import msgspec
from _engine_protocol import (
    COMMANDS_NAME,
    EVENTS_NAME,
    LOG_NAME,
    Close,
    Closed,
    EnterPhase,
    Event,
    Open,
    Opened,
    Users,
    event_decoder,
)
from _protocol import Ticket, append_line

from hookbench.brokers.process import spawn
from hookbench.clock import NS_PER_S, SystemClock
from hookbench.errors import HookbenchError
from hookbench.growing_lines import GrowingLines

__all__ = ["EngineProcess"]

_ENGINE = Path(__file__).with_name("_engine.py")
_OPEN_TIMEOUT_S = 30.0
_CLOSE_TIMEOUT_S = 15.0
_POLL_S = 0.02
_LOG_TAIL_CHARACTERS = 400


class EngineProcess:
    """Publishes for the users of this process; it does not outlive it.

    Args:
        ticket: of the run.
        writer: number of its ledger's writer; also of its files in the run's folder.

    Raises:
        HookbenchError: it does not start, or the brokers cannot be had.
    """

    def __init__(self, ticket: Ticket, writer: int) -> None:
        folder = Path(ticket.folder)
        self._clock = SystemClock()
        self._decoder = event_decoder()
        self._commands = folder / COMMANDS_NAME.format(writer)
        events_path = folder / EVENTS_NAME.format(writer)
        self._lines = GrowingLines(events_path)
        self._log = folder / LOG_NAME.format(writer)
        self._opened: list[Opened] = []
        self._waiting: list[msgspec.Struct] = []
        self._commands.touch()
        with events_path.open("wb") as events, self._log.open("wb") as log:
            command = [sys.executable, str(_ENGINE), str(folder), str(writer)]
            self._child = spawn("engine", command, output=log, stdout=events)
        try:
            self._tell(Open(ticket=ticket, writer=writer))
            self._wait_until_entered()
        except BaseException:
            self._child.kill()
            raise

    @property
    def pid(self) -> int:
        """Process id."""
        return self._child.pid

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._child.exit_code is None

    def _tell(self, command: msgspec.Struct) -> None:
        append_line(self._commands, command)

    def be(self, users: int) -> None:
        """So many users there are now."""
        self._tell(Users(count=users))

    def enter(self, index: int, phase: str) -> None:
        """Go into another phase; returns when it has.

        Raises:
            HookbenchError: it could not.
        """
        self._tell(EnterPhase(index=index, phase=phase))
        self._wait_until_entered()

    def _wait_until_entered(self) -> None:
        deadline_ns = self._clock.monotonic_ns() + int(_OPEN_TIMEOUT_S * NS_PER_S)
        while not self._opened:
            ended = not self.alive
            self._waiting += self._new()
            if ended and not self._opened:
                raise HookbenchError(f"the engine ended: {self.why_it_ended()}")
            if self._clock.monotonic_ns() > deadline_ns:
                raise HookbenchError(f"the engine is silent for {_OPEN_TIMEOUT_S:.0f} s")
            gevent.sleep(_POLL_S)
        opened = self._opened.pop(0)
        if opened.problem:
            raise HookbenchError(opened.problem)

    def events(self) -> list[Event]:
        """What it said since the last call, but for what somebody waits for."""
        found, self._waiting = [*self._waiting, *self._new()], []
        return found  # type: ignore[return-value]

    def _new(self) -> list[Event]:
        found = []
        for event in map(self._decoder.decode, self._lines.new()):
            if isinstance(event, Opened):
                self._opened.append(event)
            else:
                found.append(event)
        return found

    def close(self) -> list[Event]:
        """Let it finish what it has on its way; the rest of what it has to say."""
        found: list[Event] = []
        self._tell(Close())
        deadline_ns = self._clock.monotonic_ns() + int(_CLOSE_TIMEOUT_S * NS_PER_S)
        while not any(isinstance(event, Closed) for event in found):
            ended = not self.alive
            found += self.events()
            if ended or self._clock.monotonic_ns() > deadline_ns:
                break
            gevent.sleep(_POLL_S)
        self._child.stop()
        return found

    def why_it_ended(self) -> str:
        """Exit code and the end of its log."""
        log = self._log.read_text(errors="replace")
        return f"exit code {self._child.exit_code}, {log[-_LOG_TAIL_CHARACTERS:].strip() or '-'}"
