"""Settings of the verbs that run on brokers of one's own: options over environment over a file.

A file is TOML. Its keys are the long options of the verbs with ``_`` for ``-``; what several verbs
share stands at the top, what one verb alone has in the table of its name, where a shared key may
stand as well and counts for that verb alone. Each key is also a variable: ``HOOKBENCH_REDIS_URL``,
``HOOKBENCH_WORKER_CONCURRENCY``.
"""

import difflib
import functools
import logging
import os
import stat
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

import msgspec

from hookbench.decoding import MAX_CONFIGURATION_BYTES, decode_toml, read_document
from hookbench.errors import SettingError
from hookbench.secrets import HIDDEN, has_secret, redact

__all__ = [
    "CONFIG_VARIABLE",
    "DEFAULT_FILE",
    "TABLES",
    "Found",
    "GateTable",
    "MigrateTable",
    "ProduceTable",
    "Settings",
    "WatchTable",
    "WorkerTable",
    "find_settings",
    "read_file",
    "shown",
]

_log = logging.getLogger(__name__)

PREFIX = "HOOKBENCH_"
CONFIG_VARIABLE = "HOOKBENCH_CONFIG"
DEFAULT_FILE = Path("hookbench.toml")
DEFAULT_ORIGIN = "default"
_OTHER_VARIABLES = frozenset(
    {
        CONFIG_VARIABLE,
        "HOOKBENCH_BROWSER",
        "HOOKBENCH_CHROMIUM",
        "HOOKBENCH_COMPARED_PAIRS",
        "HOOKBENCH_MEMORY_RATE",
        "HOOKBENCH_MEMORY_TASKS",
        "HOOKBENCH_SIM_SEEDS",
        "HOOKBENCH_UID",
    }
)
_OTHER_PREFIXES = ("HOOKBENCH_LOCUST_",)
_SECRET_WORDS = ("password", "token", "secret")
_SEVEN_DAYS_S = 604_800.0


@dataclass(frozen=True, kw_only=True)
class Brokers:
    """Where the brokers are, and what the queue is called there."""

    redis_url: str | None = None
    nats_url: str | None = None
    prefix: str = "{hook}"
    subject_root: str = "queue.hook"
    stream: str = "HOOK_QUEUE"


@dataclass(frozen=True, kw_only=True)
class StreamShape:
    """What the stream is to be like."""

    storage: str = "file"
    replicas: int = 1
    max_age: float = _SEVEN_DAYS_S
    duplicate_window: float = 120.0


@dataclass(frozen=True, kw_only=True)
class ConsumerName:
    """The durable consumer of the guide."""

    consumer: str = "hook-sync-worker"


@dataclass(frozen=True, kw_only=True)
class Process:
    """Of a process that puts tasks or works on them."""

    redis_queue: str = "list"
    nats_monitor_url: str | None = None
    nats_sync_interval: float | None = None
    phase: str | None = None
    phase_file: Path | None = None
    phase_at: str | None = None
    measures: str = "none"
    metrics: str | None = None
    metrics_linger: float = 0.0
    traces: str | None = None
    ledger: Path | None = None
    writer: int = 0


@dataclass(frozen=True, kw_only=True)
class WorkerTable(Brokers, StreamShape, ConsumerName, Process):
    """``[worker]``: what ``hookbench worker`` takes, see its ``--help``."""

    handler: str = "noop"
    sleep_ms: float = 5.0
    origins: Path | None = None
    mirrors: Path | None = None
    service_ms: float = 0.0
    effects: Path | None = None
    ack: str | None = None
    authority: str | None = None
    lease: float = 10.0
    nak_base: float = 1.0
    nak_factor: float = 4.0
    nak_cap: float = 60.0
    task_type: str = "sync"
    concurrency: int = 16
    max_attempts: int = 3
    block_timeout: float = 5.0
    redis_lease: float = 10.0
    redis_age: float = 5.0
    ack_wait: float = 30.0
    max_deliver: int = 3
    max_ack_pending: int = 100


