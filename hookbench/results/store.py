"""Runs on disk: written aside under a name with ``.partial``, renamed when whole."""

import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from hookbench.brokers.classify import BrokerReport
from hookbench.decoding import decode_json, read_document
from hookbench.errors import ResultsError
from hookbench.faults.base import FaultRecord
from hookbench.ledger.model import Account, Residue, StepPlan, Verdict
from hookbench.metrics.check import MetricsCheck
from hookbench.migration.checks import Check
from hookbench.results.environment import Environment

__all__ = [
    "EFFECTS_NAME",
    "LATEST",
    "MANIFEST_NAME",
    "MANIFEST_SCHEMA",
    "GateRecord",
    "GitCheck",
    "Incident",
    "Manifest",
    "ResourceUse",
    "RunFolder",
    "StepRecord",
    "create_run",
    "load_manifest",
    "remove_run",
    "resolve_run",
]

MANIFEST_NAME = "run.json"
EFFECTS_NAME = "effects.sqlite"
MANIFEST_SCHEMA = 2
"""What each number added stands in docs/results.md. A reader refuses a higher number."""
LATEST = "latest"
PARTIAL = ".partial"
_RUN = re.compile(r"(\d{4,})-.+")


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was not planned: a process that ended, a check that could not be made."""

    time_ns: int
    what: str


class StepRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A step of the timeline as it was carried out, monotonic ns.

    Attributes:
        start_ns: when it began.
        end_ns: when it ended, as planned.
        planned_ns: when it was to begin; 0 in manifests of schema 1.
    """

    plan: StepPlan
    start_ns: int
    end_ns: int
    planned_ns: int = 0


class GateRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a gate said in a run, as long as it said the same.

    Attributes:
        time_ns: of the first such answer, monotonic.
        step: index of the step that was to begin.
        moment: ``before``, ``between`` or ``after`` the change of the processes.
        answer: ``go``, ``no-go`` or ``unknown``.
        asked: how often it said so in a row.
        checks: every condition with its evidence, as of the last time.
    """

    time_ns: int
    step: int
    source: str
    target: str
    moment: str
    answer: str
    asked: int
    checks: list[Check]


class ResourceUse(msgspec.Struct, frozen=True, kw_only=True):
    """What the processes of one name cost over a run.

    Attributes:
        processes: how many had the name, one after another.
        cpu_s: user and system time, children that ended included.
        rss_max_bytes: the largest resident set that was seen.
        read_bytes, written_bytes: what went to and from the disk.
        received_bytes, sent_bytes: what the processes received and sent over TCP, the brokers'
            protocols included, the headers of TCP and IP not; ``None`` where the kernel does not
            tell (only Linux does). See ``rehearsal/traffic.py`` for what it misses.
    """

    name: str
    processes: int
    cpu_s: float
    rss_max_bytes: int
    read_bytes: int
    written_bytes: int
    received_bytes: int | None = None
    sent_bytes: int | None = None


class GitCheck(msgspec.Struct, frozen=True, kw_only=True):
    """Pushes, the tasks that came of them, and mirrors against origins, ref for ref."""

    pushes: int
    tasks: int
    repositories: int
    equal: int
    refs: int
    differences: list[str]


class Manifest(msgspec.Struct, kw_only=True):
    """What ``run.json`` holds.

    Attributes:
        schema: version of this layout.
        status: ``running``, ``complete`` or ``cut off``.
        verdict: of the whole run; ``unknown`` until it is complete.
        unknown_because: why the verdict is unknown, empty otherwise.
        durability: as it was read back from the brokers after the run, a class or the class of
            each broker; what was asked for until then.
        settings: as they were resolved.
        brokers: one line per broker: version and origin.
        broker_reports: each broker as it described itself.
        faults: what became of each fault of the schedule.
        not_offered: tasks that were due while a producer was down, and so are no part of the load.
        gates: what the gates between the phases said, in order; empty for a design without them.
        lag: p50, p99 and maximum schedule lag of the producers, ns; ``None`` in a loop that has no
            schedule.
        metrics: those of the processes against the ledger; ``None`` where none were served.
    """

    schema: int
    run: str
    status: str
    design: str
    seed: int
    durability: str
    settings: dict[str, Any]
    environment: Environment
    started: str
    brokers: list[str]
    steps: list[StepRecord] = []
    verdict: Verdict = Verdict.UNKNOWN
    unknown_because: list[str] = []
    incidents: list[Incident] = []
    account: Account | None = None
    residue: Residue | None = None
    git: GitCheck | None = None
    not_offered: int = 0
    lag: dict[str, int] | None = None
    resources: list[ResourceUse] = []
    faults: list[FaultRecord] = []
    broker_reports: list[BrokerReport] = []
    gates: list[GateRecord] = []
    metrics: MetricsCheck | None = None


class RunFolder:
    """The folder of a run while it is being made."""

    def __init__(self, path: Path, final: Path) -> None:
        self.path = path
        self._final = final
        for part in (self.ledger, self.logs, self.work):
            part.mkdir()

    @property
    def ledger(self) -> Path:
        """Segments of the ledger."""
        return self.path / "ledger"

    @property
    def effects(self) -> Path:
        """The effect store."""
        return self.path / EFFECTS_NAME

    @property
    def logs(self) -> Path:
        """Output of the processes."""
        return self.path / "logs"

    @property
    def work(self) -> Path:
        """Data of brokers, repositories, control files: removed when the run is whole."""
        return self.path / "work"

    @property
    def name(self) -> str:
        """The run's id."""
        return self._final.name

    def save(self, manifest: Manifest) -> None:
        """Write the manifest, aside and renamed."""
        write_aside(self.path / MANIFEST_NAME, encode_manifest(manifest))

    def finish(self) -> Path:
        """Give the folder its final name, and point ``latest`` at it."""
        self.path.rename(self._final)
        self.path = self._final
        _point_latest_at(self._final)
        return self._final


