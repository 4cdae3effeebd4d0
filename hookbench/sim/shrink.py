"""From a failing schedule to a minimal one that fails for the same reason.

Delta debugging over the faults (Zeller and Hildebrandt, Simplifying and isolating failure-inducing
input, 2002), then fewer phases, workers and tasks, then rounder faults. Each step is kept if the
run with it has a cause of the same key, so a minimal schedule is minimal for these steps only.
"""

from collections.abc import Callable, Iterator, Sequence

import msgspec

from hookbench.sim.redis.scripts import ScriptEngine
from hookbench.sim.schedule import FaultKind, SimFault, worker_place
from hookbench.sim.trial import Cause, Scope, Trial, try_schedule

__all__ = ["MAX_TRIES", "Minimal", "shrink"]

MAX_TRIES = 300
_LEAST_TASKS = 4
_LIKELY_STEPS = ("start", "receive", "claim", "effect", "done", "ack")
_EARLIER_S = 0.1
"""So long before its time a death at a step is waited for."""
_ROUND_S = (1.0, 0.5, 0.1, 0.01)


class Minimal(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule that is as small as could be found.

    Attributes:
        seed: of everything but the faults; the one that was searched.
        scope: what is simulated, made smaller as well.
        cause: why the run with it is not valid: the same reason as of the seed.
        tries: runs that it took.
        digest: of the ledger of the run.
    """

    seed: int
    scope: Scope
    faults: tuple[SimFault, ...]
    cause: Cause
    tries: int
    digest: str


class _Candidate(msgspec.Struct, frozen=True):
    scope: Scope
    faults: tuple[SimFault, ...]


def shrink(
    scope: Scope,
    faults: Sequence[SimFault],
    seed: int,
    key: str,
    *,
    engine: ScriptEngine | None = None,
    max_tries: int = MAX_TRIES,
) -> Minimal | None:
    """Make a failing schedule smaller.

    Args:
        scope: what was simulated.
        faults: its schedule.
        seed: of everything else.
        key: of the cause that is to stay.
        engine: of scripts.
        max_tries: runs at the most.

    Returns:
        ``None`` where the schedule does not fail for that reason.
    """
    search = _Search(seed, key, engine or ScriptEngine(), max_tries)
    start = _Candidate(scope, tuple(faults))
    if not search.fails(start):
        return None
    best = search.without_idle(start)
    for smaller in (_fewer_faults, _fewer_phases, _smaller_scope):
        best = search.settle(best, smaller)
    best = search.with_names(best)
    for smaller in (_rounder_faults, _fewer_faults):
        best = search.settle(best, smaller)
    trial = search.last
    cause = next(item for item in trial.causes if item.key == key)
    return Minimal(
        seed=seed,
        scope=best.scope,
        faults=best.faults,
        cause=cause,
        tries=search.tries,
        digest=trial.digest,
    )


class _Search:
    """Tries candidates.

    Attributes:
        last: of the last candidate that failed.
    """

    def __init__(self, seed: int, key: str, engine: ScriptEngine, max_tries: int) -> None:
        self._seed, self._key, self._engine, self._max = seed, key, engine, max_tries
        self._last: Trial | None = None
        self.tries = 0

    @property
    def last(self) -> Trial:
        """The run of the last candidate that failed."""
        if self._last is None:
            raise LookupError("nothing has failed yet")
        return self._last

    def fails(self, candidate: _Candidate) -> bool:
        """Whether a candidate fails for the reason; never, when there were enough tries."""
        if self.tries >= self._max:
            return False
        self.tries += 1
        plan = candidate.scope.plan
        trial = try_schedule(plan, candidate.faults, self._seed, engine=self._engine)
        if all(cause.key != self._key for cause in trial.causes):
            return False
        self._last = trial
        return True

    def without_idle(self, candidate: _Candidate) -> _Candidate:
        """Without the faults that did not fire."""
        fired = {firing.index for firing in self.last.firings}
        kept = tuple(item for index, item in enumerate(candidate.faults) if index in fired)
        smaller = msgspec.structs.replace(candidate, faults=kept)
        return smaller if kept != candidate.faults and self.fails(smaller) else candidate

    def with_names(self, candidate: _Candidate) -> _Candidate:
        """With the names of the messages that were met, where any message was meant."""
        for firing in self.last.firings:
            fault = candidate.faults[firing.index]
            if fault.command or not firing.met:
                continue
            for nth in range(1, fault.nth + 1):
                named = msgspec.structs.replace(fault, command=firing.met, nth=nth)
                faults = list(candidate.faults)
                faults[firing.index] = named
                smaller = msgspec.structs.replace(candidate, faults=tuple(faults))
                if self.fails(smaller):
                    candidate = smaller
                    break
        return candidate

    def settle(
        self, best: _Candidate, smaller: Callable[[_Candidate], Iterator[_Candidate]]
    ) -> _Candidate:
        """The smallest that can be reached by steps of one kind; from the best one on again."""
        while True:
            found = next((item for item in smaller(best) if self.fails(item)), None)
            if found is None:
                return best
            best = found


def _fewer_faults(best: _Candidate) -> Iterator[_Candidate]:
    """None, then half of them, down to all but one."""
    faults = best.faults
    if not faults:
        return
    yield msgspec.structs.replace(best, faults=())
    size = len(faults) // 2
    while size >= 1:
        for begin in range(0, len(faults), size):
            kept = faults[:begin] + faults[begin + size :]
            if kept:
                yield msgspec.structs.replace(best, faults=kept)
        size //= 2


def _fewer_phases(best: _Candidate) -> Iterator[_Candidate]:
    """Without the last phase, or the first, with the times of the faults moved."""
    scope = best.scope
    if len(scope.phases) == 1:
        return
    tasks = scope.plan.tasks * (len(scope.phases) - 1) // len(scope.phases)
    last_s = scope.phase_s * (len(scope.phases) - 1)
    smaller = msgspec.structs.replace(scope, tasks=tasks, transition=None)
    if all(fault.at_s < last_s for fault in best.faults):
        yield _Candidate(msgspec.structs.replace(smaller, phases=scope.phases[:-1]), best.faults)
    if all(fault.at_s > scope.phase_s for fault in best.faults):
        moved = tuple(
            msgspec.structs.replace(fault, at_s=round(fault.at_s - scope.phase_s, 3))
            for fault in best.faults
        )
        yield _Candidate(msgspec.structs.replace(smaller, phases=scope.phases[1:]), moved)


def _smaller_scope(best: _Candidate) -> Iterator[_Candidate]:
    """Fewer workers, fewer slots, fewer tasks."""
    scope = best.scope
    if scope.workers > 1:
        kept = {worker_place(number) for number in range(scope.workers - 1)}
        first = worker_place(0)
        faults = tuple(
            item
            if not item.target.startswith("worker-") or item.target in kept
            else msgspec.structs.replace(item, target=first)
            for item in best.faults
        )
        yield _Candidate(msgspec.structs.replace(scope, workers=scope.workers - 1), faults)
    if scope.concurrency > 1:
        yield _Candidate(msgspec.structs.replace(scope, concurrency=1), best.faults)
    tasks = scope.plan.tasks
    for fewer in (tasks // 4, tasks // 2, tasks * 3 // 4):
        if _LEAST_TASKS <= fewer < tasks:
            yield _Candidate(msgspec.structs.replace(scope, tasks=fewer), best.faults)


def _rounder_faults(best: _Candidate) -> Iterator[_Candidate]:
    """One fault changed at a time: no turns, the first message, any message, rounder times."""
    for index, fault in enumerate(best.faults):
        for changed in _rounder(fault):
            faults = (*best.faults[:index], changed, *best.faults[index + 1 :])
            yield msgspec.structs.replace(best, faults=tuple(faults))


def _rounder(fault: SimFault) -> Iterator[SimFault]:
    """A plainer fault, one that real brokers can be given as well; then rounder times."""
    change = msgspec.structs.replace
    yield from _at_steps(fault)
    yield from _plainer(fault)
    for at_s in _rounded(fault.at_s):
        if at_s > 0:
            yield change(fault, at_s=at_s)
    for for_s in _rounded(fault.for_s):
        yield change(fault, for_s=for_s)


def _plainer(fault: SimFault) -> Iterator[SimFault]:
    """Of the same effect with less said."""
    change = msgspec.structs.replace
    if fault.turns:
        yield change(fault, turns=0)
    if 0 < fault.probability < 1:
        yield change(fault, probability=1.0)
    if fault.count > 1:
        yield change(fault, count=1)
    for nth in (1, fault.nth // 2):
        if 0 < nth < fault.nth:
            yield change(fault, nth=nth)
    if fault.kind is FaultKind.KILL_AT_MESSAGE:
        yield SimFault(kind=FaultKind.KILL, target=fault.target, at_s=fault.at_s, for_s=fault.for_s)
    if fault.kind is FaultKind.POWER_CUT:
        yield change(fault, kind=FaultKind.KILL)
    if fault.way and fault.kind is FaultKind.CUT:
        yield change(fault, way="")


def _at_steps(fault: SimFault) -> Iterator[SimFault]:
    """The death of a worker at a step, which on real brokers is less a matter of chance."""
    if fault.kind not in (FaultKind.KILL, FaultKind.KILL_AT_MESSAGE):
        return
    if not fault.target.startswith("worker-"):
        return
    for step in _LIKELY_STEPS:
        yield SimFault(
            kind=FaultKind.KILL_AT_STEP,
            target=fault.target,
            at_s=round(max(_EARLIER_S, fault.at_s - _EARLIER_S), 3),
            for_s=fault.for_s,
            step=step,
        )


def _rounded(value_s: float) -> Iterator[float]:
    """Rounder values, the roundest first, up to the value itself."""
    for unit_s in _ROUND_S:
        rounded_s = round(round(value_s / unit_s) * unit_s, 2)
        if rounded_s == value_s:
            return
        yield rounded_s