@dataclass(frozen=True, kw_only=True)
class ProduceTable(Brokers, StreamShape, Process):
    """``[produce]``: what ``hookbench produce`` takes, see its ``--help``."""

    spool: Path | None = None
    retry_horizon: float = 60.0
    rate: float = 100.0
    count: int = 1000
    loop: str = "open"
    callers: int = 100
    arrivals: str = "constant"
    part: str = "0/1"
    payload: str = "64"
    repositories: int = 100
    skew: float = 0.0
    mix: str = "plain=1"
    seed: int = 0
    start_ns: int = 0
    resume: bool = False


@dataclass(frozen=True, kw_only=True)
class GateTable(Brokers, StreamShape, ConsumerName):
    """``[gate]``: what ``hookbench gate`` takes, see its ``--help``."""

    moment: str = "before"
    producers: list[str] | None = None
    workers: list[str] | None = None
    announced: list[Path] | None = None
    nats_monitor_url: str | None = None
    nats_sync_interval: float | None = None
    sample: int | None = None
    settle: float = 5.0
    task_type: list[str] | None = None
    done_store: bool | None = None


@dataclass(frozen=True, kw_only=True)
class MigrateTable(Brokers, StreamShape, ConsumerName):
    """``[migrate]``: what ``hookbench migrate`` takes, see its ``--help``."""

    producers: list[str] | None = None
    workers: list[str] | None = None
    announced: list[Path] | None = None
    progress: Path = Path("hookbench-migrate.json")
    patience: float = 30.0
    settle: float = 5.0
    ledger: Path | None = None
    writer: int = 0


@dataclass(frozen=True, kw_only=True)
class WatchTable(Brokers, ConsumerName):
    """``[watch]``: what ``hookbench watch`` takes, see its ``--help``."""

    every: float = 1.0
    count: int | None = None


@dataclass(frozen=True, kw_only=True)
class Settings(Brokers, StreamShape, ConsumerName, Process):
    """Everything that a file may say; what is shared first, then a table for each verb."""

    worker: WorkerTable = field(default_factory=WorkerTable)
    produce: ProduceTable = field(default_factory=ProduceTable)
    gate: GateTable = field(default_factory=GateTable)
    migrate: MigrateTable = field(default_factory=MigrateTable)
    watch: WatchTable = field(default_factory=WatchTable)


TABLES: dict[str, type[Any]] = {
    "worker": WorkerTable,
    "produce": ProduceTable,
    "gate": GateTable,
    "migrate": MigrateTable,
    "watch": WatchTable,
}
"""The verbs that have settings, and their tables."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A value and where it comes from: a variable, a key of a file, or ``default``."""

    value: Any
    origin: str


class _Source(msgspec.Struct, frozen=True, kw_only=True):
    """What one source says: by table (empty for what is shared) and key."""

    found: dict[tuple[str, str], Found]


def find_settings(
    file: Path | None = None, *, env: Mapping[str, str] | None = None
) -> dict[str, dict[str, Found]]:
    """What each verb would use without options, by verb and key; the empty verb has what is shared.

    Args:
        file: a TOML file; by default the one that ``HOOKBENCH_CONFIG`` names, or ``hookbench.toml``
            in the folder of the moment if there is one.
        env: the variables.

    Raises:
        SettingError: a key or variable is unknown, with the nearest that is known, or its value
            cannot be used; the text has no secret.
    """
    env = os.environ if env is None else env
    sources = (_from_environment(env), _from_file(_file_of(file, env)))
    return {table: _of_table(table, sources) for table in ("", *TABLES)}


