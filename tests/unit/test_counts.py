"""Jepsen's counts, and what must hold between them whatever happens."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hookbench.ledger.events import Event
from hookbench.ledger.model import Counts, Place
from tests.histories import History


@pytest.fixture
def history(tmp_path):
    return History(tmp_path)


PUTS = ("accepted", "refused", "doubtful", "silent", "nobody")
FATES = ("done", "twice", "dead", "superseded", "lying", "gone", "dropped")


def tell(history, number, put, fate):
    """One task: what its caller was told, and what became of it."""
    if put != "nobody":
        history.put(number, step=0, accepted=put == "accepted")
    if put in {"refused", "doubtful"}:
        history.say("producer.1", Event[put.upper()], number, step=0)
    if fate in {"done", "twice"}:
        history.work(number, step=0)
    if fate == "twice":
        history.work(number, step=0)
    if fate in {"dead", "superseded"}:
        history.take(number, step=0)
        history.say("worker.2", Event[fate.upper()], number, step=0)
    if fate == "dropped":
        history.take(number, step=0)
        history.say("worker.2", Event.ACK_SENT, number, step=0)
    if fate == "lying":
        history.lies(Place.REDIS_PENDING, number)


def test_every_count_once(history):
    for number, (put, fate) in enumerate(
        [
            ("accepted", "done"),
            ("accepted", "twice"),
            ("accepted", "lying"),
            ("accepted", "dropped"),
            ("refused", "done"),
            ("doubtful", "dead"),
            ("doubtful", "gone"),
            ("silent", "superseded"),
            ("nobody", "done"),
        ]
    ):
        tell(history, number, put, fate)
    assert history.account().counts == Counts(
        attempted=8,
        acknowledged=4,
        ok=5,
        lost=1,
        waiting=1,
        duplicated=1,
        recovered=3,
        unexpected=1,
    )


def test_a_run_without_tasks_has_zeros(history):
    history.writer("worker.2")
    counts = history.account().counts
    assert {getattr(counts, name) for name in Counts.__struct_fields__} == {0}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(PUTS), st.sampled_from(FATES)), max_size=15))
def test_what_holds_between_the_counts(tasks):
    with tempfile.TemporaryDirectory() as folder:
        history = History(Path(folder))
        history.writer("worker.2")
        for number, (put, fate) in enumerate(tasks):
            tell(history, number, put, fate)
        account = history.account()
    counts = account.counts
    put = [(what, fate) for what, fate in tasks if what != "nobody"]
    out = {"done", "twice", "dead", "superseded"}
    assert counts.attempted == len(put)
    assert counts.acknowledged == sum(what == "accepted" for what, _ in put)
    assert counts.ok == sum(fate in out for _, fate in put)
    assert counts.acknowledged + counts.recovered == counts.ok + counts.lost + counts.waiting
    assert counts.recovered == sum(what != "accepted" and fate in out for what, fate in put)
    assert counts.duplicated == sum(fate == "twice" for _, fate in put)
    assert counts.unexpected == sum(
        what == "nobody" and fate in out | {"dropped"} for what, fate in tasks
    )
    assert (account.tasks, account.lost) == (counts.attempted, counts.lost)
