"""A power cut: every node of a broker dies, and its disk holds what it held a while ago.

SIGKILL alone is no power cut, for what a process has written is in the page cache and survives it.
So each data folder is rolled back to a copy that was taken before (hazard N10).
"""

import asyncio
import shutil
import signal
import tempfile
from pathlib import Path

import msgspec

from hookbench.clock import NS_PER_MS, NS_PER_S, sleep_until
from hookbench.errors import FaultError, SettingError
from hookbench.faults.base import Fault, FaultNotFiredError, Targets
from hookbench.faults.process import end_process, start_again, stop_process
from hookbench.faults.sync_calls import SyncCalls

__all__ = ["PowerCut"]

_MIN_ROLLBACK_S = 0.1


class _Copies(msgspec.Struct):
    """Data folders of the nodes as they were at one moment.

    Attributes:
        folder: holds the copies, called as the nodes are.
        data: each node's own data folder.
        taken_ns: when, monotonic.
        calls: counts what the nodes asked of their disks since.
    """

    folder: Path
    data: dict[str, Path]
    taken_ns: int
    calls: SyncCalls | None = None


class PowerCut(Fault, frozen=True, kw_only=True, tag="power_cut"):
    """All nodes killed at once, rolled back by ``rollback_s``, and started after ``for_s``.

    All nodes are stopped while they are copied, so that the copies are of one moment and no file
    is half written. What the kernel held at that moment is taken to have been on the disk; what
    came later is lost, also where the broker had synced it. The record has the number of fsync and
    fdatasync calls in between: with none, a real cut could have lost just this.

    Attributes:
        rollback_s: how long before the cut the copy is taken.
        count_syncs: trace the calls, which slows the broker down between copy and cut.
    """

    rollback_s: float
    count_syncs: bool = True

    @property
    def lead_s(self) -> float:
        """The copy is taken before."""
        return self.rollback_s

    @property
    def may_repeat(self) -> bool:
        """What was prepared before is used up by the first try."""
        return False

    def check(self) -> None:
        """Refuse another target, and a copy that would be taken before the load."""
        if self.target not in ("redis", "nats"):
            raise SettingError(f"fault {self.name}: target {self.target!r}: use redis or nats")
        if not _MIN_ROLLBACK_S <= self.rollback_s <= self.at_s:
            raise SettingError(
                f"fault {self.name}: rollback_s {self.rollback_s}: use between {_MIN_ROLLBACK_S}"
                f" and at_s {self.at_s}"
            )

    def needs(self) -> dict[str, int]:
        """The broker."""
        return {self.target: 1}

    async def prepare(self, targets: Targets) -> None:
        """Copy the data folders of all nodes at one moment.

        Raises:
            FaultError: there is no room for the copies, or a file cannot be read.
        """
        administration, clock = targets.administration, targets.clock
        nodes = administration.nodes(self.target)
        data = {node: administration.data_folder(node) for node in nodes}
        parent = data[nodes[0]].parent
        folder = Path(tempfile.mkdtemp(prefix=f"{self.target}-before-cut-", dir=parent))
        copies = _Copies(folder=folder, data=data, taken_ns=clock.monotonic_ns())
        targets.memory.keep(self, copies)
        try:
            for node in nodes:
                await stop_process(targets, node)
            copies.taken_ns = clock.monotonic_ns()
            await asyncio.to_thread(_copy, data, folder)
            if self.count_syncs:
                pids = [targets.process(node).pid for node in nodes]
                copies.calls = await SyncCalls.begin(pids, folder, clock)
        except OSError as error:
            raise FaultError(f"{self.name}: no copy of {parent}: {error}; make room") from error
        finally:
            for node in nodes:
                targets.process(node).signal(signal.SIGCONT)
        stopped_ms = (clock.monotonic_ns() - copies.taken_ns) / NS_PER_MS
        targets.memory.note(self, "stopped for its copy ms", round(stopped_ms, 1))

    async def inject(self, targets: Targets) -> None:
        """Kill all nodes, and roll their folders back.

        Raises:
            FaultNotFiredError: no node was running.
            FaultError: a folder could not be rolled back.
        """
        copies: _Copies = targets.memory.kept(self)
        running = [node for node in copies.data if targets.process(node).exit_code is None]
        if not running:
            raise FaultNotFiredError(f"no node of {self.target} was running")
        clock = targets.clock
        await sleep_until(copies.taken_ns + int(self.rollback_s * NS_PER_S), clock)
        if copies.calls is not None:
            copies.calls.look()
        cut_ns = clock.monotonic_ns()
        # Side by side: a node that lived on for a moment would serve without the others.
        await asyncio.gather(*(end_process(targets, node, signal.SIGKILL) for node in running))
        rolled_back_s = (cut_ns - copies.taken_ns) / NS_PER_S
        targets.memory.note(self, "rolled back s", round(rolled_back_s, 3))
        targets.memory.note(self, "fsync calls in between", await _count(targets, copies))
        try:
            await asyncio.to_thread(_roll_back, copies.data, copies.folder)
        except OSError as error:
            raise FaultError(f"{self.name}: {copies.folder} is not in place: {error}") from error

    async def heal(self, targets: Targets) -> None:
        """Start the nodes again, and remove the copies."""
        copies: _Copies | None = targets.memory.take(self)
        if copies is None:
            return
        if copies.calls is not None:
            copies.calls.stop()
        try:
            for node in copies.data:
                start_again(targets, node)
        finally:
            await asyncio.to_thread(shutil.rmtree, copies.folder, ignore_errors=True)


async def _count(targets: Targets, copies: _Copies) -> str:
    """The number of calls, or why there is none: what was not counted is not 0."""
    if copies.calls is None:
        return "not counted (count_syncs is off)"
    number = await copies.calls.end(targets.clock)
    return f"not counted ({copies.calls.problem})" if number is None else str(number)


def _copy(data: dict[str, Path], folder: Path) -> None:
    for node, source in data.items():
        # A child of Redis writes its append-only file anew under such a name; it is not stopped.
        shutil.copytree(source, folder / node, ignore=shutil.ignore_patterns("temp-*"))


def _roll_back(data: dict[str, Path], folder: Path) -> None:
    for node, target in data.items():
        shutil.rmtree(target)
        shutil.move(folder / node, target)
