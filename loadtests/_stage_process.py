"""The backstage process as Locust sees it: started, listened to, finished, and gone in the end."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import gevent
from _protocol import (
    COMMANDS_FILE,
    EVENTS_FILE,
    FINISH_FILE,
    ORDER_FILE,
    Command,
    Event,
    Finish,
    Order,
    Ready,
    Refused,
    append_line,
    event_decoder,
    put_file,
)

from hookbench.brokers.process import spawn
from hookbench.clock import NS_PER_S, SystemClock
from hookbench.errors import HookbenchError
from hookbench.growing_lines import GrowingLines

__all__ = ["StageProcess"]

_BACKSTAGE = Path(__file__).with_name("_backstage.py")
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 15.0
_POLL_S = 0.05
_LOG_FILE = "backstage.log"
_LOG_TAIL_CHARACTERS = 800


class StageProcess:
    """Brokers and workers of one run, in a process that does not outlive this one."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.folder = Path(tempfile.mkdtemp(prefix="hookbench-locust-"))
        self._decoder = event_decoder()
        self._lines = GrowingLines(self.folder / EVENTS_FILE)
        self._clock = SystemClock()
        try:
            put_file(self.folder / ORDER_FILE, order)
            with (
                (self.folder / EVENTS_FILE).open("wb") as events,
                (self.folder / _LOG_FILE).open("wb") as log,
            ):
                command = [sys.executable, str(_BACKSTAGE), str(self.folder)]
                self._child = spawn("backstage", command, output=log, stdout=events)
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._child.exit_code is None

    def events(self) -> Iterator[Event]:
        """What it said since the last call."""
        yield from map(self._decoder.decode, self._lines.new())

    def wait_until_ready(self) -> Ready:
        """Wait for brokers and workers; the caller closes it after an error.

        Raises:
            HookbenchError: they cannot be had; the text says why.
        """
        deadline_ns = self._clock.monotonic_ns() + int(_START_TIMEOUT_S * NS_PER_S)
        while True:
            ended = not self.alive  # looked at first: what it said before its end is still read
            for event in self.events():
                if isinstance(event, Ready):
                    return event
                if isinstance(event, Refused):
                    raise HookbenchError(event.text)
            if ended:
                raise HookbenchError(f"the backstage process ended: {self.why_it_ended()}")
            if self._clock.monotonic_ns() > deadline_ns:
                raise HookbenchError(f"brokers and workers not ready in {_START_TIMEOUT_S:.0f} s")
            gevent.sleep(_POLL_S)

    def tell(self, command: Command) -> None:
        """Say something to it; it listens until it is asked to finish."""
        append_line(self.folder / COMMANDS_FILE, command)

    def ask_to_finish(self, finish: Finish) -> None:
        """Let it drain and account."""
        put_file(self.folder / FINISH_FILE, finish)

    def why_it_ended(self) -> str:
        """Exit code and the end of its log."""
        log = (self.folder / _LOG_FILE).read_text(errors="replace")
        return f"exit code {self._child.exit_code}, {log[-_LOG_TAIL_CHARACTERS:].strip() or '-'}"

    def close(self) -> None:
        """End the process and all that it started, and remove its folder."""
        try:
            self._child.stop(timeout_s=_STOP_TIMEOUT_S)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
