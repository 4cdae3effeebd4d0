"""The document about planted bugs in the simulator: ``python -m tests.mutations.simulated_table``.

It is made of the file of the proof ``simulated_mutations``.
"""

import json
import sys

from tests.evidence.record import ROOT
from tests.mutations.simulated import MOST_HARDENED, MOST_SEEDS, STAGES
from tests.mutations.table import BLIND_SPOTS, COUNTED, MUTATIONS, table_text
from tests.mutations.unseen import UNSEEN

__all__ = ["EVIDENCE", "document"]

EVIDENCE = ROOT / "evidence" / "simulated_mutations.json"

_HEAD = f"""# Planted bugs in the simulator

The [mutations](mutations.md) are planted once more, each in a process of its own, and the search \
of the [simulator](simulation.md) looks for a schedule under which the run is invalid: seeds from \
1 on, each of them drawn for the whole timeline and for three phases alone, under **hardened**. \
What is not seen there, as a rule because another measure makes good for it, is searched under \
guide with the **measures** that its code belongs to and without those others, and then under \
**guide** alone. What no schedule asks for is left to its **scenario** on real brokers, which runs \
over simulated ones; there the seed is that of the network. A seed counts only if the planted code \
says that it harmed a task, and the code without it survives the same. Up to {MOST_HARDENED} seeds \
under hardened, and {MOST_SEEDS} in each other stage. \
`evidence/simulated_mutations.json`, commit {{commit}}, {{cpu_s:,}} s of CPU; written by \
`python -m tests.mutations.simulated_table`.

`seed` is the number of the first that shows it, with the cause that it was seen by. Otherwise: \
**not called**: the planted code never ran; **harms no task**: it ran, and what it needs to do \
harm did not happen; **harmed, and not seen**: it said that it harmed tasks, and the account is \
valid. {{seen}}.
"""
_BLIND = "Not searched, because the account does not see them on real brokers either: {names}.\n"


def document():
    """The text of ``docs/simulated_mutations.md``, not yet laid out by prettier."""
    evidence = json.loads(EVIDENCE.read_text())
    figures = evidence["figures"]
    seen = [f"{count} were seen by {stage}" for stage, count in figures["seen"].items()]
    head = _HEAD.format(
        commit=evidence["commit"],
        cpu_s=figures["cpu_s"],
        seen=f"Of {figures['bugs']} bugs {', '.join(seen)}, {figures['not_seen']} were not",
    )
    rows = [("bug", *STAGES, "why not under hardened")]
    for item in MUTATIONS:
        cells = [_cell(figures[item.name], stage) for stage in STAGES]
        rows.append((item.name, *cells, UNSEEN.get(item.name, "")))
    names = ", ".join(item.name for item in (*COUNTED, *BLIND_SPOTS))
    return "\n".join([head, table_text(rows), _BLIND.format(names=names)])


def _cell(found, stage):
    """What one stage came to; empty where an earlier one showed the bug."""
    if f"{stage}_seeds" not in found:
        return ""
    seeds, said = found[f"{stage}_seeds"], found[f"{stage}_said"]
    if "/" in said:
        return f"seed {seeds}: {said.replace('# ', '')}"
    return f"{said} ({seeds} seeds)"


if __name__ == "__main__":
    sys.stdout.write(document())
