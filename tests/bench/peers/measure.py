"""All contenders in turn: a warm-up that tells how many tasks are enough, rounds, and a kill each.

In a round everyone runs once with each handler, in an order that the seed shuffles anew. Kills come
last, several at a time: they are counted and not timed, and most of them wait for a redelivery.
"""

import concurrent.futures
import random

import msgspec

from hookbench.brokers.durability import Durability
from hookbench.brokers.resolve import resolve_nats, resolve_redis
from hookbench.clock import SystemClock
from hookbench.errors import HookbenchError, SettingError
from hookbench.rehearsal.stage import utc_now_label
from hookbench.results.environment import read_environment
from tests.bench.peers.catalogue import CONTENDERS, Contender
from tests.bench.peers.contenders.child import PAYLOAD_BYTES
from tests.bench.peers.environments import (
    FOLDER,
    NotReadyError,
    Told,
    describe,
    interpreter,
    make_environment,
    requirements,
)
from tests.bench.peers.trial import CONCURRENCY, SLEEP_S, Crashed, crash, drain
from tests.evidence.record import tree_commit

__all__ = ["HANDLERS", "Plan", "Report", "Row", "choose", "measure", "tasks_for"]

HANDLERS = {"noop": 0.0, "sleep": SLEEP_S}
WARM_UP_TASKS = 600
LEAST_TASKS = 600
MOST_TASKS = 60_000
CRASHES_AT_ONCE = 4
CRASH_S = 2.0
MOST_CRASH_TASKS = 4_000
_ROUNDING = 100


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is measured.

    Attributes:
        seconds: how long a drain should take.
        names: who takes part, by parts of their names; empty for all.
    """

    rounds: int = 3
    seconds: float = 4.0
    seed: int = 7
    names: list[str] = msgspec.field(default_factory=list)


class Row(msgspec.Struct, kw_only=True):
    """What one contender came to.

    Attributes:
        skipped: why it could not take part at all.
        told: what it said of itself, by handler.
        tasks: in the backlog, by handler.
        rates_per_s: of the rounds, by handler; ``None`` for one that failed.
        cpu_us: CPU of the worker per task, likewise.
        problems: why rounds failed.
    """

    contender: Contender
    versions: list[str] = msgspec.field(default_factory=list)
    skipped: str = ""
    told: dict[str, Told] = msgspec.field(default_factory=dict)
    tasks: dict[str, int] = msgspec.field(default_factory=dict)
    rates_per_s: dict[str, list[float | None]] = msgspec.field(default_factory=dict)
    cpu_us: dict[str, list[float | None]] = msgspec.field(default_factory=dict)
    crashed: Crashed | None = None
    problems: list[str] = msgspec.field(default_factory=list)


class Report(msgspec.Struct, kw_only=True):
    """The whole measurement; ``peers.json`` holds it."""

    commit: str
    started: str
    plan: Plan
    cpu: str
    cpus: int
    python: str
    brokers: dict[str, str]
    durability: str = Durability.LAZY.value
    payload_bytes: int = PAYLOAD_BYTES
    concurrency: int = CONCURRENCY
    rows: list[Row] = msgspec.field(default_factory=list)


def choose(names):
    """The contenders whose names contain one of these; all for none.

    Raises:
        SettingError: a name matches nobody.
    """
    for name in names:
        if not any(name in item.name for item in CONTENDERS):
            known = "; ".join(item.name for item in CONTENDERS)
            raise SettingError(f"no contender is called {name}: use a part of {known}")
    return [item for item in CONTENDERS if not names or any(name in item.name for name in names)]


def tasks_for(rate_per_s, seconds, most=MOST_TASKS):
    """How many tasks take about so long at a rate, in hundreds, within bounds."""
    wanted = round(rate_per_s * seconds / _ROUNDING) * _ROUNDING
    return int(min(max(wanted, LEAST_TASKS), most))


def measure(plan, folder=FOLDER, tell=lambda _line: None):
    """Make the environments and run everything.

    Args:
        plan: what.
        folder: of the environments.
        tell: is told how far it is.

    Raises:
        SettingError: a name that matches nobody.
    """
    environment, clock = read_environment(), SystemClock()
    report = Report(
        commit=tree_commit(),
        started=utc_now_label(clock.wall_ns()),
        plan=plan,
        cpu=environment.cpu,
        cpus=environment.cpus,
        python=environment.python,
        brokers={
            "redis-server": resolve_redis(env={"PATH": ""}).label,
            "nats-server": resolve_nats(env={"PATH": ""}).label,
        },
        rows=[Row(contender=item) for item in choose(plan.names)],
    )
    for row in report.rows:
        _prepare(row, folder, tell)
    rng = random.Random(plan.seed)
    for number in range(plan.rounds + 1):
        _round(report, number, folder, rng, tell)
    _crashes(report, folder, tell)
    return report


def _prepare(row, folder, tell):
    contender = row.contender
    try:
        if not contender.is_reference:
            tell(f"{contender.name}: environment {contender.environment}")
            make_environment(contender.environment, folder)
            row.versions = requirements(contender.environment)
        told = describe(contender, folder)
    except NotReadyError as error:
        row.skipped = str(error)
        tell(f"SKIPPED {error}")
        return
    row.told = {handler: told[sleep_s] for handler, sleep_s in HANDLERS.items()}


def _round(report, number, folder, rng, tell):
    """Everyone once with each handler; round 0 is the warm-up, and says how many tasks are enough.

    Who fails the warm-up with a handler is left out of the rounds with it.
    """
    turns = [
        (row, handler)
        for row in report.rows
        for handler in HANDLERS
        if not row.skipped and (not number or handler in row.tasks)
    ]
    rng.shuffle(turns)
    for index, (row, handler) in enumerate(turns, 1):
        where = f"round {number} of {report.plan.rounds}, {index} of {len(turns)}"
        tasks = row.tasks[handler] if number else WARM_UP_TASKS
        try:
            found = drain(
                row.contender, interpreter(row.contender, folder), tasks, HANDLERS[handler]
            )
        except HookbenchError as error:
            row.problems.append(f"round {number}, {handler}: {error}")
            tell(f"{where}: {error}")
            found = None
        if not number:
            if found is not None and found.account.rate_per_s:
                tell(f"{where}: {row.contender.name}, {handler}: warm")
                row.tasks[handler] = tasks_for(found.account.rate_per_s, report.plan.seconds)
            continue
        rate = None if found is None else found.account.rate_per_s
        row.rates_per_s.setdefault(handler, []).append(rate)
        row.cpu_us.setdefault(handler, []).append(None if found is None else found.cpu_us)
        if rate is not None:
            tell(f"{where}: {row.contender.name}, {handler}: {rate:,.0f} tasks/s")


def _crashes(report, folder, tell):
    rows = [row for row in report.rows if "sleep" in row.tasks]
    with concurrent.futures.ThreadPoolExecutor(CRASHES_AT_ONCE) as pool:
        for row, line in pool.map(lambda row: (row, _crash(row, report, folder)), rows):
            tell(f"killed: {row.contender.name}: {line}")


def _crash(row, report, folder):
    rate = row.tasks["sleep"] / report.plan.seconds
    tasks = tasks_for(rate, CRASH_S, MOST_CRASH_TASKS)
    try:
        row.crashed = crash(
            row.contender,
            interpreter(row.contender, folder),
            tasks,
            SLEEP_S,
            row.told["sleep"].redelivery_s,
        )
    except HookbenchError as error:
        row.problems.append(f"killed: {error}")
        return str(error)
    found = row.crashed
    return f"{found.lost} lost, {found.waiting} waited, {found.repeated} repeated"
