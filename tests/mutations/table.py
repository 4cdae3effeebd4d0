"""All mutations, and the document about them: ``python -m tests.mutations.table``."""

import inspect
import sys

from tests.mutations import (
    blind_spots,
    counted_bugs,
    effect_bugs,
    epoch_bugs,
    measure_bugs,
    outbox_bugs,
    producer_bugs,
    queue_bugs,
    redis_lease_bugs,
    settle_bugs,
    worker_bugs,
)

__all__ = ["BLIND_SPOTS", "COUNTED", "MUTATIONS", "caught", "document", "table_text"]

MUTATIONS = (
    *producer_bugs.MUTATIONS,
    *outbox_bugs.MUTATIONS,
    *worker_bugs.MUTATIONS,
    *settle_bugs.MUTATIONS,
    *queue_bugs.MUTATIONS,
    *redis_lease_bugs.MUTATIONS,
    *effect_bugs.MUTATIONS,
    *epoch_bugs.MUTATIONS,
    *measure_bugs.MUTATIONS,
)

COUNTED = counted_bugs.COUNTED
BLIND_SPOTS = blind_spots.BLIND_SPOTS

_HEAD = """# Mutations

A checker that has never caught a bug proves nothing. Each of these bugs is planted into the code \
of hookbench, one at a time, and a small scenario runs with it on a real Redis and a real NATS: \
real producer, worker, ledger and effect store, then the account of a run (`tests/mutations`). \
Three things must hold for each:

1. the same scenario without the bug breaks no invariant;
2. with the bug the invariant that is named breaks, and no other; its findings name the tasks \
that the planted code says it harmed, and the hazard and cause that are named here. A loss or \
duplicate without a cause is found by invariant 8 as well, and so by design;
3. with that checker left out, and with 8 where it is named, the run with the bug passes.

Planted code that harms no task fails the test. Written by `python -m tests.mutations.table`.
"""

_COUNTED = """## What the counts of a rehearsal catch

Planted in the same way. The account stays valid, for to it two ids are two tasks; but a \
rehearsal knows how many tasks were offered and how many pushes there were, and holds the ledger \
against both. Without the bug the counts agree, with it they do not.
"""

_BLIND = """## What no checker catches

Planted in the same way, and the account stays valid; a test says so, and fails when one is \
caught. Two tasks of the same bytes (hazard R4) have the same id and are one task to the ledger, \
whatever becomes of the second: an id in each payload is what closes that hazard.
"""


def document():
    """The text of ``docs/mutations.md``."""
    parts = [_HEAD, "## The bugs\n", table_text(_bug_rows())]
    parts += ["## The scenarios\n", table_text(_scenario_rows())]
    parts += [_COUNTED, table_text(_blind_rows(COUNTED))]
    parts += [_BLIND, table_text(_blind_rows(BLIND_SPOTS))]
    return "\n".join(parts)


def _bug_rows():
    yield ("bug", "place", "what it does", "caught by", "hazard", "cause", "scenario")
    for item in MUTATIONS:
        yield (
            item.name,
            f"`{item.place}`",
            item.what,
            " and ".join(str(number) for number in item.breaks),
            item.hazard,
            _cause(item),
            f"`{item.scenario.__name__}`",
        )


def _blind_rows(mutations):
    yield ("bug", "place", "what it does", "why", "scenario")
    for item in mutations:
        scenario = f"`{item.scenario.__name__}`"
        yield (item.name, f"`{item.place}`", item.what, item.blind, scenario)


def _cause(mutation):
    if mutation.cause is None:
        return "-"
    what, step, fault, _hazard = mutation.cause
    return f"{what} after `{step}`" + (f", {fault}" if fault != "-" else "")


def _scenario_rows():
    yield ("scenario", "what happens")
    for scenario in dict.fromkeys(item.scenario for item in (*MUTATIONS, *COUNTED, *BLIND_SPOTS)):
        text = inspect.getdoc(scenario)
        yield (f"`{scenario.__name__}`", " ".join(text.split()))


def table_text(rows):
    """A Markdown table as prettier writes it."""
    rows = list(rows)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    rows.insert(1, tuple("-" * width for width in widths))
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def caught():
    """Numbers of the invariants that catch a planted bug."""
    return {number for item in MUTATIONS for number in item.breaks}


if __name__ == "__main__":
    sys.stdout.write(document())
