"""Child processes that are stopped with the parent, by id, whatever happens to it."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from hookbench.clock import NS_PER_S, SystemClock

__all__ = ["Child", "spawn"]

_TETHER = Path(__file__).with_name("tether.py")
_POLL_S = 0.01


class Child:
    """One running child process."""

    def __init__(self, name: str, process: "subprocess.Popen[bytes]") -> None:
        self.name = name
        self._process = process

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Exit code, negative for a signal; ``None`` while it runs."""
        return self._process.poll()

    def signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self._process.poll() is None:
            self._process.send_signal(number)

    def stop(self, *, timeout_s: float = 10.0) -> int:
        """SIGTERM, then SIGKILL after ``timeout_s``; the exit code."""
        self.signal(signal.SIGCONT)  # a stopped process does not see SIGTERM
        self.signal(signal.SIGTERM)
        try:
            return self._process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        """SIGKILL; the exit code."""
        self.signal(signal.SIGKILL)
        return self._process.wait()

    def wait(self, timeout_s: float) -> int | None:
        """Wait for the end; ``None`` if it still runs after ``timeout_s``."""
        clock = SystemClock()
        deadline_ns = clock.monotonic_ns() + int(timeout_s * NS_PER_S)
        while (code := self._process.poll()) is None:
            if clock.monotonic_ns() >= deadline_ns:
                return None
            clock.block(_POLL_S)
        return code


def spawn(
    name: str,
    command: Sequence[str | Path],
    *,
    output: IO[bytes] | int = subprocess.DEVNULL,
    stdout: IO[bytes] | int | None = None,
    env: Mapping[str, str] | None = None,
) -> Child:
    """Start a command in a session of its own, tethered to this process.

    The command gets no terminal signals: Ctrl-C reaches the parent alone, which stops its
    children in order. Must be called on a thread that lives as long as the child should: Linux
    ends the child with the thread that started it.

    Args:
        name: for messages.
        command: an absolute path and its arguments.
        output: where stderr goes, and stdout unless ``stdout`` is given.
        stdout: where stdout goes instead.
        env: the whole environment, by default this process's.
    """
    argv = [sys.executable, "-S", "-E", str(_TETHER), str(os.getpid()), *map(str, command)]
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=output if stdout is None else stdout,
        stderr=output,
        env=None if env is None else dict(env),
        start_new_session=True,
    )
    return Child(name, process)
