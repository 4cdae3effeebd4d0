"""What producers and workers say of themselves, from what they announce line by line."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hookbench.decoding import read_document
from hookbench.errors import SettingError
from hookbench.migration.phases import parse_phase
from hookbench.migration.snapshot import Announcement

__all__ = ["announcement_of", "read_announced"]

_ROLES = ("producer", "worker")


def announcement_of(name: str, role: str, said: Mapping[str, Any]) -> Announcement | None:
    """The announcement in the latest value of each key; ``None`` before the first phase.

    A process that has stopped in order announces nothing any more.
    """
    if "phase" not in said or said.get("event") == "stopped":
        return None
    return Announcement(
        name=name,
        role=role,
        phase=parse_phase(str(said["phase"])),
        version=str(said.get("version", "")),
        measures=str(said.get("measures", "none")),
        task_type=str(said.get("task_type", "")) if role == "worker" else "",
        authority=str(said.get("authority", "")),
        follows=str(said.get("follows", "")),
    )


def read_announced(paths: Iterable[Path]) -> tuple[Announcement, ...]:
    """From files of JSON lines, one of each process, as ``--json`` of worker and produce writes.

    Args:
        paths: such files, or folders of files that end in ``.jsonl``.

    Raises:
        SettingError: a file cannot be read, or one has no announcement of a phase.
    """
    found = []
    for path in paths:
        try:
            files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
            for file in files:
                said = _said(file)
                announcement = announcement_of(file.stem, _role(file, said), said)
                if announcement is not None:
                    found.append(announcement)
        except OSError as error:
            raise SettingError(f"announcements {path}: {error.strerror}") from error
    return tuple(found)


def _said(file: Path) -> dict[str, Any]:
    said: dict[str, Any] = {}
    for line in read_document(file).splitlines():
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):  # the last line of a process that was killed
            continue
        if isinstance(event, dict):
            said.update(event)
    return said


def _role(file: Path, said: Mapping[str, Any]) -> str:
    role = str(said.get("role", ""))
    if role not in _ROLES:
        raise SettingError(
            f"announcements {file}: no process said its role there; give what hookbench worker or"
            " produce printed with --json"
        )
    return role
