"""What an account says beside its table, one text a line, for a terminal and a notebook."""

from collections.abc import Callable, Iterable
from typing import TypeVar

from hookbench.clock import NS_PER_MS, NS_PER_S
from hookbench.ledger.model import Account, Attribution, FaultAccount, Unavailability, Verdict
from hookbench.ledger.unavailable import UNAVAILABLE_NS

__all__ = [
    "ATTRIBUTED",
    "cause_lines",
    "count_lines",
    "fault_lines",
    "ms",
    "percentiles",
    "restart_lines",
    "unavailable_lines",
]

ATTRIBUTED = {"lost": "lost", "duplicate": "done again", "second end": "ended again"}
"""What is attributed to a cause, for people."""
MOST_CAUSES = 8
MOST_WINDOWS = 3
_Item = TypeVar("_Item")


def ms(value_ns: int) -> str:
    """Three significant digits are enough to read, and as many as the clock is worth."""
    value = value_ns / NS_PER_MS
    if value < 10:  # noqa: PLR2004
        return f"{value:.1f}"
    return f"{value:,.0f}"


def percentiles(values: dict[str, int] | None, names: Iterable[str]) -> str:
    """Some of them in ms, ``-`` for none."""
    if values is None:
        return "-"
    return " / ".join(ms(values[name]) for name in names)


def count_lines(account: Account) -> list[str]:
    """Jepsen's counts, in tasks; empty for an account from before there were any."""
    counts = account.counts
    if counts is None:
        return []
    # Where nobody looked at the brokers, what has no end may be lost as well.
    unknown = any(
        item.number == 1 and item.verdict is Verdict.UNKNOWN for item in account.invariants
    )
    wait = "wait or are lost" if unknown else "wait"
    text = (
        f"{counts.attempted:,} attempted, {counts.acknowledged:,} acknowledged, {counts.lost:,}"
        f" lost, {counts.duplicated:,} duplicated, {counts.recovered:,} recovered,"
        f" {counts.unexpected:,} unexpected; {counts.ok:,} came out, {counts.waiting:,} {wait}"
    )
    return [text]


def cause_lines(account: Account) -> list[str]:
    """What losses, duplicates and second ends are attributed to, the most frequent first."""
    return _some(
        sorted(account.attributions, key=lambda item: -item.count),
        MOST_CAUSES,
        _cause,
        "more causes",
    )


def _cause(item: Attribution) -> str:
    found = [f"hazard {item.hazard}"] if item.hazard != "-" else []
    if item.fault_index is not None:
        found.append(f"fault {item.fault_index} {item.fault}")
    elif item.fault != "-":
        found.append("the end of a lease" if item.fault == "lease" else item.fault)
    what = ATTRIBUTED[item.what]
    where = item.phase.removeprefix("→ ")
    return f"{item.count:,} {what} in {where} after {item.step}: {', '.join(found) or 'no cause'}"


def fault_lines(account: Account) -> list[str]:
    """What each fault did, and for how long nothing went."""
    return [_fault(fault) for fault in account.faults]


def _fault(fault: FaultAccount) -> str:
    gaps = []
    for name, value_ns in fault.longest_without_ns.items():
        again_ns = fault.served_again_ns.get(name)
        when = ""
        if again_ns is not None and value_ns > UNAVAILABLE_NS:
            when = f" (again {ms(again_ns)} ms after its beginning)"
        gaps.append(f"; {ms(value_ns)} ms without {name}{when}")
    recovery = (
        f"; answered {ms(fault.recovery_ns)} ms after its end"
        if fault.recovery_ns is not None
        else ""
    )
    exposed = f"of {fault.exposed:,} exposed"
    return (
        f"{fault.index} {fault.name} for {ms(fault.length_ns)} ms: lost {fault.lost:,} {exposed},"
        f" stuck {fault.stuck:,} {exposed}, duplicated {fault.duplicated:,} {exposed}"
        f"{''.join(gaps)}{recovery}"
    )


def restart_lines(account: Account) -> list[str]:
    """From the death of a worker to the second start of what it had in hand."""
    if account.redelivery_ns is None:
        return []
    names = ("p50", "p99", "max")
    text = (
        f"{'/'.join(names)} {percentiles(account.redelivery_ns, names)} ms from the death of a"
        " worker to the next start of a task that it had in hand"
    )
    return [text]


def unavailable_lines(account: Account) -> list[str]:
    """The longest windows in which an operation was attempted and none succeeded."""
    return _some(
        sorted(account.unavailable, key=lambda item: -item.length_ns),
        MOST_WINDOWS,
        _window,
        "shorter windows",
    )


def _window(item: Unavailability) -> str:
    fault = f", fault {item.fault_index} {item.fault}" if item.fault_index is not None else ""
    return (
        f"no {item.operation} on {item.broker} for {ms(item.length_ns)} ms from"
        f" {item.since_start_ns / NS_PER_S:.1f} s on, in {item.phase}{fault}"
    )


def _some(items: list[_Item], most: int, text: Callable[[_Item], str], rest: str) -> list[str]:
    """A line for each of the first ones, and one for how many there are beside."""
    lines = [text(item) for item in items[:most]]
    if len(items) > most:
        lines.append(f"{len(items) - most:,} {rest}, see --json")
    return lines
