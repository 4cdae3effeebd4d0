"""A ledger and an effect store written by hand, for the tests of checkers."""

import uuid

import numpy as np

from hookbench.effects.classes import HandlerClass, mark_of
from hookbench.effects.read import EFFECT_DTYPE, STATE_DTYPE, Effects
from hookbench.ledger.account import make_account
from hookbench.ledger.events import Broker, Event, LedgerWriter
from hookbench.ledger.model import Bounds, FaultWindow, Residue
from hookbench.ledger.read import read_ledger
from hookbench.migration.phases import Phase
from hookbench.results.steps import plan_steps
from tests.virtual import FixedClock

FORWARD = (Phase.REDIS_ONLY, Phase.DUAL_WRITE, Phase.DUAL_READ, Phase.NATS_PRIMARY)
BACK = (Phase.DUAL_WRITE, Phase.DUAL_READ, Phase.REDIS_ONLY, Phase.DUAL_READ)
MS = 1_000_000


def task_id(number):
    return uuid.UUID(int=(7 << 76) | number)


class History:
    """A ledger written by hand."""

    def __init__(self, folder):
        self.folder = folder
        self.clock = FixedClock(monotonic_ns=1_000 * MS)
        self.writers = {}
        self.residue = {}
        self.consumer = {}
        self.effects = []
        self.states = {}
        self.faults = []

    def writer(self, name):
        if name not in self.writers:
            role, number = name.split(".")
            self.writers[name] = LedgerWriter(
                self.folder, role=role, writer=int(number), clock=self.clock, capacity=256
            )
        return self.writers[name]

    def say(self, who, event, number, *, step, **more):
        self.clock.now_ns += MS
        writer = self.writer(who)
        writer.phase = step
        writer.record(event, task_id(number).bytes, **more)

    def put(
        self, number, *, step, redis=True, nats=0, accepted=True, who="producer.1", repository=1
    ):
        now_ns = self.clock.now_ns
        more = {"value": now_ns, "repository": repository}
        self.say(who, Event.PUT_INVOKED, number, step=step, **more)
        if nats:
            self.say(who, Event.PUT_OK, number, step=step, broker=Broker.NATS, value=nats)
        if redis:
            self.say(who, Event.PUT_OK, number, step=step, broker=Broker.REDIS, value=1)
        if accepted:
            self.say(who, Event.ACCEPTED, number, step=step)

    def take(self, number, *, step, broker=Broker.REDIS, who="worker.2", attempt=1, sequence=0):
        more = {"broker": broker, "attempt": attempt, "value": sequence}
        self.say(who, Event.RECEIVED, number, step=step, **more)

    def work(
        self,
        number,
        *,
        step,
        broker=Broker.REDIS,
        who="worker.2",
        attempt=1,
        sequence=0,
        ack=True,
        effect=None,
        done=True,
    ):
        more = {"attempt": attempt, "sequence": sequence}
        self.take(number, step=step, broker=broker, who=who, **more)
        if effect is not None:
            self.say(who, Event.STARTED, number, step=step, broker=broker, attempt=attempt)
            self.effect(number, effect, who=who, attempt=attempt)
        if not done:
            return
        self.say(who, Event.DONE, number, step=step, broker=broker, attempt=attempt)
        if ack:
            self.say(who, Event.ACK_SENT, number, step=step, broker=broker)

    def effect(self, number, handler_class=HandlerClass.PLAIN, *, who="worker.2", attempt=1):
        self.clock.now_ns += MS
        task, writer = task_id(number).bytes, int(who.split(".")[1])
        self.effects.append((task, handler_class, writer, attempt, 0, self.clock.now_ns))
        if handler_class is HandlerClass.IDEMPOTENT:
            self.states[task] = mark_of(task)

    def stored(self):
        return Effects(
            rows=np.array(self.effects, dtype=EFFECT_DTYPE),
            state=np.array(list(self.states.items()), dtype=STATE_DTYPE),
        )

    def fault(self, *, length_ms, kind="kill", target="redis", doubles=0, rollback_ms=0):
        """A fault from now on; one that was not healed has no length."""
        self.faults.append(
            FaultWindow(
                index=len(self.faults),
                kind=kind,
                name=f"{kind} {target}",
                target=target,
                begin_ns=self.clock.now_ns,
                end_ns=None if length_ms is None else self.clock.now_ns + length_ms * MS,
                doubles=doubles,
                rollback_ns=int(rollback_ms * MS),
            )
        )

    def lies(self, place, *numbers):
        self.residue.setdefault(place, []).extend(task_id(number) for number in numbers)

    def account(
        self, *, crashed=(), phases=FORWARD, without=(), effects=False, looked=True, **bounds
    ):
        """Without ``looked`` nobody recorded what was left on the brokers."""
        for name, writer in self.writers.items():
            if name not in crashed:
                writer.close()
        ledger = read_ledger(self.folder)
        return make_account(
            ledger,
            plan_steps(phases),
            Residue(places=self.residue, **self.consumer) if looked else None,
            step_starts_ns=[1_000 * MS + index * 100 * MS for index in range(len(phases))],
            effects=self.stored() if effects else None,
            bounds=Bounds(gap_window_ns=50 * MS, **bounds),
            faults=self.faults,
            without=without,
        )
