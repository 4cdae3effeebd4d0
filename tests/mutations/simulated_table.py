"""The document about planted bugs in the simulator, from the lines of a search.

``python -m tests.mutations.simulated --json > found.jsonl``, then
``python -m tests.mutations.simulated_table < found.jsonl > docs/simulated_mutations.md``.
"""

import sys

import msgspec

from tests.mutations.simulated import MOST_SEEDS, Sought
from tests.mutations.table import BLIND_SPOTS, COUNTED, MUTATIONS, table_text
from tests.mutations.unseen import UNSEEN

__all__ = ["document"]

_HEAD = f"""# Planted bugs in the simulator

The [mutations](mutations.md) are planted once more, each in a process of its own, and the search \
of the [simulator](simulation.md) looks for a schedule under which the run is invalid: seeds from \
1 on, under hardened over the whole timeline. What is not seen there is searched under guide in \
`redis_only`, `dual_write` and `nats_primary`; there a seed counts only if the code without the \
bug survives the same schedule. The proof `simulated_mutations` does so with up to {MOST_SEEDS} \
seeds for each ([evidence.md](evidence.md)).

`seen` is the number of the seed, and the cause that it was seen by. Otherwise: **not called**: \
the planted code never ran; **harms no task**: it ran, and what it needs to do harm did not \
happen; **harmed, and not seen**: it said that it harmed tasks, and the account is valid, as a \
rule because a measure makes good for it.
"""
_BLIND = "Not searched, because the account does not see them on real brokers either: {names}.\n"


def document(found):
    """The text of ``docs/simulated_mutations.md``.

    Args:
        found: by name, what was sought; a bug without an entry is said to be missing.
    """
    rows = [("bug", "hardened", "guide", "why not")]
    for item in MUTATIONS:
        sought = found.get(item.name)
        if sought is None:
            rows.append((item.name, "not run yet", "", ""))
            continue
        known = UNSEEN.get(item.name)
        reason = known.reason if known and not sought.hardened.seen else ""
        rows.append((item.name, _cell(sought.hardened), _cell(sought.guide), reason))
    names = ", ".join(item.name for item in (*COUNTED, *BLIND_SPOTS))
    return "\n".join([_HEAD, table_text(rows), _BLIND.format(names=names)])


def _cell(search):
    if search is None:
        return ""
    if search.seen:
        return f"seen: {search.seeds}, {search.cause.replace('# ', '')}"
    return f"{search.silence} ({search.seeds} seeds)"


if __name__ == "__main__":
    lines = [msgspec.json.decode(line, type=Sought) for line in sys.stdin]
    sys.stdout.write(document({item.name: item for item in lines}))
