"""What the processes of one load test tell each other, as JSON.

Locust spawns a backstage process with an ``Order`` in a file and reads its events, one JSON object
per line. What it has to say itself it appends to another file, line by line. A ``Finish`` in a
third one ends the run. A ``Ticket`` tells each Locust process that has users what to publish to.
"""

from pathlib import Path

import msgspec
from _run_options import RunOptions

from hookbench.task import Names

__all__ = [
    "COMMANDS_FILE",
    "EVENTS_FILE",
    "FINISH_FILE",
    "LEDGER_FOLDER",
    "ORDER_FILE",
    "Answer",
    "Begin",
    "ClockNote",
    "Command",
    "Do",
    "Enter",
    "Entered",
    "Event",
    "Finish",
    "Full",
    "Histogram",
    "Incident",
    "Order",
    "PhaseAccount",
    "Present",
    "ProducerTotals",
    "Pulse",
    "Ready",
    "Refused",
    "RunAccount",
    "Scene",
    "SceneFault",
    "SceneStep",
    "Ticket",
    "append_line",
    "command_decoder",
    "event_decoder",
    "put_file",
]

ORDER_FILE = "order.json"
FINISH_FILE = "finish.json"
EVENTS_FILE = "events.jsonl"
COMMANDS_FILE = "commands.jsonl"
LEDGER_FOLDER = "ledger"


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What the backstage process is told. ``redis_url`` and ``nats_url`` are somebody else's."""

    run: str
    options: RunOptions
    redis_url: str | None = None
    nats_url: str | None = None
    allow_existing: bool = False