def shown(key: str, value: object) -> Any:
    """A value as it may be shown: without users and passwords in URLs; JSON-able."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple):
        return [shown(key, item) for item in value]
    if any(word in key for word in _SECRET_WORDS):
        return HIDDEN
    return redact(str(value))


def _of_table(table: str, sources: Iterable[_Source]) -> dict[str, Found]:
    found: dict[str, Found] = {}
    for key, default in _defaults(table).items():
        found[key] = Found(value=default, origin=DEFAULT_ORIGIN)
        places = [(table, key)]
        if table and key in _types(""):
            places.append(("", key))
        for source in sources:
            said = next((source.found[place] for place in places if place in source.found), None)
            if said is not None:
                found[key] = said
                break
    return found


def _kind(table: str) -> type[Any]:
    return TABLES[table] if table else Settings


@functools.cache
def _types(table: str) -> dict[str, Any]:
    hints = get_type_hints(_kind(table))
    return {key: kind for key, kind in hints.items() if key not in TABLES}


def _defaults(table: str) -> dict[str, Any]:
    return {item.name: item.default for item in fields(_kind(table)) if item.name not in TABLES}


def _file_of(file: Path | None, env: Mapping[str, str]) -> Path | None:
    if file is None and env.get(CONFIG_VARIABLE):
        file = Path(env[CONFIG_VARIABLE])
    if file is None and DEFAULT_FILE.is_file():
        file = DEFAULT_FILE
    return file


def _from_environment(env: Mapping[str, str]) -> _Source:
    known: dict[str, tuple[str, str]] = {f"{PREFIX}{key.upper()}": ("", key) for key in _types("")}
    for table in TABLES:
        for key in _types(table).keys() - _types("").keys():
            known[f"{PREFIX}{table.upper()}_{key.upper()}"] = (table, key)
    found = {}
    for name, text in env.items():
        if not name.startswith(PREFIX) or name in _OTHER_VARIABLES or not text:
            continue
        if name.startswith(_OTHER_PREFIXES):
            continue
        if name not in known:
            raise SettingError(f"variable {name}: there is no such setting{_nearest(name, known)}")
        table, key = known[name]
        value = _checked(table, key, _parsed(table, key, text), f"variable {name}", strict=False)
        found[table, key] = Found(value=value, origin=name)
    return _Source(found=found)


def _parsed(table: str, key: str, text: str) -> Any:
    """A list is separated by commas, all else is as it is written."""
    is_list = "list[" in str(_types(table)[key])
    return [item.strip() for item in text.split(",")] if is_list else text


def _from_file(file: Path | None) -> _Source:
    return _Source(found={} if file is None else read_file(file))


def read_file(file: Path) -> dict[tuple[str, str], Found]:
    """What a TOML file says.

    Raises:
        SettingError: it cannot be read, or a key or a value in it cannot be used.
    """
    try:
        text = read_document(file, MAX_CONFIGURATION_BYTES).decode()
        data = decode_toml(text)
    except OSError as error:
        raise SettingError(f"settings {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingError(f"settings {file}: it is no UTF-8 text") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingError(f"settings {file}: {redact(str(error))}") from error
    _warn_if_open(file, text)
    found: dict[tuple[str, str], Found] = {}
    for key, value in data.items():
        if key in TABLES:
            if not isinstance(value, dict):
                raise SettingError(f"settings {file}: {key} is a table: write [{key}]")
            for name, inner in value.items():
                found[key, name] = _of_file(file, key, name, inner)
        else:
            found["", key] = _of_file(file, "", key, value)
    return found


def _warn_if_open(file: Path, text: str) -> None:
    """Say that everybody may read a file with a password in it."""
    if has_secret(text) and file.stat().st_mode & stat.S_IROTH:
        _log.warning(
            "settings %s: it holds a password or a token, and everybody may read it: run chmod 600,"
            " or use password_file in the URL",
            file,
        )


def _of_file(file: Path, table: str, key: str, value: object) -> Found:
    origin = f"{file} [{table}] {key}" if table else f"{file} {key}"
    if key not in _types(table):
        known = [*_types(table), *(() if table else TABLES)]
        raise SettingError(f"settings {origin}: there is no such key{_nearest(key, known)}")
    return Found(
        value=_checked(table, key, value, f"settings {origin}", strict=True), origin=origin
    )


_SHOWN = 100
"""Characters of a wrong value."""


def _checked(table: str, key: str, value: Any, place: str, *, strict: bool) -> Any:
    try:
        return msgspec.convert(value, _types(table)[key], strict=strict, dec_hook=_decode)
    except msgspec.ValidationError as error:
        # The parser's text quotes values of some types: of a secret nothing is quoted.
        text = str(error)
        if has_secret(text) or has_secret(str(value)):
            raise SettingError(f"{place}: a value of another kind is wanted") from error
        raise SettingError(f"{place}: {str(value)[:_SHOWN]!r}: {text}") from error


def _decode(kind: type[Any], value: Any) -> Any:
    """A path, which msgspec does not know."""
    if kind is Path and isinstance(value, str) and value:
        return Path(value)
    raise msgspec.ValidationError(f"a path is wanted, got {type(value).__name__}")


def _nearest(name: str, known: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; the nearest is {nearest[0]}" if nearest else "; see hookbench config show"
