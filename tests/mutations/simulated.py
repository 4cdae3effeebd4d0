"""Which planted bugs the search of the simulator finds: ``python -m tests.mutations.simulated``.

Seeds rise from 1 on until one fails, under hardened over the whole timeline. A bug that is not seen
there, because hardened does not run its code or because a measure makes it harmless, is searched
under guide in single phases; there a seed counts only if the code without the bug survives its
schedule. Each bug has a process of its own.
"""

import argparse
import dataclasses
import functools
import subprocess
import sys
import tempfile
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
from tests.mutations.table import MUTATIONS
from tests.mutations.unseen import UNSEEN

__all__ = [
    "MOST_SEEDS",
    "Search",
    "Sought",
    "contradictions",
    "seek",
    "seek_apart",
]

MOST_SEEDS = 60
_TIMELINE = (Scope(design=Design.HARDENED, phases=tuple(Phase)),)
_PHASES = tuple(
    Scope(design=Design.GUIDE, phases=(phase,))
    for phase in (Phase.REDIS_ONLY, Phase.DUAL_WRITE, Phase.NATS_PRIMARY)
)
_ENOUGH_UNCALLED = 10
"""After so many seeds that never called the planted code no further one is tried."""
_TIMEOUT_S = 900.0


class Search(msgspec.Struct, frozen=True, kw_only=True):
    """What the search for one planted bug under one design came to.

    Attributes:
        seeds: how many were tried; the last of them failed if the bug was seen.
        scope: of the seed that failed, with its phases; empty if none did.
        cause: its first cause, by its key; empty if none failed.
        calls: of the planted code, over all these seeds.
        harmed: tasks that the planted code says it harmed, over all these seeds.
    """

    seeds: int
    scope: str = ""
    cause: str = ""
    calls: int = 0
    harmed: int = 0

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
        guide: ``None`` where hardened showed it.
    """

    name: str
    hardened: Search
    guide: Search | None = None

    @property
    def seen(self):
        """Whether a seed failed under either design."""
        return self.hardened.seen or (self.guide is not None and self.guide.seen)


def seek(mutation, *, most=MOST_SEEDS, engine=None):
    """Search for a planted bug, in this process."""
    engine = engine or ScriptEngine()
    with tempfile.TemporaryDirectory(prefix="hookbench-mutation-") as name:
        search = _Search(mutation, engine, Path(name))
        hardened = search.run(_TIMELINE, most)
        guide = None if hardened.seen else search.run(_PHASES, most)
    return Sought(name=mutation.name, hardened=hardened, guide=guide)


def contradictions(found):
    """What a search says otherwise than ``unseen.py``; at most one sentence."""
    known = UNSEEN.get(found.name)
    if found.hardened.seen:
        return [f"{found.name}: seen under hardened, which unseen.py says it is not"] * bool(known)
    silence = found.hardened.silence
    if known is None:
        return [f"{found.name}: not seen under hardened ({silence}), and no reason is known"]
    if silence != known.hardened:
        return [f"{found.name}: {silence} under hardened, and not as unseen.py says"]
    if found.guide.silence != known.guide:
        how = found.guide.silence or "seen"
        return [f"{found.name}: {how} under guide, and not as unseen.py says"]
    return []


class _Search:
    """Tries seeds with a bug in place."""

    def __init__(self, mutation, engine, folder):
        self._mutation, self._engine, self._folder = mutation, engine, folder
        self._calls = 0

    def run(self, scopes, most):
        """Rising seeds, each in every scope, until one fails that does not without the bug."""
        self._calls = harmed = 0
        for seed in range(1, most + 1):
            for scope in scopes:
                trace = Trace(self._folder / f"{scope.design}-{scope.phases[0].label}-{seed}")
                with self._mutation.planted(trace), self._counted():
                    trial = self._try(scope, seed)
                harmed += len(trace.harmed())
                # A run that broke down is no bug that a checker caught.
                keys = [cause.key for cause in trial.causes if cause.invariant]
                if keys and self._is_clean(scope, seed):
                    key, calls = keys[0], self._calls
                    return Search(
                        seeds=seed, scope=scope.name, cause=key, calls=calls, harmed=harmed
                    )
            if self._calls == 0 and seed >= _ENOUGH_UNCALLED:
                break
        return Search(seeds=seed, calls=self._calls, harmed=harmed)

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

    def _try(self, scope, seed):
        faults = draw_schedule(seed, scope.span)
        with quiet():
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
    searches = (("hardened", found.hardened), ("guide", found.guide))
    told = [
        f"{search.seeds} seeds under {design}: "
        + (f"{search.cause} ({search.scope})" if search.seen else search.silence)
        for design, search in searches
        if search is not None
    ]
    return f"{found.name}: {'; '.join(told)}"


if __name__ == "__main__":
    main()
