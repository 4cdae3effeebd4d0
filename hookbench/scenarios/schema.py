"""The strict schema of a scenario: an unknown key is an error that names the nearest valid one."""

import difflib
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from hookbench.brokers.durability import Durability
from hookbench.brokers.topology import SINGLE, check_topology
from hookbench.decoding import MAX_CONFIGURATION_BYTES, decode_toml, read_document
from hookbench.errors import SettingError
from hookbench.faults.registry import parse_fault
from hookbench.load.mix import TaskMix
from hookbench.migration.measures import parse_measures
from hookbench.migration.phases import Design, Phase, parse_phase
from hookbench.queues.redis_kind import RedisKind
from hookbench.rehearsal.settings import RehearsalSettings

__all__ = ["Scenario", "find_scenario", "load_scenario", "shipped_scenarios", "to_settings"]

MAX_REPEATS = 1000
_FOLDER = Path(__file__).parent


class Brokers(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``topology`` is one of ``TOPOLOGIES``; ``durability`` one of the durability classes.

    ``redis_queue`` is ``list``, or ``stream`` where ``redis_only`` is the only phase.
    """

    topology: str = SINGLE
    durability: Durability = Durability.LAZY
    redis_queue: RedisKind = RedisKind.LIST


class Producers(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Producer processes and the load that they offer together, see ``GeneratorSettings``."""

    processes: int = 2
    loop: str = "open"
    callers: int = 100
    rate_per_s: float = 1000.0
    arrivals: str = "constant"
    payload: int | str = 64
    repositories: int = 100
    skew: float = 0.0


class Workers(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Worker processes; ``service_ms`` is how long each is busy with a synthetic task."""

    processes: int = 2
    concurrency: int = 32
    service_ms: float = 5.0
    block_timeout_s: float = 1.0


class Tasks(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The task mix: weights of the handler classes of synthetic tasks."""

    transactional: float = 1.0
    idempotent: float = 1.0
    plain: float = 2.0


class Pushes(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Real pushes, one every ``interval_s`` over all repositories."""

    repositories: int = 3
    interval_s: float = 1.0


class Timeline(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The phases one after another, each ``phase_seconds`` long; with gates, from its entry on."""

    phases: tuple[str, ...]
    phase_seconds: float = 12.0


class Drain(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How long the end of a run waits for empty queues."""

    timeout_s: float = 90.0


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a run is held against; without ``max_inversions`` they are counted only.

    Above a p99 of the schedule lag of ``max_lag_ms`` its latencies are not valid.
    """

    max_attempts: int = 3
    max_inversions: int | None = None
    max_lag_ms: float = 50.0


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a TOML file says; ``measures`` changes those of the design, as ``["-ack_after"]``.

    With ``metrics`` every worker and producer serves its metrics, which are scraped when it has
    done all, kept with the run, and held against the ledger.
    """

    name: str
    description: str
    timeline: Timeline
    design: Design = Design.GUIDE
    measures: tuple[str, ...] = ()
    seed: int = 7
    repeats: int = 1
    metrics: bool = False
    brokers: Brokers = Brokers()
    producers: Producers = Producers()
    workers: Workers = Workers()
    tasks: Tasks = Tasks()
    pushes: Pushes = Pushes()
    drain: Drain = Drain()
    bounds: Limits = Limits()
    faults: tuple[dict[str, Any], ...] = ()


def shipped_scenarios() -> list[Path]:
    """The files that come with the project, by name."""
    return sorted(_FOLDER.glob("*.toml"))


def find_scenario(name: str) -> Path:
    """A file given by its path, or a shipped one by its name.

    Raises:
        SettingError: there is none; the text names the nearest.
    """
    if name.endswith(".toml"):
        return Path(name)
    shipped = {path.stem: path for path in shipped_scenarios()}
    if name in shipped:
        return shipped[name]
    raise SettingError(
        f"scenario {name!r}: no such scenario{_nearest(name, list(shipped))}; shipped are"
        f" {', '.join(shipped)}, and a file of yours is given by its path"
    )


def load_scenario(path: Path, changes: list[str] | None = None) -> Scenario:
    """The scenario in a file, with ``section.key=value`` changes.

    Raises:
        SettingError: no TOML, an unknown key, a missing one, or a wrong type; the text names it.
    """
    try:
        data = decode_toml(read_document(path, MAX_CONFIGURATION_BYTES).decode())
    except OSError as error:
        raise SettingError(f"scenario {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingError(f"scenario {path}: {error}") from error
    for change in changes or []:
        _apply(data, change)
    _check_keys(data, Scenario, f"scenario {path}")
    try:
        scenario = msgspec.convert(data, Scenario, strict=True)
    except msgspec.ValidationError as error:
        raise SettingError(f"scenario {path}: {_wrong_value(data, str(error))}") from error
    for phase in scenario.timeline.phases:
        parse_phase(phase)
    parse_measures(",".join(scenario.measures))
    for number, fault in enumerate(scenario.faults):
        parse_fault(fault, f"scenario {path}, [[faults]] number {number}")
    try:
        check_topology(scenario.brokers.topology)
    except SettingError as error:
        raise SettingError(f"scenario {path}: {error}") from error
    if not 1 <= scenario.repeats <= MAX_REPEATS:
        raise SettingError(
            f"scenario {path}: repeats {scenario.repeats}: use between 1 and {MAX_REPEATS}"
        )
    return scenario


def _apply(data: dict[str, Any], change: str) -> None:
    """Set one value; it is read as TOML, and as a string where it is none."""
    key, equals, text = change.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise SettingError(f"--set {change!r}: use key=value, as in producers.rate_per_s=500")
    try:
        value = decode_toml(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    target = data
    for part in parts[:-1]:
        target = target.setdefault(part, {})
        if not isinstance(target, dict):
            raise SettingError(f"--set {change!r}: {part} is no section")
    target[parts[-1]] = value


def _check_keys(data: Any, kind: Any, where: str) -> None:
    """Unknown keys, at any depth, with the nearest valid name."""
    if not isinstance(data, dict):
        return
    fields = {field.name: field.type for field in msgspec.structs.fields(kind)}
    for key, value in data.items():
        if key not in fields:
            nearest = _elsewhere(key, list(fields)) or _nearest(key, list(fields))
            raise SettingError(
                f"{where}: unknown key {key!r}{nearest}; known are {', '.join(fields)}"
            )
        if isinstance(fields[key], type) and issubclass(fields[key], msgspec.Struct):
            _check_keys(value, fields[key], f"{where}, [{key}]")


def _elsewhere(key: str, here: list[str]) -> str:
    """The nearest of all keys, with its section where it is another one; empty for none near."""
    known = {
        inner.name: f"{field.name}.{inner.name}"
        for field in msgspec.structs.fields(Scenario)
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct)
        for inner in msgspec.structs.fields(field.type)
    } | {field.name: field.name for field in msgspec.structs.fields(Scenario)}
    known |= {name: name for name in here}
    close = difflib.get_close_matches(key, list(known), n=1, cutoff=0.7)
    return f" (did you mean {known[close[0]]!r}?)" if close else ""


def _wrong_value(data: dict[str, Any], problem: str) -> str:
    """What msgspec says is wrong at ``$.workers.processes``, with key, value and valid names."""
    what, _, where = problem.partition(" - at `$.")
    key = where.removesuffix("`")
    value: Any = data
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:  # one of a list, or a missing key
            return problem
        value = value[part]
    choices = {
        "design": Design,
        "brokers.durability": Durability,
        "brokers.redis_queue": RedisKind,
    }.get(key)
    if choices is not None and isinstance(value, str):
        names = [item.value for item in choices]
        return f"{key} {value!r}{_nearest(value, names)}: use one of {', '.join(names)}"
    return f"{key} {value!r}: {what}"


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def to_settings(
    scenario: Scenario,
    *,
    out: Path,
    repeat: int = 0,
    redis_url: str | None = None,
    nats_url: str | None = None,
    nats_monitor_url: str | None = None,
    own_names: bool = True,
    allow_existing: bool = False,
) -> RehearsalSettings:
    """The settings of one rehearsal; each repeat has a seed of its own."""
    phases: tuple[Phase, ...] = tuple(parse_phase(text) for text in scenario.timeline.phases)
    return RehearsalSettings(
        scenario=scenario.name,
        design=scenario.design,
        measures=",".join(scenario.measures),
        phases=phases,
        phase_seconds=scenario.timeline.phase_seconds,
        rate_per_s=scenario.producers.rate_per_s,
        producers=scenario.producers.processes,
        loop=scenario.producers.loop,
        callers=scenario.producers.callers,
        arrivals=scenario.producers.arrivals,
        payload=str(scenario.producers.payload),
        synthetic_repositories=scenario.producers.repositories,
        skew=scenario.producers.skew,
        workers=scenario.workers.processes,
        concurrency=scenario.workers.concurrency,
        service_ms=scenario.workers.service_ms,
        mix=TaskMix(msgspec.structs.asdict(scenario.tasks)).text,
        block_timeout_secs=scenario.workers.block_timeout_s,
        repositories=scenario.pushes.repositories,
        push_interval_s=scenario.pushes.interval_s,
        durability=scenario.brokers.durability,
        redis_kind=scenario.brokers.redis_queue,
        topology=scenario.brokers.topology,
        drain_timeout_s=scenario.drain.timeout_s,
        faults=tuple(parse_fault(item, "faults") for item in scenario.faults),
        max_attempts=scenario.bounds.max_attempts,
        max_inversions=scenario.bounds.max_inversions,
        max_lag_ms=scenario.bounds.max_lag_ms,
        metrics=scenario.metrics,
        seed=scenario.seed + repeat,
        out=out,
        redis_url=redis_url,
        nats_url=nats_url,
        nats_monitor_url=nats_monitor_url,
        own_names=own_names,
        allow_existing=allow_existing,
    )
