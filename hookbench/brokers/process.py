"""Child processes that are stopped with the parent, by id, whatever happens to it."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import psutil

from hookbench.clock import NS_PER_S, SystemClock

__all__ = ["Child", "is_stopped", "spawn"]

_TETHER = Path(__file__).with_name("tether.py")
_POLL_S = 0.01
_STOPPED = b"Tt"
_PROC = Path("/proc")


def is_stopped(pid: int) -> bool:
    """Whether SIGSTOP has reached a process, all of its threads; False if there is none.

    The signal is taken by one thread. Where all cores are busy the others go on until that one has
    its turn, and a server answers a request that was sent after the signal.
    """
    try:
        if not (_PROC / "self").exists():
            return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
        threads = [path.read_bytes() for path in (_PROC / str(pid) / "task").glob("*/stat")]
    except (OSError, psutil.NoSuchProcess):
        return False
    # The state follows the name, which is in brackets and may hold any character.
    return bool(threads) and all(text.rpartition(b") ")[2][:1] in _STOPPED for text in threads)


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

    def pause(self, *, timeout_s: float = 10.0) -> None:
        """SIGSTOP, and wait until it is stopped, unless it has ended.

        Raises:
            TimeoutError: it goes on.
        """
        self.signal(signal.SIGSTOP)
        clock = SystemClock()
        deadline_ns = clock.monotonic_ns() + int(timeout_s * NS_PER_S)
        while self.exit_code is None and not is_stopped(self.pid):
            if clock.monotonic_ns() >= deadline_ns:
                raise TimeoutError(f"{self.name} (pid {self.pid}) goes on after SIGSTOP")
            clock.block(_POLL_S / 10)

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
