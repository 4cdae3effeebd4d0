"""Every figure of a run's phases and transitions, for a terminal of 80 columns."""

from rich.console import Console
from rich.table import Table

from hookbench.clock import NS_PER_S
from hookbench.ledger.model import Account, Bounds, StepAccount
from hookbench.report.account_lines import ms
from hookbench.results.store import Manifest

__all__ = ["figures_table", "print_figures"]

_LATENCIES = ("p50", "p90", "p99", "p999", "max")


def figures_table(account: Account) -> Table:
    """Two lines for each phase and transition: what was put, and what was done."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("phase", no_wrap=True)
    table.add_column("ms from\nintended", no_wrap=True)
    for heading in ("p50", "p90", "p99", "p99.9", "max", "tasks\nper s", "longest\ngap ms"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in account.rows:
        name = f" {row.name}" if row.transition else row.name
        put = _cells(row.enqueue_ns, row.accepted_per_s, row.gap_accepted_ns)
        done = _cells(row.end_to_end_ns, row.done_per_s, row.gap_done_ns)
        table.add_row(name, "enqueue", *put)
        table.add_row("", "end-to-end", *done)
    return table


def _cells(
    latency_ns: dict[str, int] | None, rate_per_s: float | None, gap_ns: int | None
) -> list[str]:
    return [
        *("-" if latency_ns is None else ms(latency_ns[name]) for name in _LATENCIES),
        "" if rate_per_s is None else f"{rate_per_s:,.0f}",
        "" if gap_ns is None else ms(gap_ns),
    ]


def print_figures(console: Console, manifest: Manifest) -> None:
    """The table, and below it what was delivered again, is lost or stuck, by row."""

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    account = manifest.account
    if account is None:
        say(f"run {manifest.run} has no account: hookbench check {manifest.run} makes one")
        return
    console.print(figures_table(account))
    for row in account.rows:
        for text in _counts(row):
            say(f"{row.name}: {text}")
    seconds = Bounds().gap_window_ns / NS_PER_S
    say(f"A transition's latencies are of the tasks that were due within {seconds:g} s of it.")


def _counts(row: StepAccount) -> list[str]:
    """What is not as it should be, one text each; empty where all is."""
    texts = []
    if row.redelivered:
        texts.append(f"{row.redelivered:,} redelivered by their broker")
    if row.duplicated_deliveries or row.duplicated_effects:
        effects = row.duplicated_effects
        texts.append(
            f"duplicated: {row.duplicated_deliveries:,} deliveries,"
            f" {'-' if effects is None else f'{effects:,}'} effects"
        )
    texts += [f"{count:,} lost: {state}" for state, count in row.lost_by.items()]
    texts += [f"{count:,} stuck: {place}" for place, count in row.stuck.items()]
    if row.left:
        texts.append(f"{row.left:,} copies of finished tasks left in redis")
    return texts
