"""Which planted bugs the search of the simulator finds: ``python -m tests.mutations.simulated``.

Seeds rise from 1 on until one fails, in stages. The first is hardened, over the whole timeline and
in single phases. A bug that is not seen there, because hardened does not run its code or because
another measure makes it harmless, is searched under guide, with the measures that its code belongs
to and without those that make good for it, and then without any. What no schedule asks for, such as
a stop with tasks in hand, is in the last stage: the scenario that the bug has on real brokers runs
over simulated ones, and the seed is that of the network. A seed counts only if the planted code has
harmed a task, and the code without it survives the same. Each bug has a process of its own.
"""

import argparse
import dataclasses
import functools
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from hookbench.ledger.model import Verdict
from hookbench.migration.phases import Design, Phase
from hookbench.sim.explore import quiet
from hookbench.sim.redis.scripts import ScriptEngine
from hookbench.sim.schedule import draw_schedule
from hookbench.sim.trial import Scope, try_schedule
from tests.mutations.planting import Trace
from tests.mutations.silence import HARMLESS, HEALED, NOT_CALLED
from tests.mutations.simulated_scene import try_scenario
from tests.mutations.table import MUTATIONS
from tests.mutations.unseen import UNSEEN

__all__ = [
    "MOST_HARDENED",
    "MOST_SEEDS",
    "STAGES",
    "Search",
    "Sought",
    "contradictions",
    "seek",
    "seek_apart",
]

MOST_SEEDS = 40
MOST_HARDENED = 8
"""A seed of all phases with all measures takes as long as ten of the other stages."""
_SLOW_S = 1.2
"""Of a handler: two workers of four slots do fewer tasks than come."""
_ALONE = (Phase.REDIS_ONLY, Phase.DUAL_WRITE, Phase.NATS_PRIMARY)
_SCHEDULE = 2
"""The version of what is drawn: another one would need other seeds and reasons."""
_GUIDE = {"design": Design.GUIDE, "schedule": _SCHEDULE}
_HARDENED = {"design": Design.HARDENED, "schedule": _SCHEDULE}
_BARE = "ack_after,leases,message_ids,outbox"
"""Measures whose code has bugs of its own; a done-store, reconciliation or growing pauses would
make good for them."""


class OwnScenario(msgspec.Struct, frozen=True):
    """In the place of a scope: what the bug is planted into on real brokers."""


STAGES = {
    "hardened": (
        Scope(**_HARDENED, phases=tuple(Phase)),
        *(Scope(**_HARDENED, phases=(phase,)) for phase in _ALONE),
    ),
    # Nothing in it has a reason to be overtaken, so an order is one that can be asked for.
    "measures": (
        *(Scope(**_GUIDE, phases=(phase,), measures=_BARE, max_inversions=0) for phase in _ALONE),
        # With a backlog a task still waits when what was not answered is put again.
        Scope(**_GUIDE, phases=(Phase.REDIS_ONLY,), measures=_BARE, service_s=_SLOW_S),
    ),
    "guide": tuple(Scope(**_GUIDE, phases=(phase,)) for phase in _ALONE),
    "scenario": (OwnScenario(),),
}
"""What is searched, one stage after the other; the scopes of a stage take turns."""
_FIRST = next(iter(STAGES))
_ENOUGH_UNCALLED = 10
"""After so many seeds that never called the planted code no further one is tried."""
_TIMEOUT_S = 900.0


class Search(msgspec.Struct, frozen=True, kw_only=True):
    """What one stage of the search for a planted bug came to.

    Attributes:
        seeds: how many were tried; the last of them failed if the bug was seen.
        scope: of the seed that failed, with its phases, or the scenario; empty if none did.
        cause: its first cause, by its key; empty if none failed.
        calls: of the planted code, over all these seeds.
        harmed: tasks that the planted code says it harmed, over all these seeds.
        broken: seeds whose run broke down with the bug in place, which is no bug that was seen.
        cpu_s: seconds of CPU.
    """

    seeds: int
    scope: str = ""
    cause: str = ""
    calls: int = 0
    harmed: int = 0
    broken: int = 0
    cpu_s: float = 0.0

    @property
    def seen(self):
        """Whether a seed failed."""
        return bool(self.cause)

    @property
    def silence(self):
        """How it was not seen, in the fewest words; empty if it was."""
        if self.seen:
            return ""
        if self.calls == 0:
            return NOT_CALLED
        return HARMLESS if self.harmed == 0 else HEALED


class Sought(msgspec.Struct, frozen=True, kw_only=True):
    """One planted bug.

    Attributes:
        name: of the mutation.
        stages: by the name of the stage; the last is the one that showed it, if any did.
    """

    name: str
    stages: dict[str, Search]

    @property
    def seen_by(self):
        """The stage that showed it; empty if none did."""
        return next((name for name, search in self.stages.items() if search.seen), "")

    @property
    def silence(self):
        """How it was not seen, by stage."""
        return {name: search.silence for name, search in self.stages.items() if not search.seen}


