"""What each process of a run cost: CPU, memory, disk, network.

The kernel adds what a child used to its parent when the child has ended. That is wanted for the
git processes of a worker, and not for processes that have a line of their own: what those used is
taken off the line of this process, which has started them.
"""

import os
from collections.abc import Callable

import psutil

from hookbench.clock import Clock
from hookbench.rehearsal.traffic import Traffic
from hookbench.results.store import ResourceUse

__all__ = ["ResourceMeter"]

SAMPLE_S = 0.5


class _Reading:
    """The latest counters of one process; they stay when it is gone.

    Args:
        process: which.
        mine: it is this one. It may be older than the run, so it is counted from the first reading.
    """

    def __init__(self, process: psutil.Process, *, mine: bool) -> None:
        self.process = process
        self.mine = mine
        self.used = (0.0, 0.0, 0.0)
        """CPU seconds, bytes read from the disk, bytes written."""
        self.rss_max_bytes = 0
        self._before = (0.0, 0.0, 0.0)
        if mine:
            self._before = self._counters()

    def _counters(self) -> tuple[float, float, float]:
        times = self.process.cpu_times()
        cpu_s = times.user + times.system + times.children_user + times.children_system
        if not hasattr(self.process, "io_counters"):
            return cpu_s, 0.0, 0.0
        counters = self.process.io_counters()
        return cpu_s, float(counters.read_bytes), float(counters.write_bytes)

    def update(self) -> None:
        try:
            with self.process.oneshot():
                now = self._counters()
                self.rss_max_bytes = max(self.rss_max_bytes, self.process.memory_info().rss)
        except psutil.Error:
            return  # it has ended: the last reading stands
        cpu_s, read, written = (new - old for new, old in zip(now, self._before, strict=True))
        self.used = (cpu_s, read, written)

    def take_off(self, others: list["_Reading"]) -> None:
        """Leave out what children used that have ended, and that are measured themselves."""
        cpu_s, read, written = (
            max(0.0, mine - sum(item.used[place] for item in others))
            for place, mine in enumerate(self.used)
        )
        self.used = (cpu_s, read, written)


class ResourceMeter:
    """Reads the counters of a changing set of processes.

    Args:
        processes: name and process id of each process that runs now; a name may get a new id.
        clock: for the time between two readings.
        traffic: reads the connections of processes.
    """

    def __init__(
        self,
        processes: Callable[[], list[tuple[str, int]]],
        clock: Clock,
        *,
        traffic: Traffic | None = None,
    ) -> None:
        self._processes = processes
        self._clock = clock
        self._traffic = traffic or Traffic()
        self._readings: dict[tuple[str, int], _Reading] = {}

    async def record(self) -> None:
        """Read twice a second, until cancelled."""
        while True:
            self.read()
            await self._clock.sleep(SAMPLE_S)

    def read(self) -> None:
        """Read every process that runs now."""
        processes = self._processes()
        self._traffic.read([pid for _name, pid in processes])
        for name, pid in processes:
            reading = self._readings.get((name, pid))
            if reading is None:
                try:
                    reading = _Reading(psutil.Process(pid), mine=pid == os.getpid())
                except psutil.Error:  # it has ended meanwhile
                    continue
                self._readings[name, pid] = reading
            reading.update()
        ended = [reading for key, reading in self._readings.items() if key not in set(processes)]
        for reading in self._readings.values():
            if reading.mine:
                reading.take_off(ended)

    def uses(self) -> list[ResourceUse]:
        """One line per name; processes that replaced each other are added up."""
        by_name: dict[str, list[_Reading]] = {}
        bytes_by_name: dict[str, list[tuple[int, int] | None]] = {}
        for (name, pid), reading in self._readings.items():
            by_name.setdefault(name, []).append(reading)
            bytes_by_name.setdefault(name, []).append(self._traffic.of(pid))
        return [
            ResourceUse(
                name=name,
                processes=len(readings),
                cpu_s=round(sum(reading.used[0] for reading in readings), 3),
                rss_max_bytes=max(reading.rss_max_bytes for reading in readings),
                read_bytes=int(sum(reading.used[1] for reading in readings)),
                written_bytes=int(sum(reading.used[2] for reading in readings)),
                received_bytes=_sum(bytes_by_name[name], 0),
                sent_bytes=_sum(bytes_by_name[name], 1),
            )
            for name, readings in sorted(by_name.items())
        ]


def _sum(pairs: list[tuple[int, int] | None], index: int) -> int | None:
    """The sum over processes, ``None`` if one of them was not measured."""
    known = [pair[index] for pair in pairs if pair is not None]
    return sum(known) if len(known) == len(pairs) else None
