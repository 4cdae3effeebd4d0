"""Makes the trials of a matrix: each a short rehearsal of one phase."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec
import psutil

from hookbench.clock import NS_PER_S, Clock
from hookbench.errors import BrokerNotFoundError, HookbenchError, ResultsError, SettingError
from hookbench.ledger.model import Verdict
from hookbench.rehearsal.counted import read_counted
from hookbench.rehearsal.matrix_book import (
    DueTrial,
    MatrixBook,
    SessionRecord,
    TrialRecord,
    environment_changes,
)
from hookbench.rehearsal.matrix_figures import disturbed, measure_trial
from hookbench.rehearsal.matrix_plan import StoredPlan, cell_settings
from hookbench.rehearsal.others import OthersMeter
from hookbench.rehearsal.progress import SilentProgress
from hookbench.rehearsal.run import Rehearsal
from hookbench.rehearsal.settings import RehearsalSettings
from hookbench.rehearsal.stage import utc_now_label
from hookbench.results.environment import read_environment
from hookbench.results.store import remove_run

__all__ = ["MAX_KEPT", "MatrixRun", "MatrixTeller", "Progress"]

RUNS_FOLDER = "runs"
MAX_KEPT = 10
"""Runs of trials that do not stand which are kept, to see why."""
_RUN = re.compile(r"\d{4,}-.+")
_END = (SettingError, ResultsError, BrokerNotFoundError)
"""What the next trial would meet as well."""


class Progress(NamedTuple):
    """How far a matrix is; ``remaining_s`` is ``None`` before the first trial."""

    made: int
    total: int
    remaining_s: float | None


class MatrixTeller(Protocol):
    """Somebody who shows how far a matrix is."""

    def say(self, text: str) -> None:
        """A line that stays."""
        ...

    def begins(self, due: DueTrial, progress: Progress) -> None:
        """A trial begins."""
        ...

    def ended(self, record: TrialRecord, progress: Progress) -> None:
        """It is in the book."""
        ...


class MatrixRun:
    """Makes what is left of a plan; ``run`` may be cancelled at any await, and tidies up.

    Args:
        folder: of the matrix, held by this process.
        stored: its plan.
        clock: of this process.
        teller: is told each trial.
        as_scenario: settings as the TOML that is kept with a run.

    Raises:
        ResultsError: the book cannot be read.
    """

    def __init__(
        self,
        folder: Path,
        stored: StoredPlan,
        *,
        clock: Clock,
        teller: MatrixTeller,
        as_scenario: Callable[[RehearsalSettings], str],
    ) -> None:
        self._runs = folder / RUNS_FOLDER
        self._plan = stored.plan
        self._clock = clock
        self._teller = teller
        self._as_scenario = as_scenario
        self.book = MatrixBook(folder, stored)

    async def run(self) -> None:
        """Make every trial that is due, one after the other, and write each into the book.

        Raises:
            HookbenchError: no trial can be made.
            asyncio.CancelledError: the trial under way is dropped; what is in the book stays.
        """
        self._remove_leftovers()
        due = self.book.due()
        if not due:
            return
        environment = read_environment()
        if self.book.sessions:
            for text in environment_changes(self.book.sessions[-1].environment, environment):
                self._teller.say(f"changed   {text}")
        started = utc_now_label(self._clock.wall_ns())
        self.book.add(SessionRecord(started=started, environment=environment))
        while due:
            self._teller.begins(due[0], self._progress(due))
            record = await self._make(due[0])
            self.book.add(record)
            due = self.book.due()
            self._teller.ended(record, self._progress(due))

    def _progress(self, due: list[DueTrial]) -> Progress:
        made = len(self.book.trials)
        return Progress(made, made + len(due), self.book.remaining_s(due))

    def _remove_leftovers(self) -> None:
        """Runs that no line of the book names: their trial was killed."""
        named = {record.run for record in self.book.trials.values()}
        for path in self._runs.iterdir() if self._runs.is_dir() else ():
            if _RUN.fullmatch(path.name) and f"{RUNS_FOLDER}/{path.name}" not in named:
                shutil.rmtree(path)

    async def _make(self, due: DueTrial) -> TrialRecord:
        settings = cell_settings(self._plan, due.trial, out=self._runs)
        rehearsal = Rehearsal(
            settings,
            clock=self._clock,
            teller=SilentProgress(),
            scenario_toml=self._as_scenario(settings),
        )
        begin_ns, others = self._clock.monotonic_ns(), OthersMeter(self._clock)
        record = TrialRecord(
            index=due.index,
            trial=due.trial,
            attempt=due.attempt,
            session=len(self.book.sessions),
            verdict=Verdict.UNKNOWN,
            seconds=0.0,
            load_average=round(psutil.getloadavg()[0], 2),
        )
        try:
            folder, manifest = await rehearsal.run()
            record = measure_trial(
                record, read_counted(folder, warm_up_s=self._plan.warm_up_s), manifest, settings
            )
        except _END:
            self._drop(rehearsal.folder)
            raise
        except HookbenchError as error:  # this trial says nothing; the next one may
            record = msgspec.structs.replace(record, why=str(error), again=True)
        except BaseException:
            self._drop(rehearsal.folder)
            raise
        seconds = (self._clock.monotonic_ns() - begin_ns) / NS_PER_S
        record = disturbed(record, others.cores(), most=self._plan.most_others_cores)
        kept = self._keep(rehearsal.folder, again=record.again)
        return msgspec.structs.replace(record, seconds=round(seconds, 2), run=kept)

    def _keep(self, folder: Path | None, *, again: bool) -> str | None:
        """The name of the run's folder if it stays."""
        kept = sum(record.run is not None for record in self.book.trials.values())
        if folder is None or not again or kept >= MAX_KEPT:
            self._drop(folder)
            return None
        return f"{RUNS_FOLDER}/{folder.name}"

    def _drop(self, folder: Path | None) -> None:
        if folder is not None and folder.exists():
            remove_run(folder)
