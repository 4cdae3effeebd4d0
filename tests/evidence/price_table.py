"""The document about the price: ``python -m tests.evidence.price_table``."""

import json
import sys
from pathlib import Path

from tests.evidence.price_findings import conclusion, remarks
from tests.evidence.price_variants import BUDGETS, GUIDE, LEFT_OUT

__all__ = ["EVIDENCE", "document"]

EVIDENCE = Path(__file__).resolve().parents[2] / "evidence" / "price.json"

_HEAD = """# The price of the hardened design

What each measure costs beside the guide: `evidence/price.json`, commit {commit}, {rounds} rounds \
in one run, in which all variants take turns, {tasks:,} tasks, each of them done exactly once by \
the ledger. The machine has {cpus} cores and was shared with others (load {load_least} to \
{load_most}). Written by `python -m tests.evidence.price_table`; `make evidence ARGS="-k price"` \
measures anew, and `python -m tests.evidence.price --quick` in half a minute.

The reference producer and a whole `WorkerService` run in one process, on brokers of durability \
class `lazy`, ledgers on, a handler that does nothing. So the rates are the worst case: nothing \
is done but what the queue needs. A measure stands with what it needs.

- **Counts are exact, and proven**: per task, producer and worker together. _Turns_ are requests \
to Redis whose answer is waited for, a pipeline being one; _out_ and _in_ are NATS messages to and \
from the broker, acknowledgements and pull requests included; _bytes_ are those of both brokers \
and both ways. _In turn_: a task is put when the one before is finished. _At once_: {senders} \
senders, {slots} slots, a backlog of {tasks_at_once:,} tasks.
- **Rates and latencies are this run's**: _x_ is the rate beside the guide's of the same round, \
median and range; put until the brokers have it, done until it is acknowledged, confirmed and \
trimmed. Latencies (p50 and p99, ms) are of tasks in turn: from the beginning of the put until it \
is acknowledged to its caller, and until the handler has returned.
"""

_COLUMNS = (
    "measure",
    "put x",
    "done x",
    "put ms",
    "put to done ms",
    "turns",
    "out",
    "in",
    "bytes",
    "at once: turns",
    "out",
    "in",
    "bytes",
)


def document():
    """The text of docs/price.md, not yet laid out by prettier."""
    evidence = json.loads(EVIDENCE.read_text())
    figures = evidence["figures"]
    settings = {name: value for name, value in figures.items() if not isinstance(value, dict)}
    lines = [_HEAD.format(commit=evidence["commit"], cpus=evidence["cpus"], **settings)]
    said, situation = remarks(figures), ""
    for variant in BUDGETS:
        if variant.situation != situation:
            situation = variant.situation
            lines += ["", f"## {situation}", "", said[situation], ""]
            lines += [_row(_COLUMNS), _row(["---", *["---:"] * (len(_COLUMNS) - 1)])]
        lines.append(_row(_cells(variant, figures[variant.label])))
    lines += ["", "## What it comes to", ""]
    lines += [f"- {text}" for text in conclusion(figures)]
    lines += [f"- Not measured: **{name}**, {why}." for name, why in LEFT_OUT.items()]
    return "\n".join(lines) + "\n"


def _row(cells):
    return f"| {' | '.join(cells)} |"


def _cells(variant, found):
    ratios = [
        f"{found[f'{kind}_ratio']:.2f} ({found[f'{kind}_ratio_least']:.2f} to"
        f" {found[f'{kind}_ratio_most']:.2f})"
        if variant.measures != GUIDE
        else f"{found[f'{kind}_per_s']:,}/s"
        for kind in ("put", "done")
    ]
    latencies = [
        f"{found[f'{what}_p50_ms']:.2f}, {found[f'{what}_p99_ms']:.2f}"
        for what in ("put", "put_to_done")
    ]
    return [variant.measures, *ratios, *latencies, *_counts(found, "in_turn"),
            *_counts(found, "at_once")]  # fmt: skip


def _counts(found, way):
    """Turns, out, in and bytes of both roles."""

    def total(*names):
        keys = [f"{way}_{role}_{name}" for role in ("producer", "worker") for name in names]
        return sum(found.get(key, 0) for key in keys)

    sizes = [f"{broker}_{side}_bytes" for broker in ("redis", "nats") for side in ("out", "in")]
    messages = [f"{total(name):.1f}" for name in ("redis_turns", "nats_out", "nats_in")]
    return [*messages, f"{total(*sizes):,}"]


if __name__ == "__main__":
    sys.stdout.write(document())