def _point_latest_at(run: Path) -> None:
    aside = run.with_name(f".{LATEST}.{os.getpid()}")
    aside.unlink(missing_ok=True)
    aside.symlink_to(run.name, target_is_directory=True)
    aside.replace(run.with_name(LATEST))


def remove_run(run: Path) -> None:
    """Remove a finished run; ``latest`` points at the newest that is left, if it was this one."""
    latest = run.with_name(LATEST)
    was_latest = latest.is_symlink() and latest.readlink().name == run.name
    shutil.rmtree(run)
    if not was_latest:
        return
    latest.unlink()
    left = [
        item
        for item in run.parent.iterdir()
        if _RUN.match(item.name) and not item.name.endswith(PARTIAL)
    ]
    if left:
        _point_latest_at(max(left, key=lambda item: item.name))


def encode_manifest(manifest: Manifest) -> bytes:
    """Indented JSON."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def write_aside(path: Path, data: bytes) -> None:
    """Replace a file as a whole or not at all."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def create_run(results: Path, commit: str) -> RunFolder:
    """A new folder ``NNNN-<commit>``; no existing one is ever written to.

    Raises:
        ResultsError: the results folder cannot be created or written.
    """
    try:
        results.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=results):
            pass
        for _ in range(1000):
            number = 1 + max(
                (int(found[1]) for item in results.iterdir() if (found := _RUN.match(item.name))),
                default=0,
            )
            final = results / f"{number:04d}-{commit.rstrip('+')}"
            partial = final.with_name(final.name + PARTIAL)
            try:
                partial.mkdir()
            except FileExistsError:
                continue
            return RunFolder(partial, final)
    except OSError as error:
        raise ResultsError(
            f"results folder {results}: {error.strerror}; choose another one with --out"
        ) from error
    raise ResultsError(f"results folder {results}: no free run number")


def resolve_run(run: str, results: Path) -> Path:
    """The folder of a run given by its path, its id, the beginning of its id, or ``latest``.

    Raises:
        ResultsError: there is none, or several begin so.
    """
    direct = Path(run)
    if (direct / MANIFEST_NAME).is_file():
        return direct.resolve()
    if (results / run / MANIFEST_NAME).is_file():
        return (results / run).resolve()
    stored = sorted(results.iterdir()) if results.is_dir() else []
    found = [
        item for item in stored if item.name.startswith(run) and (item / MANIFEST_NAME).is_file()
    ]
    if len(found) == 1:
        return found[0]
    runs = [item for item in stored if _RUN.match(item.name)]
    known = ", ".join(item.name for item in found or runs[-5:])
    what = "several runs begin so" if found else "no such run"
    if run == LATEST and runs:
        what = "none has come to its end; one that has not is given by its id"
    raise ResultsError(f"run {run!r} in {results}: {what} ({known or 'none is there'})")


def load_manifest(run: Path) -> Manifest:
    """The manifest of a stored run.

    Raises:
        ResultsError: missing, damaged, or written by a newer version.
    """
    path = run / MANIFEST_NAME
    try:
        data = read_document(path)
        schema = decode_json(data, _SchemaOnly).schema
        if schema > MANIFEST_SCHEMA:
            raise ResultsError(
                f"run {path}: schema {schema}, this version reads up to {MANIFEST_SCHEMA}; use the"
                " hookbench that wrote it, or a newer one"
            )
        return decode_json(data, Manifest)
    except OSError as error:
        raise ResultsError(f"run {path}: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise ResultsError(
            f"run {path}: damaged ({error}); copy the run again, or leave it out"
        ) from error


class _SchemaOnly(msgspec.Struct):
    schema: int
