"""Counts what a process asks of its disk, with strace."""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from hookbench.brokers.process import Child, spawn
from hookbench.clock import Clock
from hookbench.faults.base import wait_until

__all__ = ["SyncCalls"]

_TRIES = 300  # of 10 ms each
# A call that another thread interrupts is told twice, the second time as "resumed".
_CALL = re.compile(r"\b(?:fsync|fdatasync)\(")


class SyncCalls:
    """The fsync and fdatasync calls of processes, from now on.

    A traced process is slower: the kernel stops it at each of its system calls.

    Attributes:
        problem: why nothing is counted, ``None`` if it is.
    """

    def __init__(self, child: Child | None, trace: Path, problem: str | None) -> None:
        self._child = child
        self._trace = trace
        self.problem = problem

    @classmethod
    async def begin(cls, pids: Sequence[int], folder: Path, clock: Clock) -> "SyncCalls":
        """Attach to the processes, which may be stopped; returns once it sees their calls.

        Args:
            pids: of the processes.
            folder: for the trace and what strace says.
            clock: for the wait.
        """
        trace, log = folder / "sync-calls.trace", folder / "strace.log"
        program = shutil.which("strace")
        if program is None:
            return cls(None, trace, "there is no strace")
        command = [program, "-f", "-e", "trace=fsync,fdatasync", "-o", str(trace)]
        for pid in pids:
            command += ["-p", str(pid)]
        with log.open("wb") as output:
            child = spawn("strace", command, output=output)

        def attached() -> bool:
            text = log.read_text(errors="replace")
            return child.exit_code is not None or all(
                f"Process {pid} attached" in text for pid in pids
            )

        in_time = await wait_until(attached, clock, tries=_TRIES)
        if in_time and child.exit_code is None:
            return cls(child, trace, None)
        child.stop()
        said = log.read_text(errors="replace").strip().splitlines()
        return cls(None, trace, f"strace: {said[-1] if said else 'it did not attach'}")

    def look(self) -> None:
        """Notice, while the processes still run, that strace does not any more."""
        if self._child is not None and self._child.exit_code is not None:
            self.problem = f"strace had ended with {self._child.exit_code} before"
            self._child = None

    async def end(self, clock: Clock) -> int | None:
        """How many there were, ``None`` if they were not counted; strace is gone then."""
        if self._child is None:
            return None
        child, self._child = self._child, None
        # It ends by itself with the processes, and has written all that it saw when it is gone.
        await wait_until(lambda: child.exit_code is not None, clock, tries=_TRIES)
        child.stop()
        return len(_CALL.findall(self._trace.read_text(errors="replace")))

    def stop(self) -> None:
        """Let go of the processes."""
        if self._child is not None:
            self._child.stop()
            self._child = None
