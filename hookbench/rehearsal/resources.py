"""What each process of a run cost: CPU, memory, disk, network."""

from collections.abc import Callable

import psutil

from hookbench.clock import Clock
from hookbench.rehearsal.traffic import Traffic
from hookbench.results.store import ResourceUse

__all__ = ["ResourceMeter"]

SAMPLE_S = 0.5


class _Reading:
    """The latest counters of one process; they stay when it is gone."""

    def __init__(self, process: psutil.Process) -> None:
        self.process = process
        self.cpu_s = 0.0
        self.rss_max_bytes = 0
        self.read_bytes = 0
        self.written_bytes = 0

    def update(self) -> None:
        try:
            with self.process.oneshot():
                times = self.process.cpu_times()
                self.cpu_s = times.user + times.system + times.children_user
                self.cpu_s += times.children_system
                self.rss_max_bytes = max(self.rss_max_bytes, self.process.memory_info().rss)
                if hasattr(self.process, "io_counters"):
                    counters = self.process.io_counters()
                    self.read_bytes = counters.read_bytes
                    self.written_bytes = counters.write_bytes
        except psutil.Error:
            return  # it has ended: the last reading stands


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
                    reading = _Reading(psutil.Process(pid))
                except psutil.NoSuchProcess:
                    continue
                self._readings[name, pid] = reading
            reading.update()

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
                cpu_s=round(sum(reading.cpu_s for reading in readings), 3),
                rss_max_bytes=max(reading.rss_max_bytes for reading in readings),
                read_bytes=sum(reading.read_bytes for reading in readings),
                written_bytes=sum(reading.written_bytes for reading in readings),
                received_bytes=_sum(bytes_by_name[name], 0),
                sent_bytes=_sum(bytes_by_name[name], 1),
            )
            for name, readings in sorted(by_name.items())
        ]


def _sum(pairs: list[tuple[int, int] | None], index: int) -> int | None:
    """The sum over processes, ``None`` if one of them was not measured."""
    known = [pair[index] for pair in pairs if pair is not None]
    return sum(known) if len(known) == len(pairs) else None
