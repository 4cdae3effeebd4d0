"""Faults of processes: killed, stopped in their tracks, restarted in order."""

import signal

from hookbench.brokers.process import is_stopped
from hookbench.errors import SettingError
from hookbench.faults.base import Fault, FaultNotFiredError, Process, Targets, wait_until

__all__ = ["Kill", "Pause", "Restart", "end_process", "start_again", "stop_process"]

_TRIES = 1_000  # of 10 ms each


def _stopped(process: Process) -> bool:
    return is_stopped(process.pid)


async def stop_process(targets: Targets, target: str) -> None:
    """SIGSTOP, and wait until the kernel says that it is stopped.

    One that dies in that moment, of another fault, was not stopped: who takes its place is.

    Raises:
        FaultNotFiredError: it did not stop.
    """
    process = targets.process(target)
    told = 0

    def stopped() -> bool:
        nonlocal told
        if process.pid != told:
            told = process.pid
            process.signal(signal.SIGSTOP)
        return _stopped(process)

    if not await wait_until(stopped, targets.clock, tries=_TRIES):
        raise FaultNotFiredError(f"{target} (pid {process.pid}): it did not stop")


async def end_process(
    targets: Targets, target: str, number: signal.Signals, *, tries: int = _TRIES
) -> None:
    """Send a signal, and wait until the process is gone.

    One that has just ended by itself, or of another fault, is met in who takes its place; a broker,
    when it is back.

    Raises:
        FaultNotFiredError: it had ended before and nobody took its place, or it lives on.
    """
    process = targets.process(target)

    def runs() -> bool:
        return process.exit_code is None

    if not runs():
        await wait_until(runs, targets.clock, tries=tries)
    pid = process.pid
    if not runs():
        raise FaultNotFiredError(f"{target}: it had ended before")
    process.signal(number)

    def gone() -> bool:
        return process.exit_code is not None or process.pid != pid

    if not await wait_until(gone, targets.clock, tries=tries):
        raise FaultNotFiredError(f"{target} (pid {pid}): it lives on after {number.name}")


def start_again(targets: Targets, target: str) -> None:
    """Start what nobody else starts: the fleet fills the places of its processes."""
    process = targets.process(target)
    if process.exit_code is not None and not process.replaced:
        process.restart()


class Kill(Fault, frozen=True, kw_only=True, tag="kill"):
    """SIGKILL. The fleet replaces its processes, a broker starts again after ``for_s``."""

    async def inject(self, targets: Targets) -> None:
        """Kill it, and wait until it is gone."""
        await end_process(targets, self.target, signal.SIGKILL)

    async def heal(self, targets: Targets) -> None:
        """Start a broker again; a worker's or producer's place is filled by the fleet."""
        start_again(targets, self.target)


class Pause(Fault, frozen=True, kw_only=True, tag="pause"):
    """SIGSTOP, and SIGCONT after ``for_s``: connections stay open, nothing answers."""

    def check(self) -> None:
        """A pause needs an end."""
        if self.for_s <= 0:
            raise SettingError(f"{self.name}: for_s {self.for_s}: use more than 0")

    async def inject(self, targets: Targets) -> None:
        """Stop it, and wait until the kernel says that it is stopped."""
        await stop_process(targets, self.target)

    async def heal(self, targets: Targets) -> None:
        """Let it go on."""
        targets.process(self.target).signal(signal.SIGCONT)


class Restart(Fault, frozen=True, kw_only=True, tag="restart"):
    """SIGTERM, so that it ends in order; it starts again at once, or after ``for_s``."""

    async def inject(self, targets: Targets) -> None:
        """Ask it to end, and wait until it has."""
        await end_process(targets, self.target, signal.SIGTERM, tries=3 * _TRIES)

    async def heal(self, targets: Targets) -> None:
        """Start a broker again; a worker's or producer's place is filled by the fleet."""
        start_again(targets, self.target)
