"""Latencies: buckets finer than a millisecond, and the records of a ledger as they are written."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from _protocol import Histogram

from hookbench.clock import NS_PER_MS, NS_PER_S
from hookbench.ledger.events import Event
from hookbench.ledger.tail import LedgerTail, Records

__all__ = ["LiveLedger", "bucket_ms", "histogram", "percentile_ms", "percentiles"]

_STEPS: tuple[tuple[float, int], ...] = ((1.0, 3), (10.0, 2), (100.0, 1), (1_000.0, 0))
"""Below so many milliseconds, round to so many decimals: three significant digits."""
_COARSE_DECIMALS = -1
_MOST_EARLY = 50_000

Ints = npt.NDArray[np.int64]


def bucket_ms(latency_ms: float) -> float:
    """The bucket of a latency; takes the place of ``locust.stats.bucket_response_time``."""
    for bound_ms, decimals in _STEPS:
        if latency_ms < bound_ms:
            return round(latency_ms, decimals)
    return round(latency_ms, _COARSE_DECIMALS)


def histogram(latencies_ns: Ints) -> Histogram:
    """All latencies in buckets."""
    if len(latencies_ns) == 0:
        return Histogram()
    exact_ms = latencies_ns / NS_PER_MS
    bucketed = np.round(exact_ms, _COARSE_DECIMALS)
    for bound_ms, decimals in reversed(_STEPS):
        bucketed = np.where(exact_ms < bound_ms, np.round(exact_ms, decimals), bucketed)
    values, counts = np.unique(bucketed, return_counts=True)
    return Histogram(
        count=len(exact_ms),
        total_ms=float(exact_ms.sum()),
        min_ms=float(exact_ms.min()),
        max_ms=float(exact_ms.max()),
        buckets=list(zip(values.tolist(), counts.tolist(), strict=True)),
    )


def percentile_ms(found: Histogram, percentile: float) -> float:
    """The value that so many percent of the samples do not exceed."""
    wanted = max(1, math.ceil(found.count * percentile / 100))
    for value_ms, count in found.buckets:
        wanted -= count
        if wanted <= 0:
            return min(value_ms, found.max_ms)
    return found.max_ms


def percentiles(values_ns: Ints) -> dict[str, int] | None:
    """``p50``, ``p99`` and ``max``, ``None`` for no values."""
    if len(values_ns) == 0:
        return None
    return {
        "p50": int(np.percentile(values_ns, 50)),
        "p99": int(np.percentile(values_ns, 99)),
        "max": int(values_ns.max()),
    }


class LiveLedger:
    """Follows a ledger while it is written: end-to-end latencies for the live row of Locust.

    The account of a run is not made from this, but from the whole ledger when it is closed.
    """

    def __init__(self, folder: Path) -> None:
        self._workers = LedgerTail(folder, "worker")
        self._producers = LedgerTail(folder, "producer")
        self._waiting: dict[bytes, int] = {}
        self._early_ns: dict[bytes, int] = {}
        """Ends of tasks whose put is not here yet, since it comes from another machine; and ends
        beyond the first, which nobody asks for: so only the latest are kept."""
        self._lags_ns: list[Ints] = []
        self.offered = 0
        """Tasks that producers have begun to send."""
        self.accepted = 0
        """Tasks that were acknowledged to their caller."""
        self.redelivered = 0
        """Deliveries of a task beyond its first, as the broker or the worker counts them."""
        self.dead = 0
        """Dead letters."""

    def read(self) -> Histogram:
        """Latencies of the tasks that were first done since the last call."""
        # Workers first: whatever they did is preceded by what the producers wrote.
        done = list(self._workers.read())
        for records in done:
            again = (records["event"] == Event.RECEIVED) & (records["attempt"] > 1)
            self.redelivered += int(again.sum())
            self.dead += int((records["event"] == Event.DEAD).sum())
        found: list[int] = []
        for records in self._producers.read():
            found += self._note_puts(records)
        found += self._latencies_ns(done)
        return histogram(np.array(found, dtype=np.int64))

    def _note_puts(self, records: Records) -> Iterator[int]:
        """Latencies of those that are done already."""
        put = records[records["event"] == Event.PUT_INVOKED]
        self.offered += len(put)
        self.accepted += int((records["event"] == Event.ACCEPTED).sum())
        intended_ns = np.where(put["value"] > 0, put["value"], put["time_ns"])
        self._lags_ns.append(put["time_ns"] - intended_ns)
        for key, due_ns in zip(_keys(put), intended_ns.tolist(), strict=True):
            ended_ns = self._early_ns.pop(key, None)
            if ended_ns is None:
                self._waiting[key] = due_ns
            else:
                yield ended_ns - due_ns
        for key in _keys(records[records["event"] == Event.REFUSED]):
            self._waiting.pop(key, None)

    def take_lag_p99_ms(self) -> float:
        """p99 of the schedule lag of what was sent since the last call; 0 for nothing."""
        lags_ns = np.concatenate(self._lags_ns) if self._lags_ns else np.zeros(0, dtype=np.int64)
        self._lags_ns = []
        return float(np.percentile(lags_ns, 99)) / NS_PER_MS if len(lags_ns) else 0.0

    def oldest_s(self, now_ns: int) -> float:
        """Since the task was due that has waited for its end the longest; 0 without one."""
        if not self._waiting:
            return 0.0
        return max(0.0, (now_ns - min(self._waiting.values())) / NS_PER_S)

    def _latencies_ns(self, parts: list[Records]) -> Iterator[int]:
        for records in parts:
            ended = (records["event"] == Event.DEAD) | (records["event"] == Event.SUPERSEDED)
            for key in _keys(records[ended]):
                self._waiting.pop(key, None)
            done = records[records["event"] == Event.DONE]
            for key, time_ns in zip(_keys(done), done["time_ns"].tolist(), strict=True):
                intended_ns = self._waiting.pop(key, None)
                if intended_ns is not None:
                    yield time_ns - intended_ns
                    continue
                self._early_ns[key] = time_ns
                if len(self._early_ns) > _MOST_EARLY:
                    del self._early_ns[next(iter(self._early_ns))]


def _keys(records: Records) -> list[Any]:
    return [bytes(item) for item in records["task"]]
