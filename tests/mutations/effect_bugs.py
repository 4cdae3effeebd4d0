"""Bugs of the handlers and of the effect store."""

import uuid

from hookbench.effects.classes import HandlerClass
from hookbench.effects.store import SqliteEffectStore
from hookbench.ledger.events import Event
from hookbench.worker.handlers.effect import EffectHandler, class_of_task
from tests.mutations import scenarios
from tests.mutations.planting import Mutation


def effect_is_skipped(_original, trace):
    def append(_self, task, _execution):
        trace.hit(uuid.UUID(bytes=task))

    return append


def effect_under_the_id_before(original, trace):
    before = []

    async def __call__(self, task, execution):  # noqa: N807 - in place of the method
        wrong = before[-1] if before else task
        before.append(task)
        if wrong is not task:
            trace.hit(wrong)
            trace.hit(task)
        await original(self, wrong, execution)

    return __call__


def checked_before_the_service(original, trace):
    async def __call__(self, task, execution):  # noqa: N807 - in place of the method
        if class_of_task(task) is not HandlerClass.TRANSACTIONAL:
            await original(self, task, execution)
            return
        store = getattr(self._store, "_store", self._store)  # in the simulator it is wrapped
        key, db = task.id.bytes, store._db
        if db.execute("SELECT 1 FROM done WHERE task = ?", (key,)).fetchone():
            return
        await self._service(task, execution)
        trace.hit(task)
        values = (key, HandlerClass.TRANSACTIONAL, store._writer, execution.attempt)
        db.execute(
            "INSERT INTO effects (task, class, writer, attempt, token, time_ns)"
            " VALUES (?, ?, ?, ?, 0, ?)",
            (*values, store._clock.monotonic_ns()),
        )
        db.execute("INSERT OR IGNORE INTO done (task, token) VALUES (?, 0)", (key,))
        self._recorder.record(Event.EFFECT, key, value=int(class_of_task(task)))

    return __call__


def state_is_added_to(original, trace):
    def set_state(self, task, execution, value):
        trace.hit(uuid.UUID(bytes=task))
        found = self._db.execute("SELECT value FROM state WHERE task = ?", (task,)).fetchone()
        # Half of each, for a sum of two marks may be more than SQLite's integers hold.
        added = value if found is None else value // 2 + found[0] // 2 - 1
        original(self, task, execution, added)

    return set_state


def plain_effect_before_and_after(_original, trace):
    async def __call__(self, task, execution):  # noqa: N807 - in place of the method
        trace.hit(task)
        self._store.append(task.id.bytes, execution)
        await self._service(task, execution)
        self._store.append(task.id.bytes, execution)

    return __call__


MUTATIONS = (
    Mutation(
        name="effect-is-skipped",
        owner=SqliteEffectStore,
        attribute="append",
        plant=effect_is_skipped,
        what="a handler returns without its effect, and its task is done",
        scenario=scenarios.redis_tasks,
        invariant=4,
        row="redis_only",
    ),
    Mutation(
        name="checked-before-the-service",
        owner=EffectHandler,
        attribute="__call__",
        plant=checked_before_the_service,
        what="a transactional handler looks and inserts in two transactions, and two workers race",
        scenario=scenarios.overlapping_transactional,
        invariant=4,
        row="nats_primary",
    ),
    Mutation(
        name="state-is-added-to",
        owner=SqliteEffectStore,
        attribute="set_state",
        plant=state_is_added_to,
        what="an idempotent handler adds to its state, and does not set it",
        scenario=scenarios.overlapping_idempotent,
        invariant=4,
        row="nats_primary",
    ),
    Mutation(
        name="effect-under-the-id-before",
        owner=EffectHandler,
        attribute="__call__",
        plant=effect_under_the_id_before,
        what="an effect is stored for the task before",
        scenario=scenarios.two_plain_tasks,
        invariant=4,
        row="redis_only",
    ),
    Mutation(
        name="plain-effect-before-and-after",
        owner=EffectHandler,
        attribute="__call__",
        plant=plain_effect_before_and_after,
        what="a plain handler has its effect before its service, and again after it",
        scenario=scenarios.redis_plain_task,
        invariant=4,
        row="redis_only",
    ),
)
