"""A stored run whose ledger is written by hand, so that every figure of it is known."""

import json

import hookbench
from hookbench.faults.base import FaultRecord
from hookbench.ledger.events import Event, LedgerWriter
from hookbench.ledger.model import Account, FaultAccount, Residue
from hookbench.results.environment import Environment
from hookbench.results.steps import plan_steps
from hookbench.results.store import (
    MANIFEST_SCHEMA,
    Manifest,
    ResourceUse,
    StepRecord,
    encode_manifest,
)

__all__ = [
    "ENVIRONMENT",
    "MS",
    "START",
    "RunByHand",
    "S",
    "account_of",
    "fault_account",
    "fault_at",
    "resource_of",
]

S = 1_000_000_000
MS = 1_000_000
START = 100 * S
ENVIRONMENT = Environment(
    hookbench="0.1.0",
    commit="abc1234",
    python="3.11.0",
    kernel="6.1",
    machine="x86_64",
    cpu="a cpu",
    cpus=2,
    memory_bytes=1,
    packages={},
)


class Ticks:
    """A clock that stands where the test puts it."""

    now_ns = START

    def monotonic_ns(self):
        return self.now_ns


class RunByHand:
    """A stored run: its writers, and a timeline of steps of one second.

    Events are said in any order and written in the order of their times, as clocks have it.
    """

    def __init__(self, folder, phases):
        self.folder = folder
        self.clock = Ticks()
        self.phases = phases
        self.writers = {}
        self.said = []
        (folder / "ledger").mkdir(parents=True)

    def at(self, writer, time_ns, event, task=None, **values):
        self.said.append((time_ns, writer, event, task, values))

    def write(self, writer, time_ns, event, task, values):
        role, number = writer.split(".")
        if writer not in self.writers:
            self.clock.now_ns = START + min(time_ns, 0)
            self.writers[writer] = LedgerWriter(
                self.folder / "ledger",
                role=role,
                writer=int(number),
                clock=self.clock,
                capacity=256,
            )
        self.clock.now_ns = START + time_ns
        self.writers[writer].phase = values.pop("step", min(max(time_ns, 0) // S, 4))
        names = {} if task is None else {"task": task.bytes}
        self.writers[writer].record(event, **names, **values)

    def put(self, task, time_ns, *, writer="producer.1", lag_ns=0, **values):
        intended = START + time_ns - lag_ns
        self.at(writer, time_ns, Event.PUT_INVOKED, task, value=intended, **values)
        self.at(writer, time_ns + MS, Event.ACCEPTED, task, **values)

    def do(self, task, time_ns, broker, *, writer="worker.2", attempt=1, ack=True, **values):
        self.at(writer, time_ns, Event.RECEIVED, task, broker=broker, attempt=attempt, **values)
        self.at(writer, time_ns + MS, Event.DONE, task, broker=broker, **values)
        if ack:
            self.at(writer, time_ns + 2 * MS, Event.ACK_SENT, task, broker=broker, **values)

    def store(self, *, steps=None, status="complete", crashed=(), samples=(), tail="", **fields):
        """``fields`` are those of the manifest: ``account``, ``faults``, ``residue``..."""
        for time_ns, name, *event in sorted(self.said, key=lambda item: item[0]):
            self.write(name, time_ns, *event)
        for name, writer in self.writers.items():
            if name not in crashed:
                writer.close()
        plans = plan_steps(self.phases)
        steps = len(plans) if steps is None else steps
        manifest = Manifest(
            schema=MANIFEST_SCHEMA,
            run=self.folder.name,
            status=status,
            seed=7,
            durability="lazy",
            environment=ENVIRONMENT,
            started="2026-01-01T00:00:00Z",
            brokers=["redis-server 8", "nats-server 2"],
            steps=[
                StepRecord(plan=plan, start_ns=START + i * S, end_ns=START + (i + 1) * S)
                for i, plan in enumerate(plans[:steps])
            ],
            **{
                "design": "guide",
                "residue": Residue(places={}),
                "settings": {"phases": [int(phase) for phase in self.phases]},
                **fields,
            },
        )
        if status == "cut off":
            manifest.unknown_because = ["cut off: CancelledError"]
        (self.folder / "run.json").write_bytes(encode_manifest(manifest))
        lines = [json.dumps({"time_ns": START + time, **rest}) + "\n" for time, rest in samples]
        (self.folder / "samples.jsonl").write_text("".join(lines) + tail)
        return hookbench.load(self.folder)


def account_of(rows=(), **fields):
    """An account with these rows; every other number of it is 0 unless it is given."""
    numbers = (
        "tasks", "accepted", "refused", "doubtful", "done", "dead", "lost", "stuck", "duplicated",
        "explained", "left", "junk", "pushed_tasks", "torn",
    )  # fmt: skip
    values = {**dict.fromkeys(numbers, 0), "findings": [], "crashes": [], "push_to_done_ns": None}
    return Account(**{**values, "rows": list(rows), **fields})


def fault_at(index, kind, target, begin_ns, end_ns, *, name=None, fired=True):
    """A record of a fault, its times since the start of the run."""
    return FaultRecord(
        index=index,
        kind=kind,
        target=target,
        name=name or f"{kind} {target}",
        planned_ns=START + begin_ns,
        begin_ns=START + begin_ns if fired else None,
        end_ns=START + end_ns if fired and end_ns is not None else None,
        problem=None if fired else "nobody was there",
    )


def fault_account(index, **fields):
    """What a fault did, as far as it is given."""
    values = {"name": "", "length_ns": 0, "exposed": 0, "lost": 0, "stuck": 0, "duplicated": 0}
    return FaultAccount(**{**values, "index": index, "longest_without_ns": {}, **fields})


def resource_of(name, **fields):
    """What the processes of a name cost."""
    values = {"processes": 1, "cpu_s": 0.0, "rss_max_bytes": 0, "read_bytes": 0, "written_bytes": 0}
    return ResourceUse(name=name, **{**values, **fields})
