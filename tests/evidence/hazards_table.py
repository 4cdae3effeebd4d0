"""The document about the hazards: ``python -m tests.evidence.hazards_table [--readme]``."""

import json
import sys
from pathlib import Path

from hookbench.hazards.registry import HAZARDS
from tests.evidence.hazard_findings import FINDINGS

__all__ = ["BEGIN", "END", "document", "table"]

_FOLDER = Path(__file__).resolve().parents[2] / "evidence"
EVIDENCE = _FOLDER / "hazards.json"
HARDENED = _FOLDER / "hazards_hardened.json"
BEGIN, END = "<!-- python -m tests.evidence.hazards_table --readme -->", "<!-- end -->"
"""Between these README.md has the table."""

_HEAD = """# Hazards

How the guide, followed to the letter, loses, duplicates, strands or reorders a task: each row of \
the table of hazards as `hookbench hazards` reproduces it, with the reference producer and real \
worker processes on brokers of its own. `hookbench hazards R3 --steps` shows one, with what was \
done step by step; `--keep FOLDER` keeps its ledger and logs.

Figures are those of one run of each design (`evidence/hazards.json`, commit {commit}, seed \
{seed}, {seconds:.0f} s for all rows under the guide; `evidence/hazards_hardened.json`, commit \
{hardened_commit}, {hardened_seconds:.0f} s with all measures). **shown** means that the harm of \
the row was observed; **prevented** that the same was done and every task has its one end; \
**refused** that it was told before a task was accepted, or by a gate before a phase was entered. \
Written by `python -m tests.evidence.hazards_table`.
"""


def document():
    """The text of docs/hazards.md, not yet laid out by prettier."""
    evidence = json.loads(EVIDENCE.read_text())
    figures = evidence["figures"]
    hardened = json.loads(HARDENED.read_text())
    kept = hardened["figures"]
    lines = [
        _HEAD.format(
            commit=evidence["commit"],
            seed=evidence["seed"],
            seconds=figures["seconds"],
            hardened_commit=hardened["commit"],
            hardened_seconds=kept["seconds"],
        ),
        "| id | where | how the guide does harm | harm | guide | tasks | s | hardened | s |",
        "| --- | --- | --- | --- | --- | ---: | ---: | --- | ---: |",
    ]
    for hazard in HAZARDS.values():
        found = figures[hazard.id]
        lines.append(
            f"| {hazard.id} | {hazard.where} | {hazard.mechanism} | {found['harm']}"
            f" | {found['outcome']} | {found['tasks']:,} | {found['seconds']}"
            f" | {kept[hazard.id]['outcome']} | {kept[hazard.id]['seconds']} |"
        )
    lines += ["", "## Findings under the guide", ""]
    for hazard in HAZARDS.values():
        found = figures[hazard.id]
        lines.append(f"- **{hazard.id}** {found['found']}.")
        if hazard.otherwise:
            lines.append(f"  Otherwise than the table: {hazard.otherwise}.")
        if hazard.switches and not found["masked"]:
            lines.append(f"  With {', '.join(hazard.switches)}.")
        elif hazard.switches:
            lines.append(f"  With {', '.join(hazard.switches)}; without {found['masked']}.")
        if hazard.id in FINDINGS:
            lines.append(f"  {FINDINGS[hazard.id]}")
    lines += ["", "## Findings with all measures", ""]
    lines += [f"- **{item}** {kept[item]['found']}." for item in HAZARDS]
    return "\n".join(lines) + "\n"


def table():
    """The table in README.md, likewise."""
    figures = [json.loads(path.read_text())["figures"] for path in (EVIDENCE, HARDENED)]
    lines = [
        "| id | how the guide does harm | harm | guide | hardened |",
        "| --- | --- | --- | --- | --- |",
    ]
    for hazard in HAZARDS.values():
        guide, hardened = (found[hazard.id] for found in figures)
        lines.append(
            f"| {hazard.id} | {hazard.mechanism} | {guide['harm']} | {guide['outcome']}"
            f" | {hardened['outcome']} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(table() if sys.argv[1:] == ["--readme"] else document())
