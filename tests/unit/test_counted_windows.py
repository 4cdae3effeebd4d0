"""Windows of time of a trial: every finished task is in one, by when it was due."""

import numpy as np
import pytest

from hookbench.rehearsal.counted import CountedTasks

SECOND = 1_000_000_000


def counted(due_s, latency_ms):
    """Tasks that were due at these times, as if after no warm-up, accepted then, and all done."""
    tasks = CountedTasks.__new__(CountedTasks)
    due_ns = (np.array(due_s) * SECOND).astype(np.int64)
    every = np.ones(len(due_ns), dtype=bool)

    class Columns:
        intended_ns = accepted_ns = due_ns
        done_ns = due_ns + (np.array(latency_ms) * 1e6).astype(np.int64)
        accepted = every
        done_count = every.astype(np.int64)

    tasks.columns = Columns()
    tasks.begin_ns, tasks.end_ns = int(due_ns.min()), int(due_ns.max())
    tasks.finished = tasks._synthetic = every
    return tasks


@pytest.mark.parametrize(
    ("seconds", "tasks", "windows"),
    [(1.0, 1, 4), (1.0, 10, 4), (1.0, 11, 3), (2.0, 1, 2), (9.0, 1, 1), (1.0, 99, 1)],
)
def test_windows_are_as_long_as_asked_and_hold_enough(seconds, tasks, windows):
    found = counted(np.linspace(5, 9, 40), np.arange(40)).windows(seconds=seconds, tasks=tasks)
    assert len(found) == windows
    latencies_ns = np.concatenate([window.end_to_end_ns for window in found])
    assert latencies_ns.tolist() == [index * 1_000_000 for index in range(40)]
    assert all(abs(len(window.end_to_end_ns) - 40 / windows) <= 1 for window in found), (
        "they are equally long"
    )
    assert found[0].begin_ns == 5 * SECOND
    assert [one.end_ns for one in found[:-1]] == [other.begin_ns for other in found[1:]]


def test_a_window_may_be_empty():
    found = counted([0.0, 0.1, 2.9, 3.0], [1, 2, 3, 4]).windows(seconds=1.0, tasks=1)
    assert [len(window.end_to_end_ns) for window in found] == [2, 0, 2]
    assert found[1].growth == 0


def test_a_backlog_grows_where_more_is_accepted_than_done():
    first, second = counted(np.linspace(0, 2, 200), [999.0] * 200).windows(seconds=1.0, tasks=1)
    assert (first.accepted, second.accepted) == (100, 100)
    assert first.done == 1
    assert first.growth == pytest.approx(0.99)
    assert second.done == pytest.approx(100, abs=1)
    assert abs(second.growth) <= 0.01
