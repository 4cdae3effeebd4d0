"""The book of a matrix: what is due, what a killed process leaves, how long it will take."""

import msgspec
import pytest

from hookbench.brokers.durability import Durability
from hookbench.errors import ResultsError
from hookbench.ledger.model import Verdict
from hookbench.rehearsal.matrix_book import (
    MatrixBook,
    SessionRecord,
    TrialRecord,
    environment_changes,
    hold_folder,
    hours_and_minutes,
)
from hookbench.rehearsal.matrix_plan import MatrixPlan, new_stored_plan
from tests import run_by_hand

STORED = new_stored_plan(
    MatrixPlan(
        queues=("redis_list", "jetstream"),
        phases=(),
        durability=(Durability.LAZY,),
        payload=(64,),
        kinds=("throughput", "latency"),
        repeats=2,
    )
)
TRIALS = len(STORED.trials)
ENVIRONMENT = msgspec.structs.replace(
    run_by_hand.ENVIRONMENT, packages={"redis": "5.2", "uvloop": "0.21"}
)


def record(index, attempt=1, **changes):
    values = {
        "index": index,
        "trial": STORED.trials[index],
        "attempt": attempt,
        "session": 1,
        "verdict": Verdict.VALID,
        "seconds": 10.0,
        "load_average": 0.5,
        **changes,
    }
    return TrialRecord(**values)


def due_of(book):
    return [(item.index, item.attempt) for item in book.due()]


def test_every_trial_is_due_until_it_is_in_the_book(tmp_path):
    book = MatrixBook(tmp_path, STORED)
    assert due_of(book) == [(index, 1) for index in range(TRIALS)]
    book.add(SessionRecord(started="then", environment=ENVIRONMENT))
    for index in range(3):
        book.add(record(index))
    again = MatrixBook(tmp_path, STORED)
    assert due_of(again) == due_of(book) == [(index, 1) for index in range(3, TRIALS)]
    assert again.sessions == book.sessions
    assert list(again.trials.values()) == list(book.trials.values())


def test_what_does_not_stand_is_made_once_more_at_the_end(tmp_path):
    book = MatrixBook(tmp_path, STORED)
    book.add(record(0, verdict=Verdict.UNKNOWN, again=True))
    book.add(record(1, verdict=Verdict.INVALID, again=False))  # a hazard of the design
    assert due_of(book)[0] == (2, 1)
    assert due_of(book)[-1] == (0, 2)
    for index in range(2, TRIALS):
        book.add(record(index))
    assert due_of(book) == [(0, 2)]
    book.add(record(0, 2, verdict=Verdict.UNKNOWN, again=True, why="it rained"))
    assert due_of(book) == []
    assert book.standing(0).why == "it rained"


@pytest.mark.parametrize("cut", [1, 40, 200])
def test_a_last_line_that_was_cut_off_is_made_again(tmp_path, cut):
    book = MatrixBook(tmp_path, STORED)
    for index in range(2):
        book.add(record(index))
    data = book.path.read_bytes()
    line = msgspec.json.encode(record(2)) + b"\n"
    assert cut < len(line)
    book.path.write_bytes(data + line[:cut])
    again = MatrixBook(tmp_path, STORED)
    assert due_of(again)[0] == (2, 1)
    assert book.path.read_bytes() == data + line[:cut], "who only reads changes nothing"
    again.add(record(2))
    assert book.path.read_bytes() == data + line
    assert due_of(MatrixBook(tmp_path, STORED))[0] == (3, 1)


def test_a_line_that_does_not_belong_is_named(tmp_path):
    book = MatrixBook(tmp_path, STORED)
    book.add(record(0))
    line = book.path.read_bytes()
    other = msgspec.json.encode(record(1, trial=STORED.trials[2])) + b"\n"
    for wrong, told in (
        (line, "line 2: trial 0, attempt 1 is there twice"),
        (other, "line 2: trial 1 is another one in the plan"),
        (b'{"type": "trial"}\n', "line 2: Object missing required field"),
        (b"hello\n", "line 2: JSON is malformed"),
    ):
        book.path.write_bytes(line + wrong)
        with pytest.raises(ResultsError, match=told):
            MatrixBook(tmp_path, STORED)


def test_the_rest_takes_the_median_of_its_kind(tmp_path):
    book = MatrixBook(tmp_path, STORED)
    assert book.remaining_s(book.due()) is None
    kinds = {"throughput": iter((20.0, 30.0, 1000.0)), "latency": iter((5.0,))}
    for index, trial in enumerate(STORED.trials):
        seconds = next(kinds[trial.kind], None)
        if seconds is not None:
            book.add(record(index, seconds=seconds))
    left = book.due()
    assert sorted(item.trial.kind for item in left) == ["latency"] * 3 + ["throughput"]
    assert book.remaining_s(left) == 3 * 5.0 + 30.0
    assert book.remaining_s([]) == 0


def test_a_kind_that_was_not_made_yet_takes_the_median_of_all(tmp_path):
    book = MatrixBook(tmp_path, STORED)
    index = next(i for i, trial in enumerate(STORED.trials) if trial.kind == "latency")
    book.add(record(index, seconds=8.0))
    assert book.remaining_s(book.due()) == 8.0 * (TRIALS - 1)


def test_hours_and_minutes():
    found = [hours_and_minutes(item) for item in (0, 1, 60, 61, 3600, 3601, 100 * 3600)]
    assert found == ["0:00", "0:01", "0:01", "0:02", "1:00", "1:01", "100:00"]


def test_what_changed_between_two_sessions_is_said():
    other = msgspec.structs.replace(
        ENVIRONMENT, commit="def5678", packages={"redis": "5.3", "numpy": "2.0", "uvloop": "0.21"}
    )
    assert environment_changes(ENVIRONMENT, ENVIRONMENT) == []
    assert environment_changes(ENVIRONMENT, other) == [
        "commit abc1234 → def5678",
        "numpy - → 2.0",
        "redis 5.2 → 5.3",
    ]


def test_one_process_at_a_time_makes_trials_of_a_matrix(tmp_path):
    with (
        hold_folder(tmp_path / "new"),
        pytest.raises(ResultsError, match="another hookbench makes its trials now"),
        hold_folder(tmp_path / "new"),
    ):
        pass
    with hold_folder(tmp_path / "new"):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match="choose another folder"), hold_folder(tmp_path / "file"):
        pass


def test_a_second_attempt_that_says_nothing_does_not_take_the_first_away(tmp_path):
    book = MatrixBook(tmp_path, STORED)
    book.add(record(0, again=True, why="others", figures={"p50_ms": 1.0}))
    assert book.due()[-1].attempt == 2
    book.add(record(0, attempt=2, verdict=Verdict.UNKNOWN, again=True, why="it rained"))
    assert book.standing(0).why == "others"
    assert all(item.index != 0 for item in book.due()), "two attempts are all"
    book.add(record(1, again=True, figures={"p50_ms": 1.0}))
    book.add(record(1, attempt=2, figures={"p50_ms": 2.0}))
    assert book.standing(1).attempt == 2
