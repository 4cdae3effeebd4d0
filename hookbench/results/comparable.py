"""Whether runs can be compared: the same machine and software, the same question, and an end."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from hookbench.ledger.model import Verdict
from hookbench.results.store import Manifest

__all__ = ["obstacles"]

_CODE = frozenset({"commit", "hookbench"})
"""What may differ in an environment: it is what is compared."""
_NOT_ASKED = frozenset({"seed", "out", "keep", "scenario", "allow_existing"})
"""Settings that change neither the load nor the system. The scenario is a name for the rest."""
_ADDED = {"metrics": False}
"""Settings that older runs do not have, and what those were made with."""
_MEMORY = "memory_bytes"
_MEMORY_SHARE = 0.01
"""Kernels of one machine do not keep the same number of pages to themselves."""
_LONGEST = 60
_ABSENT = "nothing"


def obstacles(runs: Sequence[tuple[str, Manifest]]) -> list[str]:
    """Why these runs are not to be compared, one text each; empty if they are.

    A run that did not come to its end or whose verdict is unknown is named; and every difference
    to the first one of environment (commit and version of hookbench excepted), versions of the
    brokers, durability class, and settings (the seed and names excepted).

    Args:
        runs: a label and a manifest each; the first is what the others are held against.
    """
    found = []
    for label, manifest in runs:
        if manifest.status != "complete":
            found.append(f"{label} did not come to its end: its status is {manifest.status!r}")
        elif manifest.verdict is Verdict.UNKNOWN:
            why = "; ".join(manifest.unknown_because) or "no reason is stored"
            found.append(f"{label} is unknown: {why}")
    first_label, first = runs[0]
    wanted = _facts(first)
    for label, manifest in runs[1:]:
        for name, one, other in _unlike(wanted, _facts(manifest)):
            found.append(f"{name}: {one} in {first_label}, {other} in {label}")
    return found


def _facts(manifest: Manifest) -> dict[str, Any]:
    """What has to be the same, by what it is called in a text."""
    environment = msgspec.to_builtins(manifest.environment)
    packages = environment.pop("packages")
    facts = {name: value for name, value in environment.items() if name not in _CODE}
    facts |= {f"package {name}": version for name, version in packages.items()}
    if manifest.broker_reports:
        facts |= {f"version of {item.name}": item.version for item in manifest.broker_reports}
    else:
        facts["brokers"] = manifest.brokers
    facts["durability class"] = manifest.durability
    facts["design"] = manifest.design
    settings = _ADDED | manifest.settings
    asked = {name: value for name, value in settings.items() if name not in _NOT_ASKED}
    return facts | {f"setting {name}": value for name, value in asked.items() if name != "design"}


def _unlike(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Name and both values of what differs; of tables and lists of tables, what differs in them."""
    for name in dict.fromkeys([*one, *other]):
        left, right = one.get(name, _ABSENT), other.get(name, _ABSENT)
        if left == right or (name == _MEMORY and abs(left - right) < _MEMORY_SHARE * left):
            continue
        left_parts, right_parts = _parts(left), _parts(right)
        if left_parts is None or right_parts is None:
            yield name, _text(left), _text(right)
        else:
            for part, *texts in _unlike(left_parts, right_parts):
                yield f"{name} {part}", texts[0], texts[1]


def _parts(value: Any) -> Mapping[str, Any] | None:
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        return {str(number): item for number, item in enumerate(value)}
    return value if isinstance(value, dict) else None


def _text(value: Any) -> str:
    text = value if isinstance(value, str) and value else msgspec.json.encode(value).decode()
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
