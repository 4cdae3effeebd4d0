"""The search: many seeds of one scope, each judged, over several processes, in a book."""

import itertools
import logging
import multiprocessing
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager

from hookbench.ledger.model import Verdict
from hookbench.sim.book import SeedEntry
from hookbench.sim.coverage import cells_of
from hookbench.sim.redis.scripts import ScriptEngine
from hookbench.sim.schedule import draw_schedule
from hookbench.sim.trial import Cause, Scope, try_schedule

__all__ = ["MAX_JOBS", "explore", "explore_scopes", "quiet", "try_seed"]

MAX_JOBS = 64
_AHEAD = 4
"""Seeds that wait for each process."""


def try_seed(scope: Scope, seed: int, commit: str, engine: ScriptEngine | None = None) -> SeedEntry:
    """The entry of one seed: its schedule is drawn, run and judged."""
    begin_s = time.process_time()
    faults = draw_schedule(seed, scope.span)
    trial = try_schedule(scope.plan, faults, seed, engine=engine)
    causes: dict[str, int] = {}
    for cause in trial.causes:
        causes[cause.key] = causes.get(cause.key, 0) + cause.count
    return SeedEntry(
        seed=seed,
        commit=commit,
        scope=scope.name,
        verdict=trial.verdict,
        digest=trial.digest,
        faults=faults,
        fired=len(trial.firings),
        causes=causes,
        cells=cells_of(trial.firings),
        accepted=trial.accepted,
        lost=trial.lost,
        stuck=trial.stuck,
        duplicated=trial.duplicated,
        failing="" if trial.verdict is Verdict.VALID else _first_text(trial.causes),
        cpu_s=round(time.process_time() - begin_s, 4),
    )


def _first_text(causes: Sequence[Cause]) -> str:
    return causes[0].text if causes else "no reason was given"


def explore(scope: Scope, seeds: Sequence[int], commit: str, *, jobs: int) -> Iterator[SeedEntry]:
    """Try seeds of one scope; see ``explore_scopes``."""
    return explore_scopes([(scope, seed) for seed in seeds], commit, jobs=jobs)


def explore_scopes(
    wanted: Iterable[tuple[Scope, int]], commit: str, *, jobs: int
) -> Iterator[SeedEntry]:
    """Try seeds; entries as they come, in the order in which they are wanted with one job.

    Args:
        wanted: what is searched, with the seed.
        commit: of the code, for the entries.
        jobs: processes; 1 for none but this one.
    """
    if jobs == 1:
        engine = ScriptEngine()
        for scope, seed in wanted:
            with quiet():
                entry = try_seed(scope, seed, commit, engine)
            yield entry
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin) as pool:
        left = iter(wanted)
        running: set[Future[SeedEntry]] = set()
        try:
            while True:
                for scope, seed in itertools.islice(left, jobs * _AHEAD - len(running)):
                    running.add(pool.submit(_try_in_process, scope, seed, commit))
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from sorted((item.result() for item in done), key=lambda item: item.seed)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


_ENGINE: list[ScriptEngine] = []
"""Of this process of a pool: it takes longer to make one than to run a seed."""


def _begin() -> None:
    _ENGINE.append(ScriptEngine())


def _try_in_process(scope: Scope, seed: int, commit: str) -> SeedEntry:
    with quiet():
        return try_seed(scope, seed, commit, _ENGINE[0])


@contextmanager
def quiet() -> Iterator[None]:
    """What workers and clients log of faults is of no use without their times."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
