"""What the search of the simulator finds under guide, on real brokers, and under hardened."""

import os
import subprocess
import sys

import msgspec
import pytest

from hookbench.ledger.model import Verdict
from hookbench.migration.phases import Design
from hookbench.results.store import load_manifest, resolve_run
from hookbench.scenarios.resolved import scenario_toml
from hookbench.sim.book import SeedEntry
from hookbench.sim.coverage import COVERED_STEPS, add_up
from hookbench.sim.explore import explore_scopes, quiet, try_seed
from hookbench.sim.redis.scripts import ScriptEngine
from hookbench.sim.replay import replay
from hookbench.sim.shrink import shrink
from hookbench.sim.story import tell_story
from hookbench.sim.trial import try_schedule
from tests.evidence.sim_scopes import all_scopes
from tests.evidence.simulated_hazards import COVERAGE, NOT_DRAWN, WANTED, FoundHazard
from tests.evidence.steps import Steps

SWEPT_SEEDS = 40
"""Of each scope, for the coverage; where a hazard is not among them, more of its scopes are."""
MOST_SEEDS = 200
MOST_SCHEDULES = 3
"""Schedules of one hazard that are shrunk and replayed, until one shows it on real brokers."""
TRIES = 2
LEAST_REPLAYED = 10
_REHEARSED = (0, 1, 3)
"""Exit codes of a rehearsal that came to a verdict."""
_TIMEOUT_S = 300.0


@pytest.mark.evidence(
    claim="Of the hazards that a schedule of the simulator can show, the search finds each under"
    f" guide within {MOST_SEEDS} seeds, at least {LEAST_REPLAYED} of them are shown on real brokers"
    " by a minimal schedule, and hardened is valid under all of these schedules.",
    seed=1,
)
@pytest.mark.timeout(5400)
def test_simulated_hazards(proof, tmp_path):
    coverage = covered(proof)
    proof.record(
        swept_scopes=len(all_scopes(Design.GUIDE)),
        swept_seeds=SWEPT_SEEDS,
        covered_cells=sum(len(row) for row in coverage.values()),
        coverable_cells=len(coverage) * len(COVERED_STEPS),
    )
    proof.record(**{f"{COVERAGE}{name}": row for name, row in coverage.items()})
    found = []
    steps = Steps("simulated_hazards", FoundHazard)
    for wanted in WANTED:
        made = steps.of(wanted.hazard)
        if made is None:
            with quiet():
                made = Search(wanted, tmp_path / wanted.hazard).run()
            steps.keep(wanted.hazard, made)
        proof.record(**{made.hazard: figures(made)})
        found.append(made)
    replayed = [item.hazard for item in found if item.replayed]
    proof.record(hazards=len(found), replayed=len(replayed), not_drawn=len(NOT_DRAWN))
    proof.conclude([*refuted(found), *too_few(replayed)])


def covered(proof):
    """Where faults of guide struck over some seeds of everything, by fault and step."""
    steps = Steps("simulated_hazards_swept", list[SeedEntry])
    entries = steps.of("swept")
    if entries is None:
        seeds = range(proof.seed, proof.seed + SWEPT_SEEDS)
        wanted = [(scope, seed) for scope in all_scopes(Design.GUIDE) for seed in seeds]
        entries = list(explore_scopes(wanted, proof.evidence.commit, jobs=os.cpu_count()))
        steps.keep("swept", entries)
    return add_up(item.cells for item in entries)


def figures(found):
    """Those of one hazard."""
    told = msgspec.to_builtins(found)
    told["story"] = "\n".join(found.story)
    return {name: value for name, value in told.items() if name != "hazard"}


def refuted(found):
    """What contradicts the claim for single hazards."""
    said = [
        f"{item.hazard}: not found within {MOST_SEEDS} seeds" for item in found if not item.seed
    ]
    return said + [
        f"{item.hazard}: hardened is {item.hardened} under the minimal schedule of seed"
        f" {item.seed}, and {item.hardened_drawn} under the whole one"
        for item in found
        if item.seed and {item.hardened, item.hardened_drawn} != {Verdict.VALID.value}
    ]


def too_few(replayed):
    """Whether less is shown on real brokers than is claimed."""
    few = len(replayed) < LEAST_REPLAYED
    return [f"only {', '.join(replayed) or 'none'} shown on real brokers"] if few else []


def rehearse(settings):
    """The manifest of one run on real brokers, in a process of its own.

    Raises:
        RuntimeError: it came to no verdict; the text ends with what it said.
    """
    path = settings.out.with_suffix(".toml")
    path.write_text(scenario_toml(settings))
    done = subprocess.run(
        [sys.executable, "-m", "hookbench", "run", str(path), f"--out={settings.out}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=_TIMEOUT_S,
    )
    if done.returncode not in _REHEARSED:
        raise RuntimeError(f"{path}: exit code {done.returncode}: {done.stderr[-2000:]}")
    return load_manifest(resolve_run("latest", settings.out))


class Search:
    """The search for one hazard; its runs on real brokers lie in a folder."""

    def __init__(self, wanted, out):
        self._wanted, self._out, self._engine = wanted, out, ScriptEngine()

    def run(self):
        """The first schedule that shows it, minimal, and the first that real brokers show."""
        found = FoundHazard(hazard=self._wanted.hazard)
        rehearsals, instead = 0, {}
        for number, (drawn, minimal) in enumerate(self._minimal_schedules()):
            if number == 0:
                found = self._first(drawn, minimal)
            made = replay(minimal, first_seed=1, tries=TRIES, out=self._out, rehearse=rehearse)
            rehearsals += made.tries
            instead |= dict.fromkeys(made.others)
            if made.found:
                scope = drawn[0].name
                found = msgspec.structs.replace(found, replayed=minimal.seed, replayed_in=scope)
            if made.found or number == MOST_SCHEDULES - 1:
                break
        told = "" if found.replayed else ", ".join(instead)
        return msgspec.structs.replace(found, rehearsals=rehearsals, instead=told)

    def _minimal_schedules(self):
        """Scope and faults as they were drawn, with the minimal schedule; seeds rise."""
        wanted = self._wanted
        for seed in range(1, MOST_SEEDS + 1):
            for scope in wanted.scopes:
                if not wanted.is_drawn(scope, seed):
                    continue
                entry = try_seed(scope, seed, "-", self._engine)
                key = wanted.key_in(entry.causes)
                if not key:
                    continue
                minimal = shrink(scope, entry.faults, seed, key, engine=self._engine)
                if minimal is not None and wanted.is_shown_by(minimal):
                    yield (scope, entry.faults), minimal

    def _first(self, drawn, minimal):
        scope, faults = drawn
        story = tell_story(minimal, engine=self._engine)
        return FoundHazard(
            hazard=self._wanted.hazard,
            seed=minimal.seed,
            scope=scope.name,
            cause=minimal.cause.key,
            faults=len(minimal.faults),
            events=len(story) - 2,  # the last two lines say what came of it
            schedule=", ".join(f"{fault.name} at {fault.at_s:g} s" for fault in minimal.faults),
            shrunk_in=minimal.tries,
            hardened=self._hardened(minimal.scope, minimal.faults, minimal.seed),
            hardened_drawn=self._hardened(scope, faults, minimal.seed),
            story=tuple(story),
        )

    def _hardened(self, scope, faults, seed):
        """The verdict of hardened with all measures under a schedule that guide fails under."""
        plan = msgspec.structs.replace(
            scope, design=Design.HARDENED, measures="", max_inversions=None
        ).plan
        return try_schedule(plan, faults, seed, engine=self._engine).verdict.value
