"""How trials of a matrix are made one after the other, with rehearsals that are not carried out."""

import asyncio

import msgspec
import pytest

from hookbench.brokers.durability import Durability
from hookbench.errors import BrokerNotFoundError, BrokerUnreachableError, ResultsError
from hookbench.ledger.model import Verdict
from hookbench.rehearsal import matrix
from hookbench.rehearsal.matrix import MatrixRun
from hookbench.rehearsal.matrix_book import MatrixBook, SessionRecord
from hookbench.rehearsal.matrix_plan import MatrixPlan, new_stored_plan
from hookbench.results.environment import read_environment

STORED = new_stored_plan(
    MatrixPlan(
        queues=("redis_list", "jetstream"),
        phases=(),
        durability=(Durability.LAZY,),
        payload=(64,),
        kinds=("latency",),
        repeats=2,
    )
)


class Told:
    """Keeps what it is told."""

    def __init__(self):
        self.said = []
        self.begun = []
        self.progress = []

    def say(self, text):
        self.said.append(text)

    def begins(self, due, progress):
        self.begun.append((due.index, due.attempt))
        self.progress.append(progress)

    def ended(self, _record, progress):
        self.progress.append(progress)


@pytest.fixture
def run_with(tmp_path, clock, monkeypatch):
    """Makes the matrix with rehearsals that end with these errors, one after the other."""

    def begin(errors):
        left = iter(errors)

        class Ending:
            def __init__(self, settings, **_named):
                self.settings = settings
                self.folder = None

            async def run(self):
                self.folder = self.settings.out / "0001-abc1234"
                self.folder.mkdir(parents=True, exist_ok=True)
                raise next(left)

        monkeypatch.setattr(matrix, "Rehearsal", Ending)
        monkeypatch.setattr(matrix.OthersMeter, "cores", lambda _meter: 0.0)
        told = Told()
        run = MatrixRun(
            tmp_path, STORED, clock=clock, teller=told, as_scenario=lambda _settings: ""
        )
        return run, told

    return begin


async def test_a_trial_that_fails_is_unknown_and_made_once_more_at_the_end(run_with):
    run, told = run_with([BrokerUnreachableError(f"it rained {n}") for n in range(8)])
    await run.run()
    assert told.begun == [(0, 1), (1, 1), (2, 1), (3, 1), (0, 2), (1, 2), (2, 2), (3, 2)]
    assert {item.verdict for item in run.book.trials.values()} == {Verdict.UNKNOWN}
    assert [run.book.standing(index).why for index in range(4)] == [
        f"it rained {n}" for n in range(4, 8)
    ]
    made = [(item.made, item.total) for item in told.progress]
    assert made == [(0, 4), (1, 5), (1, 5), (2, 6), (2, 6), (3, 7), (3, 7), (4, 8),
                    (4, 8), (5, 8), (5, 8), (6, 8), (6, 8), (7, 8), (7, 8), (8, 8)]  # fmt: skip
    assert told.progress[0].remaining_s is None
    assert told.progress[-1].remaining_s == 0
    again, told = run_with([])
    await again.run()
    assert told.begun == []
    assert len(again.book.sessions) == 1, "nothing was made, so there was no session"


@pytest.mark.parametrize(
    "error", [BrokerNotFoundError("no server"), ResultsError("no room"), asyncio.CancelledError()]
)
async def test_what_the_next_trial_would_meet_as_well_ends_the_matrix(run_with, tmp_path, error):
    run, told = run_with([BrokerUnreachableError("it rained"), error])
    with pytest.raises(type(error)):
        await run.run()
    assert told.begun == [(0, 1), (1, 1)]
    assert list(MatrixBook(tmp_path, STORED).trials) == [(0, 1)]
    assert not (tmp_path / "runs" / "0001-abc1234").exists()


async def test_few_runs_of_what_does_not_stand_are_kept(run_with, monkeypatch):
    monkeypatch.setattr(matrix, "MAX_KEPT", 1)
    run, _told = run_with([BrokerUnreachableError("it rained")] * 8)
    await run.run()
    kept = [record.run for record in run.book.trials.values()]
    assert kept == ["runs/0001-abc1234"] + [None] * 7


async def test_a_run_that_no_line_names_is_removed(run_with, tmp_path):
    for name in ("0007-abc1234", "0008-abc1234.partial", "notes"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    run, _told = run_with([ResultsError("no room")])
    with pytest.raises(ResultsError):
        await run.run()
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["notes"]


async def test_another_commit_is_said_when_a_session_begins(run_with, tmp_path):
    run, told = run_with([ResultsError("no room")])
    old = msgspec.structs.replace(read_environment(), commit="0ld0ld0")
    run.book.add(SessionRecord(started="then", environment=old))
    with pytest.raises(ResultsError):
        await run.run()
    assert len(told.said) == 1
    assert told.said[0].startswith("changed   commit 0ld0ld0 → ")
    assert len(MatrixBook(tmp_path, STORED).sessions) == 2
