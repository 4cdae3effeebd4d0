"""What a proof leaves behind: one JSON file, written aside and renamed."""

import enum
import importlib.metadata
import math
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Annotated, Self

import msgspec
import pytest

from hookbench.clock import Clock
from hookbench.rehearsal.stage import utc_now_label
from hookbench.results.environment import commit, read_environment
from hookbench.results.store import write_aside

__all__ = ["Evidence", "EvidenceVerdict", "Proof", "load_evidence", "tree_commit"]

ROOT = Path(__file__).resolve().parents[2]
_GIT_TIMEOUT_S = 10.0
_UNFINISHED = "the proof did not finish"
_SILENT = "the proof ended without a conclusion"

Line = Annotated[str, msgspec.Meta(min_length=1, pattern=r"^[^\n]*\Z")]
Number = Annotated[int, msgspec.Meta(ge=0)]
# No lists: prettier lays them out in its own way, and the files are checked by it.
Figure = int | float | str | dict[str, int | float | str]


class EvidenceVerdict(enum.StrEnum):
    """What a proof came to; only ``proven`` is evidence."""

    PROVEN = "proven"
    REFUTED = "refuted"
    UNKNOWN = "unknown"


class Evidence(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What ``evidence/<name>.json`` holds.

    Attributes:
        name: of the proof, and of its file.
        claim: one sentence.
        reason: why it is not proven, empty if it is.
        commit: of the code that was proven, ``+`` behind it for a changed tree.
        seed: the same seed makes the same run, as far as real brokers let it.
        started: UTC label.
        versions: of hookbench, Python, the packages and the brokers.
        figures: numbers and texts by name, or groups of them.
    """

    name: Line
    claim: Line
    verdict: EvidenceVerdict
    reason: str
    commit: Line
    seed: int
    started: Annotated[str, msgspec.Meta(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\Z")]
    cpu: str
    cpus: Number
    memory_bytes: Number
    versions: dict[str, str]
    figures: dict[str, Figure]


def load_evidence(path: Path) -> Evidence:
    """The evidence in a file; an unknown or a missing field is an error."""
    return msgspec.json.decode(path.read_bytes(), type=Evidence, strict=True)


def tree_commit(root: Path = ROOT) -> str:
    """``commit()``, but what lies in ``evidence/`` does not count as a change, for proofs write it.

    A new file that git does not know counts: a proof may import it.
    """
    label = commit()
    try:
        changes = subprocess.run(
            ["git", "-C", str(root), "status", "--porcelain", "--", ".", ":(exclude)evidence"],
            capture_output=True,
            text=True,
            check=True,
            timeout=_GIT_TIMEOUT_S,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return label
    return f"{label.rstrip('+')}+" if changes else label.rstrip("+")


class Proof:
    """One proof while it runs. Its file says ``unknown`` from the first moment on.

    Entered around the body of a test: what is raised in it, and a body without a conclusion, are
    stored as ``unknown``; whatever is not ``proven`` fails the test.
    """

    def __init__(self, folder: Path, *, name: str, claim: str, seed: int, clock: Clock) -> None:
        environment = read_environment()
        self.path = folder / f"{name}.json"
        self._evidence = Evidence(
            name=name,
            claim=claim,
            verdict=EvidenceVerdict.UNKNOWN,
            reason=_UNFINISHED,
            commit=tree_commit(),
            seed=seed,
            started=utc_now_label(clock.wall_ns()),
            cpu=environment.cpu,
            cpus=environment.cpus,
            memory_bytes=environment.memory_bytes,
            versions={
                "hookbench": environment.hookbench,
                "python": environment.python,
                "pytest": importlib.metadata.version("pytest"),
                "system": platform.system(),
                **environment.packages,
            },
            figures={},
        )
        folder.mkdir(exist_ok=True)
        self._store()

    @property
    def evidence(self) -> Evidence:
        """As it stands now."""
        return self._evidence

    @property
    def seed(self) -> int:
        """The seed that the proof was given."""
        return self._evidence.seed

    def record(self, **figures: Figure) -> None:
        """Keep figures by name.

        Raises:
            TypeError: a value is no figure; the text names it.
        """
        for name, value in figures.items():
            flat = value.values() if isinstance(value, dict) else [value]
            try:
                msgspec.convert(value, Figure, strict=True)
            except msgspec.ValidationError as error:
                raise TypeError(f"figure {name} is {value!r}: {error}") from error
            if any(isinstance(item, float) and not math.isfinite(item) for item in flat):
                raise TypeError(f"figure {name} is {value!r}: JSON has no such number")
        self._change(figures={**self._evidence.figures, **figures})

    def record_versions(self, **versions: str) -> None:
        """Keep versions of what the proof used beside the packages: its brokers."""
        self._change(versions={**self._evidence.versions, **versions})

    def conclude(self, refuted: Sequence[str], unknown: Sequence[str] = ()) -> None:
        """Set the verdict.

        Args:
            refuted: what contradicts the claim; empty if nothing does.
            unknown: what could not be found out: then nothing is proven, and nothing refuted.
        """
        if unknown:
            self._change(verdict=EvidenceVerdict.UNKNOWN, reason="; ".join(unknown))
        elif refuted:
            self._change(verdict=EvidenceVerdict.REFUTED, reason="; ".join(refuted))
        else:
            self._change(verdict=EvidenceVerdict.PROVEN, reason="")

    def cut_off(self, error: BaseException) -> None:
        """Store as ``unknown`` because of ``error``, whatever was concluded before it."""
        text = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        self._change(verdict=EvidenceVerdict.UNKNOWN, reason=text)
        self._store()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self.cut_off(error)
            if isinstance(error, pytest.skip.Exception | pytest.xfail.Exception):
                pytest.fail(f"{self._evidence.name}: skipped, and so unknown: {error}")
            return
        if self._evidence.reason == _UNFINISHED:
            self._change(reason=_SILENT)
        self._store()
        if self._evidence.verdict is not EvidenceVerdict.PROVEN:
            pytest.fail(
                f"{self._evidence.name}: {self._evidence.verdict}: {self._evidence.reason}",
                pytrace=False,
            )

    def _change(self, **fields: object) -> None:
        self._evidence = msgspec.structs.replace(self._evidence, **fields)

    def _store(self) -> None:
        data = msgspec.json.format(msgspec.json.encode(self._evidence), indent=2)
        write_aside(self.path, data + b"\n")

    def line(self) -> str:
        """The proof in one line, for the end of ``make evidence``."""
        found = self._evidence
        path = os.path.relpath(self.path)
        head = f"{found.name:<16} {found.verdict:<8} commit {found.commit}  seed {found.seed}"
        return f"{head}  {path}" + (f"  {found.reason}" if found.reason else "")
