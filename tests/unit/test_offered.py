import pytest

from hookbench.ledger.columns import TaskColumns
from hookbench.ledger.events import Event
from hookbench.ledger.offered import count_offered
from hookbench.ledger.read import read_ledger
from tests.histories import MS, History

START = 1_000 * MS
STARTS = [START, START + 10 * MS, START + 20 * MS]


@pytest.fixture
def history(tmp_path):
    return History(tmp_path)


def offer(history, number, intended_ns, *, who="producer.1"):
    history.say(who, Event.PUT_INVOKED, number, step=0, value=intended_ns)


def counts(history, starts=STARTS):
    for writer in history.writers.values():
        writer.close()
    return count_offered(TaskColumns(read_ledger(history.folder)), starts)


def test_a_task_counts_where_it_was_due_and_not_where_it_was_sent(history):
    history.clock.now_ns = START + 500 * MS  # all are sent long after the last step
    for number, offset_ns in enumerate([0, 9 * MS, 10 * MS - 1, 10 * MS, 20 * MS]):
        offer(history, number, START + offset_ns)
    assert counts(history) == [3, 1, 1]


def test_the_last_step_has_no_end(history):
    offer(history, 2, START + 900 * MS)
    assert counts(history) == [0, 0, 1]


def test_a_task_that_is_put_twice_counts_once_and_a_push_not_at_all(history):
    offer(history, 1, START)
    offer(history, 1, START + 10 * MS)
    offer(history, 2, START, who="hook-77.77")
    history.say("worker.2", Event.DONE, 3, step=0)
    assert counts(history) == [1, 0, 0]


def test_no_steps_and_no_tasks(history):
    history.say("worker.2", Event.DONE, 3, step=0)
    assert counts(history) == [0, 0, 0]
    assert count_offered(TaskColumns(read_ledger(history.folder)), []) == []
