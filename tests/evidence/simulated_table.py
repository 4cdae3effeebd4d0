"""The document about what the simulator finds: ``python -m tests.evidence.simulated_table``."""

import json
import sys

from hookbench.hazards.registry import HAZARDS
from hookbench.sim.coverage import COVERED_STEPS
from tests.evidence.record import ROOT
from tests.evidence.simulated_hazards import COVERAGE, NOT_DRAWN, WANTED

__all__ = ["EVIDENCE", "SEEDS", "document"]

EVIDENCE = ROOT / "evidence" / "simulated_hazards.json"
SEEDS = ROOT / "evidence" / "simulated_seeds.json"

_HEAD = """# Hazards that the simulator finds

What the search of the [simulator](simulation.md) finds under the guide, and what becomes of it on \
real brokers and under hardened (`evidence/simulated_hazards.json`, commit {commit}). Written by \
`python -m tests.evidence.simulated_table`; `make evidence ARGS="-k simulated_hazards"` searches \
anew.

- **seeds**: from 1 on, until one shows the hazard in one of the places that are searched for it. \
**minimal**: the faults of its schedule when it was shrunk, and the events of the story below: \
what happens to its task, with the deaths and faults around it.
- **real brokers**: the minimal schedule as a rehearsal, on embedded brokers with real processes, \
until its account names the same hazard; up to three schedules of a hazard are tried. What is not \
shown there is **not found**.
- **hardened**: the verdict with all measures under the minimal schedule, and under the whole one \
that the seed draws.
"""
_SEEDS = """
Over {seeds:,} seeds of everything hardened is valid in the simulator (`simulated_seeds`, commit \
{commit}): {faults:,} faults were drawn and {fired:,} met something, {accepted:,} tasks were \
accepted, and {failed_and_mended} seeds that failed once were mended.
"""
_COVERED = """
## Coverage

Faults by the step at which tasks were when they struck, over {swept_seeds} seeds of each of \
{swept_scopes} places under guide: {covered_cells} of {coverable_cells} cells. One that is empty \
may be one that cannot be, as a worker's task that is being put.
"""


def document():
    """The text of docs/simulated_hazards.md, not yet laid out by prettier."""
    evidence = json.loads(EVIDENCE.read_text())
    figures = evidence["figures"]
    lines = [_HEAD.format(commit=evidence["commit"])]
    if SEEDS.exists():
        seeds = json.loads(SEEDS.read_text())
        lines.append(_SEEDS.format(commit=seeds["commit"], **seeds["figures"]))
    lines += [
        "| hazard | where | cause | seeds | minimal | real brokers | hardened | counts |",
        "| --- | --- | --- | ---: | --- | --- | --- | --- |",
    ]
    found = {item.hazard: figures[item.hazard] for item in WANTED}
    lines += [_row(hazard, item) for hazard, item in found.items()]
    lines += _coverage(figures)
    lines += ["", "## Minimal schedules", ""]
    lines += [text for hazard, item in found.items() for text in _story(hazard, item)]
    lines += ["## Not drawn", ""]
    lines += [
        f"- **{hazard}** {HAZARDS[hazard].mechanism}: {why}." for hazard, why in NOT_DRAWN.items()
    ]
    return "\n".join(lines) + "\n"


def _row(hazard, found):
    cells = (
        hazard,
        found["scope"].removeprefix("guide "),
        found["cause"].replace("# ", ""),
        found["seed"],
        f"{found['faults']} faults, {found['events']} events",
        _replayed(found),
        " and ".join(dict.fromkeys((found["hardened"], found["hardened_drawn"]))),
        "found" if found["replayed"] else "not found",
    )
    return f"| {' | '.join(map(str, cells))} |"


def _replayed(found):
    runs = f"{found['rehearsals']} run{'' if found['rehearsals'] == 1 else 's'}"
    if not found["replayed"]:
        instead = f", {found['instead'].replace('# ', '')} instead" if found["instead"] else ""
        return f"no ({runs}{instead})"
    if (found["replayed"], found["replayed_in"]) == (found["seed"], found["scope"]):
        return f"shown ({runs})"
    return f"shown by seed {found['replayed']} ({runs})"


def _coverage(figures):
    """A table with the steps that anything struck at."""
    rows = {
        name.removeprefix(COVERAGE): row
        for name, row in figures.items()
        if name.startswith(COVERAGE)
    }
    steps = [step for step in COVERED_STEPS if any(step in row for row in rows.values())]
    lines = [_COVERED.format(**figures)]
    lines.append(f"| fault | {' | '.join(steps)} |")
    lines.append(f"| --- | {' | '.join('---:' for _step in steps)} |")
    for name, row in rows.items():
        lines.append(f"| {name} | {' | '.join(str(row.get(step, '')) for step in steps)} |")
    return lines


def _story(hazard, found):
    what = found["schedule"] or "no fault at all"
    head = f"**{hazard}**, seed {found['seed']}: {what} ({found['shrunk_in']} runs to shrink)."
    return [head, "", "```text", found["story"], "```", ""]


if __name__ == "__main__":
    sys.stdout.write(document())