def seek(mutation, *, most=MOST_SEEDS, engine=None):
    """Search for a planted bug, in this process."""
    engine = engine or ScriptEngine()
    stages = {}
    with tempfile.TemporaryDirectory(prefix="hookbench-mutation-") as name:
        search = _Search(mutation, engine, Path(name))
        for stage, scopes in STAGES.items():
            stages[stage] = search.run(
                scopes, min(most, MOST_HARDENED) if stage == _FIRST else most
            )
            if stages[stage].seen:
                break
    return Sought(name=mutation.name, stages=stages)


def contradictions(found):
    """What a search says otherwise than ``unseen.py``, or that nothing shows the bug."""
    told = ", ".join(f"{how} under {stage}" for stage, how in found.silence.items())
    if not found.seen_by:
        return [f"{found.name}: no stage shows it ({told})"]
    if found.seen_by == _FIRST and found.name in UNSEEN:
        return [f"{found.name}: seen under {_FIRST}, and not unseen, as unseen.py has it"]
    if found.seen_by != _FIRST and found.name not in UNSEEN:
        return [f"{found.name}: seen by {found.seen_by} ({told}), and unseen.py has no reason"]
    return []


class _Search:
    """Tries seeds with a bug in place."""

    def __init__(self, mutation, engine, folder):
        self._mutation, self._engine, self._folder = mutation, engine, folder
        self._calls = self._runs = 0

    def run(self, scopes, most):
        """Rising seeds, each in every scope, until one fails that does not without the bug."""
        begin_s = time.process_time()
        self._calls = harmed = broken = seed = 0
        found = {}
        while not found and seed < most and (self._calls or seed < _ENOUGH_UNCALLED):
            seed += 1
            for scope in scopes:
                self._runs += 1
                trace = Trace(self._folder / str(self._runs))
                with self._mutation.planted(trace), self._counted():
                    trial = self._try(scope, seed)
                harmed_here = len(trace.harmed())
                harmed += harmed_here
                keys = [cause.key for cause in trial.causes if cause.invariant]
                broken += not keys and trial.verdict is Verdict.UNKNOWN
                # Planted code that fails by itself is no bug that was seen either.
                if keys and harmed_here and self._is_clean(scope, seed):
                    found = {"scope": self._name_of(scope), "cause": keys[0]}
                    break
        return Search(
            seeds=seed,
            calls=self._calls,
            harmed=harmed,
            broken=broken,
            cpu_s=round(time.process_time() - begin_s, 1),
            **found,
        )

    def _counted(self):
        """With a count of the calls of the planted code."""

        def plant(planted, _trace):
            @functools.wraps(planted)
            def counted(*arguments, **more):
                self._calls += 1
                return planted(*arguments, **more)

            return counted

        counting = dataclasses.replace(self._mutation, plant=plant)
        return counting.planted(None)

    def _name_of(self, scope):
        if isinstance(scope, OwnScenario):
            return f"scenario {self._mutation.scenario.__name__}"
        return scope.name

    def _try(self, scope, seed):
        with quiet():
            if isinstance(scope, OwnScenario):
                return try_scenario(self._mutation.scenario, seed, self._engine)
            faults = draw_schedule(seed, scope.span)
            return try_schedule(scope.plan, faults, seed, engine=self._engine)

    def _is_clean(self, scope, seed):
        return self._try(scope, seed).verdict is Verdict.VALID


def seek_apart(name, *, most=MOST_SEEDS):
    """Search for the bug of a name in a process of its own.

    Raises:
        RuntimeError: the process failed, or took too long; the text ends with what it said.
    """
    command = [sys.executable, "-m", __spec__.name, "--only", name, "--seeds", str(most)]
    try:
        done = subprocess.run(
            [*command, "--json", "--here"],
            capture_output=True,
            check=False,
            timeout=_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"{name}: no end within {_TIMEOUT_S:g} s") from error
    if done.returncode != 0:
        raise RuntimeError(f"{name}: {done.stderr.decode()[-2000:]}")
    return msgspec.json.decode(done.stdout, type=Sought)


def main():
    """Search for all bugs, or for those that are named; a line for each as it ends."""
    parser = argparse.ArgumentParser(prog=f"python -m {__spec__.name}", description=__doc__)
    parser.add_argument("--only", nargs="*", help="names of bugs; by default all")
    parser.add_argument("--seeds", type=int, default=MOST_SEEDS, help="at the most, for each")
    parser.add_argument("--json", action="store_true", help="one object for each bug")
    parser.add_argument("--here", action="store_true", help="in this process")
    options = parser.parse_args()
    known = {item.name: item for item in MUTATIONS}
    names = options.only or list(known)
    for name in names:
        if name not in known:
            parser.error(f"{name}: there is no such bug; known are {', '.join(known)}")
    for name in names:
        if options.here:
            found = seek(known[name], most=options.seeds)
        else:
            found = seek_apart(name, most=options.seeds)
        text = msgspec.json.encode(found).decode() if options.json else _line(found)
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


def _line(found):
    told = [
        f"{search.seeds} seeds under {stage}: "
        + (f"{search.cause} ({search.scope})" if search.seen else search.silence)
        + (f", {search.broken} broke down" if search.broken else "")
        for stage, search in found.stages.items()
    ]
    return f"{found.name}: {'; '.join(told)}"


if __name__ == "__main__":
    main()
