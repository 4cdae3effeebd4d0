"""``hookbench sim --replay``: minimal schedules on real brokers, and which hazards count."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hookbench.rehearsal.settings import RehearsalSettings
    from hookbench.results.store import Manifest
    from hookbench.sim.book import SeedEntry
    from hookbench.sim.shrink import Minimal
    from hookbench.sim.trial import Scope

__all__ = ["beside_guide", "replay_all"]


def beside_guide(scope: "Scope") -> "Scope | None":
    """What guide is held against: the same timeline under hardened."""
    import msgspec

    from hookbench.migration.phases import Design

    if scope.design is Design.HARDENED:
        return None
    return msgspec.structs.replace(scope, design=Design.HARDENED, measures="")


def replay_all(
    minimals: "Sequence[Minimal]",
    first_seed: int,
    tries: int,
    out: Path,
    beside: "list[SeedEntry] | None",
    *,
    json: bool,
) -> None:
    """Rehearse each minimal schedule, and say which hazards count as found.

    Args:
        minimals: one of each cause.
        first_seed: of the search.
        tries: rehearsals of each at the most.
        out: folder of the search; the runs lie below it.
        beside: hardened over the same seeds.
        json: one object for each in place of a table.
    """
    import msgspec

    from hookbench.results.store import write_aside
    from hookbench.sim.replay import replay, replay_table
    from hookbench.sim.replayed import REPLAYS_NAME, Clean, Replays

    found = []
    for minimal in minimals:
        if minimal.cause.hazard == "?":
            say(f"{minimal.cause.key}: a run that broke down is no hazard, and not replayed")
            continue
        say(f"replaying seed {minimal.seed} for {minimal.cause.key}")
        item = replay(
            minimal, first_seed=first_seed, tries=tries, out=out / "replays", rehearse=_rehearse
        )
        found.append(item)
        if json:
            line = {"event": "replay", **msgspec.to_builtins(item)}
            print(msgspec.json.encode(line).decode(), flush=True)
    clean = None
    if beside is not None:
        failing = sum(bool(item.failing) for item in beside)
        clean = Clean(seeds=len(beside), failing=failing)
    kept = Replays(hardened=clean, causes=tuple(found))
    data = msgspec.json.format(msgspec.json.encode(kept), indent=2)
    write_aside(out / REPLAYS_NAME, data + b"\n")
    if not json:
        print()
        print("\n".join(replay_table(found, clean)))


def _rehearse(settings: "RehearsalSettings") -> "Manifest":
    """One rehearsal, of which stderr tells."""
    from rich.console import Console

    from hookbench.cli.rehearse import run_or_interrupt
    from hookbench.clock import SystemClock
    from hookbench.rehearsal.progress import open_progress
    from hookbench.rehearsal.run import Rehearsal
    from hookbench.scenarios.resolved import scenario_toml

    clock = SystemClock()
    teller = open_progress(Console(stderr=True), clock)
    rehearsal = Rehearsal(
        settings, clock=clock, teller=teller, scenario_toml=scenario_toml(settings)
    )
    _folder, manifest = run_or_interrupt(rehearsal)
    return manifest


def say(text: str) -> None:
    """To stderr."""
    import sys

    print(text, file=sys.stderr, flush=True)
