"""The peers' table in docs/peers.md: ``python -m tests.evidence.peers_table``."""

import json
import sys
from pathlib import Path

__all__ = ["BEGIN", "END", "table"]

FILE = Path(__file__).resolve().parents[2] / "evidence" / "peers.json"
BEGIN, END = "<!-- python -m tests.evidence.peers_table -->", "<!-- end -->"
"""Between these docs/peers.md has it."""
_HANDLERS = ("noop", "sleep")


def table() -> str:
    """Every contender with its rates, slowest and fastest round, ratios, and what a kill did.

    Not yet laid out by prettier.
    """
    stored = json.loads(FILE.read_text())
    figures = stored["figures"]
    who = {name: row for name, row in figures.items() if isinstance(row, dict) and "queue" in row}
    measured = (
        f"Commit {stored['commit']}, {figures['rounds']} rounds, payload of"
        f" {figures['payload_bytes']} bytes, {figures['concurrency']} tasks at once, durability"
        f" `{figures['durability']}`; medians of tasks per second, and in brackets the slowest and"
        " the fastest round."
    )
    lines = [
        measured,
        "",
        "| worker | queue | no-op | x best | 5 ms | x best | promised | killed |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in who.items():
        if "skipped" in row:
            lines.append(f"| {name} | `{row['queue']}` | skipped: {row['skipped']} | | | | | |")
            continue
        rates = " | ".join(_rate(row, handler) for handler in _HANDLERS)
        lines.append(
            f"| {name} | `{row['queue']}` | {rates} | {row['promised']} | {row['killed']} |"
        )
    return "\n".join([*lines, ""])


def _rate(row, handler):
    if f"{handler}_per_s" not in row:
        return "- | -"
    median, low, high = (f"{row[f'{handler}_{what}per_s']:,}" for what in ("", "low_", "high_"))
    return f"{median} ({low} to {high}) | {row[f'{handler}_times_best_peer']:.2f}"


if __name__ == "__main__":
    sys.stdout.write(table())
