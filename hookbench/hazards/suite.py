"""Runs hazards on brokers of their own, one after the other."""

import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from hookbench.brokers.durability import Durability
from hookbench.brokers.topology import open_topology
from hookbench.clock import NS_PER_S, Clock
from hookbench.errors import HeldBackError, HookbenchError
from hookbench.hazards.bench import Bench
from hookbench.hazards.findings import EXAMPLES
from hookbench.hazards.model import Hazard, HazardResult, Observation, Outcome, Protection
from hookbench.migration.phases import Design

__all__ = ["outcome_of", "run_hazard"]


async def run_hazard(
    hazard: Hazard,
    design: Design,
    *,
    measures: str = "",
    folder: Path | None = None,
    clock: Clock,
    seed: int = 0,
) -> HazardResult:
    """Reproduce one hazard on brokers of its own, which are stopped afterwards.

    A scenario that does not get through is an outcome, ``unknown``; a defect of the project's own
    is raised as it is.

    Args:
        hazard: the row.
        design: whose behaviour is looked at.
        measures: changes to the measures of the design, see ``parse_measures``.
        folder: keeps ledger, logs and data; by default nothing is kept.
        clock: of everything in this process.
        seed: of the task ids.
    """
    begin_ns = clock.monotonic_ns()
    masked = ""
    problem = ""
    steps: list[str] = []
    found: list[Observation] = []
    switches = hazard.switches if design is Design.GUIDE else ()
    try:
        async with _bench(hazard, design, switches, measures, folder, clock, seed) as bench:
            steps = bench.steps
            found = await _run(hazard, bench)
        if hazard.masked_by is not None and design is Design.GUIDE:
            aside = None if folder is None else folder / "masked"
            async with _bench(hazard, design, (), measures, aside, clock, seed) as bench:
                plain = await hazard.scenario(bench)
            masked = f"masked by {hazard.masked_by}: {_told(plain)}"
    except HookbenchError as error:
        problem = f"{type(error).__name__}: {error}"
    except TimeoutError as error:
        problem = f"no answer in time: {error}"
    harmed = [item for item in found if item.harm is hazard.harm and item.count > 0]
    return HazardResult(
        id=hazard.id,
        where=hazard.where,
        mechanism=hazard.mechanism,
        design=design,
        harm=hazard.harm,
        outcome=Outcome.UNKNOWN if problem else outcome_of(hazard, found),
        count=sum(item.count for item in harmed),
        tasks=tuple(task for item in harmed for task in item.tasks)[:EXAMPLES],
        observations=tuple(found),
        steps=tuple(steps),
        switches=switches,
        measures=measures,
        otherwise=hazard.otherwise,
        masked=masked,
        seconds=(clock.monotonic_ns() - begin_ns) / NS_PER_S,
        problem=problem,
    )


async def _run(hazard: Hazard, bench: Bench) -> list[Observation]:
    """What the scenario finds; that it was refused, if a gate holds it back for the row's reason.

    Raises:
        HeldBackError: for another reason, so that the scenario did not get through.
    """
    try:
        return await hazard.scenario(bench)
    except HeldBackError as error:
        if not {error.step, *error.conditions} & set(hazard.held_by):
            raise
        text = f"{bench.phases[-1].label} was not entered: {error}"
        return [Observation(text=text, protection=Protection.REFUSED, count=1)]


def outcome_of(hazard: Hazard, found: Sequence[Observation]) -> Outcome:
    """``shown`` if the row's harm was seen; else how it was kept away, if anything says so."""
    if any(item.harm is hazard.harm and item.count > 0 for item in found):
        return Outcome.SHOWN
    if any(item.harm is not None and item.count > 0 for item in found):
        return Outcome.OTHERWISE  # another harm than the one of the row
    protections = [item.protection for item in found if item.protection is not None]
    return Outcome(protections[0].value) if protections else Outcome.OTHERWISE


def _told(found: Sequence[Observation]) -> str:
    return "; ".join(item.text for item in found) or "nothing"


@asynccontextmanager
async def _bench(
    hazard: Hazard,
    design: Design,
    switches: Sequence[str],
    changes: str,
    folder: Path | None,
    clock: Clock,
    seed: int,
) -> AsyncIterator[Bench]:
    with _folder(folder) as work:
        topology = await open_topology(
            hazard.topology,
            work,
            Durability.LAZY if hazard.topology == "single" else Durability.REPLICATED,
        )
        try:
            bench = Bench(
                topology,
                work,
                design=design,
                switches=switches,
                changes=changes,
                gated=bool(hazard.held_by),
                clock=clock,
                seed=seed,
            )
            try:
                yield bench
            finally:
                await bench.close()
        finally:
            topology.stop()


@contextmanager
def _folder(folder: Path | None) -> Iterator[Path]:
    """``folder``, made; or one that is removed again."""
    if folder is not None:
        folder.mkdir(parents=True)
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="hookbench-hazard-") as name:
        yield Path(name)
