"""Windows of time of a trial: every finished task is in one, by when it was due."""

import numpy as np
import pytest

from hookbench.rehearsal.counted import CountedTasks

SECOND = 1_000_000_000


def counted(due_s, latency_ms):
    """Tasks that were due at these times, as if after no warm-up, and all done."""
    tasks = CountedTasks.__new__(CountedTasks)
    due_ns = (np.array(due_s) * SECOND).astype(np.int64)

    class Columns:
        intended_ns = due_ns
        done_ns = due_ns + (np.array(latency_ms) * 1e6).astype(np.int64)

    tasks.columns = Columns()
    tasks.begin_ns, tasks.end_ns = int(due_ns.min()), int(due_ns.max())
    tasks.finished = np.ones(len(due_ns), dtype=bool)
    return tasks


@pytest.mark.parametrize(
    ("seconds", "tasks", "windows"),
    [(1.0, 1, 4), (1.0, 10, 4), (1.0, 11, 3), (2.0, 1, 2), (9.0, 1, 1), (1.0, 99, 1)],
)
def test_windows_are_as_long_as_asked_and_hold_enough(seconds, tasks, windows):
    due_s = np.linspace(5, 9, 40)
    found = counted(due_s, np.arange(40)).windows_ns(seconds=seconds, tasks=tasks)
    assert len(found) == windows
    assert np.concatenate(found).tolist() == [index * 1_000_000 for index in range(40)]
    assert {len(window) for window in found} <= {40 // windows, 40 // windows + 1}


def test_a_window_may_be_empty():
    found = counted([0.0, 0.1, 2.9, 3.0], [1, 2, 3, 4]).windows_ns(seconds=1.0, tasks=1)
    assert [len(window) for window in found] == [2, 0, 2]
