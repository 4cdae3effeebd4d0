"""The document about the hazards: ``python -m tests.evidence.hazards_table``."""

import json
import sys
from pathlib import Path

from hookbench.hazards.registry import HAZARDS
from tests.evidence.hazard_findings import FINDINGS

__all__ = ["document"]

EVIDENCE = Path(__file__).resolve().parents[2] / "evidence" / "hazards.json"

_HEAD = """# Hazards

How the guide, followed to the letter, loses, duplicates, strands or reorders a task: each row of \
the table of hazards as `hookbench hazards` reproduces it, with the reference producer and real \
worker processes on brokers of its own. `hookbench hazards R3 --steps` shows one, with what was \
done step by step; `--keep FOLDER` keeps its ledger and logs.

Figures are those of one run (`evidence/hazards.json`, commit {commit}, seed {seed}, \
{seconds:.0f} s for all rows). **shown** means that the harm of the row was observed. Written by \
`python -m tests.evidence.hazards_table`.
"""


def document():
    """The text of docs/hazards.md, not yet laid out by prettier."""
    evidence = json.loads(EVIDENCE.read_text())
    figures = evidence["figures"]
    lines = [
        _HEAD.format(commit=evidence["commit"], seed=evidence["seed"], seconds=figures["seconds"]),
        "| id | where | how the guide does harm | harm | outcome | tasks | s |",
        "| --- | --- | --- | --- | --- | ---: | ---: |",
    ]
    for hazard in HAZARDS.values():
        found = figures[hazard.id]
        lines.append(
            f"| {hazard.id} | {hazard.where} | {hazard.mechanism} | {found['harm']}"
            f" | {found['outcome']} | {found['tasks']:,} | {found['seconds']} |"
        )
    lines += ["", "## Findings", ""]
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
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(document())
