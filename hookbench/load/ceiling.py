"""What the harness itself can do: its producer over a queue that takes every task at once."""

import resource
import statistics
import tempfile
from pathlib import Path

import msgspec

from hookbench.clock import NS_PER_S
from hookbench.ledger.events import LedgerWriter
from hookbench.load.fine_clock import FineClock
from hookbench.load.generator import GeneratorSettings, LoadGenerator
from hookbench.migration.phases import Phase

__all__ = ["Ceiling", "measure_ceiling"]


class Ceiling(msgspec.Struct, frozen=True, kw_only=True):
    """One way of loading, and the medians of its repeats.

    Attributes:
        loop: ``windowed`` or ``open``.
        rate_per_s: that was asked for; 0 for as fast as it goes.
        repeats: how many.
        tasks_per_s: that were offered.
        cores: CPU seconds per second of the producer.
        lag_p50_us, lag_p99_us: schedule lag of an open loop; 0 of another one.
    """

    loop: str
    rate_per_s: float
    repeats: int
    tasks_per_s: float
    cores: float
    lag_p50_us: float
    lag_p99_us: float


async def measure_ceiling(
    *, loop: str, rate_per_s: float = 0.0, count: int, repeats: int, callers: int = 100
) -> Ceiling:
    """Offer tasks through ``ReceiveSyncService``, with a ledger, to a queue that is none.

    Args:
        loop: ``windowed``, or ``open`` with a rate.
        rate_per_s: of an open loop.
        count: tasks of each repeat.
        repeats: how often.
        callers: of a windowed loop.
    """
    found = [await _once(loop, rate_per_s, count, callers) for _ in range(repeats)]
    rates, cores, p50_us, p99_us = (
        statistics.median(values) for values in zip(*found, strict=True)
    )
    return Ceiling(
        loop=loop,
        rate_per_s=rate_per_s,
        repeats=repeats,
        tasks_per_s=rates,
        cores=cores,
        lag_p50_us=p50_us,
        lag_p99_us=p99_us,
    )


async def _once(
    loop: str, rate_per_s: float, count: int, callers: int
) -> tuple[float, float, float, float]:
    clock = FineClock()
    settings = GeneratorSettings(
        phase=Phase.NATS_ONLY,
        null=True,
        loop=loop,
        callers=callers,
        rate_per_s=rate_per_s or 1.0,
        count=count,
    )
    with tempfile.TemporaryDirectory(prefix="hookbench-ceiling-") as folder:
        ledger = LedgerWriter(Path(folder), role="producer", writer=0, clock=clock)
        try:
            generator = LoadGenerator(settings, clock=clock, ledger=ledger)
            start_ns, start_s = clock.monotonic_ns(), _cpu_s()
            totals = await generator.run()
            seconds = (clock.monotonic_ns() - start_ns) / NS_PER_S
            used_s = _cpu_s() - start_s
        finally:
            ledger.close()
            clock.close()
    lag_us = (totals.lag_p50_ns / 1e3, totals.lag_p99_ns / 1e3)
    return (totals.accepted / seconds, used_s / seconds, *lag_us)


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