class ClockNote(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the clock of a Locust worker on another machine.

    Attributes:
        offset_ns: the master's clock less the worker's, at the end.
        error_ns: the most that it may have been off.
    """

    worker: str
    offset_ns: int
    error_ns: int


class Finish(msgspec.Struct, frozen=True, kw_only=True):
    """The users have stopped: drain for at most ``drain_s``, then account.

    Attributes:
        offered: how many tasks the producers say that they sent.
        spooled: how many of them lie in outboxes on other machines.
        clocks: of workers that are elsewhere.
        doubts: why the ledger may lack something.
    """

    drain_s: float
    offered: int
    spooled: int = 0
    clocks: list[ClockNote] = []
    doubts: list[str] = []


class Ticket(msgspec.Struct, frozen=True, kw_only=True):
    """What a Locust process needs to publish in a run; ``index`` and ``phase`` are the step's.

    ``foreign``: the brokers are somebody else's, and can be reached from other machines.
    """

    run: str
    folder: str
    redis_url: str
    nats_url: str
    names: Names
    options: RunOptions
    index: int = 0
    phase: str = ""
    foreign: bool = False


class ProducerTotals(msgspec.Struct, kw_only=True):
    """What a Locust process's producer was told about its tasks; ``spooled`` are in its outbox."""

    offered: int = 0
    accepted: int = 0
    refused: int = 0
    unknown: int = 0
    spooled: int = 0


class Histogram(msgspec.Struct, frozen=True, kw_only=True):
    """Latencies in buckets of ``(milliseconds, count)``; minimum, maximum and sum are exact."""

    count: int = 0
    total_ms: float = 0.0
    min_ms: float = 0.0
    max_ms: float = 0.0
    buckets: list[tuple[float, int]] = []


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    """Brokers answer and workers read. The URLs are for producers."""

    redis_url: str
    nats_url: str
    foreign: bool
    names: Names
    brokers: list[str]
    worker_pids: list[int]


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    """The run cannot start; ``text`` is for the user."""

    text: str


class Pulse(msgspec.Struct, frozen=True, kw_only=True, tag="pulse"):
    """Once a second: what was done since the last pulse, and what the queue holds now.

    Attributes:
        time_ns: monotonic.
        done: end-to-end latencies of the tasks that were first done since the last pulse.
        offered: tasks that producers have begun to send, in all.
        phase: of the run.
        accepted: tasks that were acknowledged to their caller, in all.
        redis_depth, nats_depth: tasks that lie on each broker and are not in work.
        waiting: tasks that no worker has got yet, on the broker that is read.
        in_flight: those that a worker has, and that are not acknowledged.
        redelivered: deliveries of a task beyond its first, in all.
        dead: dead letters, in all.
        lag_p99_ms: schedule lag of what was sent since the last pulse.
        oldest_s: since the task that waits longest was due.
        workers: processes that run.
        faults: in effect.
    """

    time_ns: int
    done: Histogram
    offered: int
    accepted: int
    phase: str
    redis_depth: int
    nats_depth: int
    waiting: int
    in_flight: int
    redelivered: int
    dead: int
    lag_p99_ms: float
    oldest_s: float
    workers: int
    faults: tuple[str, ...] = ()


class SceneStep(msgspec.Struct, frozen=True):
    """A step of the timeline, monotonic ns."""

    index: int
    phase: str
    begin_ns: int


class SceneFault(msgspec.Struct, frozen=True):
    """A fault that was tried: when it was in effect, monotonic ns, and why it was not."""

    name: str
    begin_ns: int | None
    end_ns: int | None
    problem: str | None


class Scene(msgspec.Struct, frozen=True, kw_only=True, tag="scene"):
    """Whenever one of these has changed: steps that were entered, faults, workers that run."""

    steps: list[SceneStep]
    faults: list[SceneFault]
    workers: list[str]


class Enter(msgspec.Struct, frozen=True, kw_only=True, tag="enter"):
    """The producers are to enter a step of the timeline; each answers with ``Entered``."""

    index: int
    phase: str


class Answer(msgspec.Struct, frozen=True, kw_only=True, tag="answer"):
    """What became of a ``Do``; of a fault, once it is in effect."""

    number: int
    ok: bool
    text: str


class Begin(msgspec.Struct, frozen=True, kw_only=True, tag="begin"):
    """The users start: times of the timeline and of faults count from here."""


class Present(msgspec.Struct, frozen=True, kw_only=True, tag="present"):
    """The producers that there are, by name; one that is gone is not waited for."""

    producers: list[str]


class Entered(msgspec.Struct, frozen=True, kw_only=True, tag="entered"):
    """A producer has entered a step, and says what it is."""

    producer: str
    index: int
    phase: str
    version: str
    measures: str


class Do(msgspec.Struct, frozen=True, kw_only=True, tag="do"):
    """Somebody at the page asks for something.

    Attributes:
        number: of the answer.
        what: ``fault``, ``kill``, ``start``, ``stop`` or ``phase``.
        value: the fault's text, the worker's name, the phase.
    """

    number: int
    what: str
    value: str


class Incident(msgspec.Struct, frozen=True, kw_only=True, tag="incident"):
    """Something that was not planned: a worker died and was replaced."""

    text: str


class Full(msgspec.Struct, frozen=True, kw_only=True, tag="full"):
    """``max_tasks`` is reached: the users are to stop."""

    offered: int


class PhaseAccount(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the tasks that were put in one step; ``end_to_end_ns`` as below."""

    phase: str
    published: int
    consumed: int
    lost: int
    redelivered: int
    end_to_end_ns: dict[str, int] | None


class RunAccount(msgspec.Struct, frozen=True, kw_only=True, tag="account"):
    """What became of every task, from the ledger and the brokers. Times in ns.

    Attributes:
        published: tasks acknowledged to the caller.
        consumed: of those, done or dead; ``dead`` of them are dead letters.
        left: of those, still in the queue, by place.
        lost: of those, neither consumed nor in the queue.
        refused, unknown: tasks that were not acknowledged.
        duplicated: executions beyond the first of a task.
        publish_ns, end_to_end_ns, lag_ns: percentiles ``p50``, ``p99`` and ``max``: from the
            intended time to the acknowledgement, to the end of the work, to the send.
        send_ns: the same from the send to the acknowledgement.
        published_ns: the last acknowledgement after the first one, ns.
        done: end-to-end latencies of all consumed tasks.
        phases: the same by step of the timeline, in order.
        clocks: of workers that are elsewhere.
        negative: tasks that were done before they were due, by what is known of the clocks.
        findings: what went wrong, for a person, with task ids.
        doubts: why the figures may not be believed.
    """

    published: int
    consumed: int
    dead: int
    left: dict[str, int]
    lost: int
    refused: int
    unknown: int
    duplicated: int
    redelivered: int
    publish_ns: dict[str, int] | None
    send_ns: dict[str, int] | None
    end_to_end_ns: dict[str, int] | None
    lag_ns: dict[str, int] | None
    published_ns: int
    done: Histogram
    phases: list[PhaseAccount] = []
    clocks: list[ClockNote] = []
    negative: int = 0
    findings: list[str]
    doubts: list[str]

    @property
    def left_total(self) -> int:
        """Tasks still in the queue, wherever."""
        return sum(self.left.values())

    @property
    def balanced(self) -> bool:
        """Whether every published task was consumed or is still in the queue."""
        return self.published == self.consumed + self.left_total and self.lost == 0


Event = Ready | Refused | Pulse | Scene | Enter | Answer | Incident | Full | RunAccount
Command = Begin | Present | Entered | Do


def event_decoder() -> "msgspec.json.Decoder[Event]":
    """Decodes one line of the backstage process."""
    return msgspec.json.Decoder(Event)


def command_decoder() -> "msgspec.json.Decoder[Command]":
    """Decodes one line for the backstage process."""
    return msgspec.json.Decoder(Command)


def append_line(path: Path, content: msgspec.Struct) -> None:
    """Append one line, in one write."""
    with path.open("ab", buffering=0) as file:
        file.write(msgspec.json.encode(content) + b"\n")


def put_file(path: Path, content: msgspec.Struct) -> None:
    """Write aside, then rename: a reader sees all of it or nothing."""
    aside = path.with_name(f".{path.name}")
    aside.write_bytes(msgspec.json.encode(content))
    aside.replace(path)
