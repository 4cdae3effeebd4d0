"""The effect store in memory says what the real one says, whatever is done to it."""

import tempfile
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from hookbench.effects.classes import Execution
from hookbench.effects.read import MAX_ATTEMPT, read_effects
from hookbench.effects.store import SqliteEffectStore
from hookbench.errors import EffectStoreError
from hookbench.sim.effects import SimulatedEffects
from tests.virtual import FixedClock

WRITERS = (1, 2)
CLOCK = FixedClock(monotonic_ns=7)
tasks = st.sampled_from([bytes([number]) * 16 for number in (3, 1, 2)])
executions = st.builds(
    Execution, attempt=st.sampled_from([1, 2, MAX_ATTEMPT + 1]), token=st.integers(0, 3)
)
operations = st.one_of(
    st.tuples(st.just("append"), tasks, executions),
    st.tuples(st.just("set_state"), tasks, executions, st.sampled_from([-(2**63), 0, 5])),
    st.tuples(st.just("apply_once"), tasks, executions),
)
TASK = bytes(16)
STALE = [
    (1, ("apply_once", TASK, Execution(token=2))),
    (2, ("apply_once", TASK, Execution(token=1))),
    (2, ("apply_once", TASK, Execution(token=2))),
]


def what_comes_of(stores, operations):
    """The answers of a run of operations, each by a worker."""
    answers = []
    for writer, (name, *arguments) in operations:
        try:
            answers.append(getattr(stores[writer], name)(*arguments))
        except EffectStoreError as error:
            answers.append(str(error).partition(": ")[2])
    return answers


@example(STALE)
@given(st.lists(st.tuples(st.sampled_from(WRITERS), operations), max_size=12))
@settings(max_examples=30, deadline=None)
def test_the_stores_are_alike(operations):
    simulated = SimulatedEffects(CLOCK)
    in_memory = {writer: simulated.of(writer) for writer in WRITERS}
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "effects.sqlite"
        on_disk = {
            writer: SqliteEffectStore(path, writer=writer, clock=CLOCK) for writer in WRITERS
        }
        try:
            answers = what_comes_of(on_disk, operations)
        finally:
            for store in on_disk.values():
                store.close()
        real = read_effects(path)
    assert what_comes_of(in_memory, operations) == answers
    found = simulated.read()
    assert found.rows.tobytes() == real.rows.tobytes()
    assert found.state.tobytes() == real.state.tobytes()
