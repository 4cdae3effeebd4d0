"""Stored runs in blocks of time: histograms and completions of each block of each phase.

A block is what a comparison draws at random (see ``results.compare``): the tasks of one second
share its queue, its neighbours on the machine and its stalls, so they are no sample of their own.
"""

from collections import Counter
from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt
from scipy import sparse

from hookbench.clock import NS_PER_S
from hookbench.results.buckets import BucketCounts
from hookbench.results.run import WHAT, Run

__all__ = [
    "LAG",
    "Histograms",
    "PhaseBlocks",
    "PhaseKey",
    "histograms_of",
    "join_histograms",
    "phase_blocks",
]

MOST_BLOCKS = 30
"""A longer phase has longer blocks, not more of them: the longer, the less they depend on each
other, and 10 to 30 batches are enough (Schmeiser, Operations Research 30, 1982)."""

LAG = "lag"
PhaseKey = tuple[str, int]
"""Name of a phase, and which of its occurrences in the timeline, from 1."""


class Histograms(msgspec.Struct, frozen=True):
    """One histogram for each block.

    Attributes:
        values_ns: upper ends of the buckets in use, ascending.
        counts: sparse, shape (blocks, buckets).
    """

    values_ns: npt.NDArray[np.int64]
    counts: sparse.csr_array

    @property
    def total(self) -> int:
        """Tasks in all of them."""
        return int(self.counts.sum())


class PhaseBlocks(msgspec.Struct, frozen=True, kw_only=True):
    """The blocks of one phase of one run, in order.

    Attributes:
        block_s: length of a block.
        latencies: by ``end_to_end`` and ``enqueue``, of the synthetic tasks that were due in each;
            and by ``lag``, how late their put began.
        done: synthetic and pushed tasks whose first completion fell in each.
    """

    block_s: int
    latencies: dict[str, Histograms]
    done: npt.NDArray[np.int64]


def phase_blocks(run: Run, warm_up_s: float) -> dict[PhaseKey, PhaseBlocks]:
    """The blocks of each phase; one that is too short has none.

    A rest at the end of a phase that is no whole block is left out.

    Args:
        run: whose.
        warm_up_s: how much of the first phase is left out, from its start.
    """
    phases = run.phases
    seen: Counter[str] = Counter()
    keys: list[PhaseKey] = []
    starts, widths, counts = [], [], []
    for place, row in enumerate(phases.to_dict("records")):
        seen[row["phase"]] += 1
        warm_up_ns = round(warm_up_s * NS_PER_S) if place == 0 else 0
        start_ns = min(int(row["start_ns"]) + warm_up_ns, int(row["end_ns"]))
        length_s = (int(row["end_ns"]) - start_ns) // NS_PER_S
        width_s = max(1, length_s // MOST_BLOCKS)
        keys.append((row["phase"], seen[row["phase"]]))
        starts.append(start_ns)
        widths.append(width_s)
        counts.append(length_s // width_s)
    grid = _Grid(starts, widths, counts)
    latencies = {what: BucketCounts(grid.blocks) for what in (*WHAT, LAG)}
    done = np.zeros(grid.blocks, dtype=np.int64)
    for part in run.parts("tasks", _COLUMNS):
        mine = part[part["offered"]].copy()
        mine[f"{LAG}_ns"] = mine["invoked_ns"] - mine["intended_ns"]
        for what, found in latencies.items():
            rows = mine[~mine["pushed"] & mine[f"{what}_ns"].notna()]
            block = grid.blocks_of(rows["intended_ns"].to_numpy(dtype="int64"))
            values = np.maximum(rows[f"{what}_ns"].to_numpy(dtype="int64"), 0)
            found.add(block[block >= 0], values[block >= 0])
        block = grid.blocks_of(mine["done_ns"].dropna().to_numpy(dtype="int64"))
        done += np.bincount(block[block >= 0], minlength=grid.blocks)
    first = np.cumsum([0, *counts])
    whole = {what: _histograms(found, grid.blocks) for what, found in latencies.items()}
    return {
        key: PhaseBlocks(
            block_s=widths[place],
            latencies={
                what: Histograms(found.values_ns, found.counts[first[place] : first[place + 1]])
                for what, found in whole.items()
            },
            done=done[first[place] : first[place + 1]],
        )
        for place, key in enumerate(keys)
    }


def join_histograms(parts: Sequence[Histograms]) -> Histograms:
    """The blocks of several runs, one below the other, over the buckets of all."""
    values_ns = np.unique(np.concatenate([part.values_ns for part in parts]))
    rows = []
    for part in parts:
        found = part.counts.tocoo()
        column = np.searchsorted(values_ns, part.values_ns)[found.col]
        shape = (part.counts.shape[0], len(values_ns))
        rows.append(sparse.csr_array((found.data, (found.row, column)), shape=shape))
    return Histograms(values_ns, sparse.vstack(rows, format="csr"))


class _Grid:
    """Blocks of all phases in one row; a phase's are numbered on from those of the one before."""

    def __init__(self, starts: list[int], widths_s: list[int], counts: list[int]) -> None:
        self._starts = np.array(starts, dtype=np.int64)
        self._widths_ns = np.array(widths_s, dtype=np.int64) * NS_PER_S
        self._counts = np.array(counts, dtype=np.int64)
        self._first = np.cumsum([0, *counts])[:-1]
        self.blocks = int(self._counts.sum())

    def blocks_of(self, times_ns: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The block of each time, -1 for none."""
        if not len(self._starts):
            return np.full(len(times_ns), -1, dtype=np.int64)
        phase = np.maximum(np.searchsorted(self._starts, times_ns, side="right") - 1, 0)
        block = (times_ns - self._starts[phase]) // self._widths_ns[phase]
        inside = (block >= 0) & (block < self._counts[phase])
        out: npt.NDArray[np.int64] = np.where(inside, self._first[phase] + block, -1)
        return out


def histograms_of(
    block: npt.NDArray[np.int64], values_ns: npt.NDArray[np.int64], blocks: int
) -> Histograms:
    """Of values, 0 or more, each in its block, from 0."""
    counts = BucketCounts(blocks)
    counts.add(block, values_ns)
    return _histograms(counts, blocks)


def _histograms(found: BucketCounts, blocks: int) -> Histograms:
    group, value_ns, count = found.entries()
    values_ns, column = np.unique(value_ns, return_inverse=True)
    shape = (blocks, len(values_ns))
    return Histograms(values_ns, sparse.csr_array((count, (group, column)), shape=shape))


_COLUMNS = [
    "offered", "pushed", "intended_ns", "invoked_ns", "enqueue_ns", "end_to_end_ns", "done_ns",
]  # fmt: skip
