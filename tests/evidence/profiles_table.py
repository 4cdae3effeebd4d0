"""The document about the profiles: ``python -m tests.evidence.profiles_table``."""

import json
import sys
from pathlib import Path

from tests.evidence.profiles import GAINS

__all__ = ["EVIDENCE", "document"]

EVIDENCE = Path(__file__).resolve().parents[2] / "evidence" / "profiles.json"

_HEAD = """# Profiles of the hot paths

Where the largest gains come from: `evidence/profiles.json`, commit {commit}, {cpus} cores, \
{rounds} rounds of both sides in turn. _Before_ is the bare client one by one, with a hundred at \
once, as the guide has it and the documentation of redis-py and nats-py show it; _after_ is the \
reference with its ledger on, which does more: it makes the task, encodes it, and records what \
happens to it. Brokers are of durability class `memory` and in processes of their own, so the CPU \
time is the client's. Written by `python -m tests.evidence.profiles_table`; \
`make evidence ARGS="-k profiles"` measures anew.

Rates and CPU time are on uvloop. The profiles are of a round more, with cProfile on asyncio's own \
loop, because that can be looked into; a profiler makes short functions look dearer than they are, \
so their microseconds say where the time goes and not how much it is. Waiting for a socket is left \
out.
"""


def document():
    """The text of docs/profiles.md, not yet laid out by prettier."""
    evidence = json.loads(EVIDENCE.read_text())
    figures = evidence["figures"]
    lines = [
        _HEAD.format(commit=evidence["commit"], cpus=evidence["cpus"], rounds=figures["rounds"]),
        "| | before, per s | after, per s | times | CPU before, us | after, us | ratio |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for gain in GAINS:
        found = figures[gain]
        lines.append(
            f"| {gain} | {found['before_per_s']:,} | {found['after_per_s']:,}"
            f" | {found['rate_ratio']} | {found['before_cpu_us']} | {found['after_cpu_us']}"
            f" | {found['cpu_ratio']} |"
        )
    for gain, what in GAINS.items():
        lines += [
            "",
            f"## {gain}",
            "",
            f"{what[0].upper()}{what[1:]}.",
            "",
            *_layers(figures, gain),
        ]
        for side in ("before", "after"):
            top = figures[f"{gain}, {side}, top"]
            lines += ["", f"Functions with the most time of their own, {side}, for a task:", ""]
            lines += [f"{place}. `{text}`" for place, text in top.items()]
    return "\n".join(lines) + "\n"


def _layers(figures, gain):
    """Microseconds for a task by whose code it is, and calls."""
    sides = [figures[f"{gain}, {side}, us by layer"] for side in ("before", "after")]
    calls = [figures[f"{gain}, {side}, a task"] for side in ("before", "after")]
    layers = sorted({*sides[0], *sides[1]}, key=lambda name: (-sides[0].get(name, 0.0), name))
    rows = [
        f"| {name} | {sides[0].get(name, 0.0)} | {sides[1].get(name, 0.0)} |" for name in layers
    ]
    rows += [
        f"| writes to a socket | {calls[0]['sends']} | {calls[1]['sends']} |",
        f"| callbacks of the loop | {calls[0]['callbacks']} | {calls[1]['callbacks']} |",
    ]
    return [
        "| for a task, us under the profiler | before | after |",
        "| --- | ---: | ---: |",
        *rows,
    ]


if __name__ == "__main__":
    sys.stdout.write(document())
