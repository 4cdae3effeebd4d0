"""How often a worker looks for cycles."""

import gc
import weakref

import pytest

from hookbench.worker.collector import NEW_OBJECTS, collect_seldom


@pytest.fixture
def collector():
    """As it was before, afterwards."""
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


class Node:
    """Part of a cycle."""

    def __init__(self):
        self.itself = self


@pytest.mark.usefixtures("collector")
def test_a_thousand_objects_that_live_cost_no_look():
    before = gc.get_stats()[0]["collections"]
    collect_seldom()
    looks = gc.get_stats()[0]["collections"]
    held = [[] for _ in range(NEW_OBJECTS // 2)]
    assert gc.get_stats()[0]["collections"] == looks >= before
    assert len(held) == NEW_OBJECTS // 2


@pytest.mark.usefixtures("collector")
def test_a_cycle_goes_all_the_same():
    collect_seldom()
    gone = weakref.ref(Node())
    assert gone() is not None
    held = [[] for _ in range(2 * NEW_OBJECTS)]
    assert gone() is None
    assert len(held) == 2 * NEW_OBJECTS
