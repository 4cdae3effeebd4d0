"""What the search found, on real brokers: a hazard counts as found once it was replayed."""

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from hookbench.ledger.model import Verdict
from hookbench.rehearsal.settings import RehearsalSettings
from hookbench.results.store import Manifest
from hookbench.sim.as_scenario import as_rehearsal
from hookbench.sim.replayed import Clean, Replay
from hookbench.sim.shrink import Minimal
from hookbench.sim.trial import causes_of

__all__ = ["replay", "replay_table"]

_MAX_KEY = 48
Rehearse = Callable[[RehearsalSettings], Manifest]


def replay(
    minimal: Minimal, *, first_seed: int, tries: int, out: Path, rehearse: Rehearse
) -> Replay:
    """Rehearse a minimal schedule until its hazard is named.

    Args:
        minimal: of one cause.
        first_seed: of the search; the cause's seed is counted from it.
        tries: rehearsals at the most, for who is where at a time is chance there.
        out: folder of the runs.
        rehearse: runs one.
    """
    made = as_rehearsal(minimal)
    possible = made.left_out == 0 or made.left_out < len(minimal.faults)
    named = unknown = 0
    others: dict[str, None] = {}
    runs: list[str] = []
    while possible and not named and len(runs) < tries:
        manifest = rehearse(msgspec.structs.replace(made.settings, out=out))
        runs.append(manifest.run)
        keys = (
            [] if manifest.account is None else [item.key for item in causes_of(manifest.account)]
        )
        if minimal.cause.key in keys:
            named += 1
            continue
        unknown += manifest.verdict is Verdict.UNKNOWN
        others.update(dict.fromkeys(keys))
    return Replay(
        key=minimal.cause.key,
        seeds=minimal.seed - first_seed + 1,
        faults=len(minimal.faults),
        tries=len(runs),
        named=named,
        unknown=unknown,
        others=tuple(others),
        notes=made.notes,
        runs=tuple(runs),
    )


def replay_table(replays: Sequence[Replay], clean: Clean | None) -> list[str]:
    """The causes as lines of a table, and below it what a rehearsal could not say.

    Args:
        replays: one for each cause.
        clean: hardened over the same seeds; ``None`` where it is what was searched.
    """
    head = ("hazard/invariant", "seeds", "faults", "replayed", "hardened", "counts")
    hardened = "-"
    if clean is not None:
        hardened = f"{clean.failing or 'none'} of {clean.seeds:,} failing"
    rows = [
        (
            item.key[:_MAX_KEY],
            f"{item.seeds:,}",
            str(item.faults),
            _replayed(item),
            hardened,
            "found" if item.found else "not found",
        )
        for item in replays
    ]
    widths = [max(len(row[place]) for row in (head, *rows)) for place in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    ]
    return [*lines, *(f"{item.key[:_MAX_KEY]}: {note}" for item in replays for note in item.notes)]


def _replayed(item: Replay) -> str:
    if item.tries == 0:
        return "no: a rehearsal has none of its faults"
    text = f"{item.named} of {item.tries}"
    if item.unknown:
        text += f", {item.unknown} unknown"
    if not item.found and item.others:
        text += f" ({', '.join(key.partition(' ')[0] for key in item.others)} instead)"
    return text
