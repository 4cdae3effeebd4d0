"""The table of a run, for a terminal and for ``table.txt``."""

from collections.abc import Callable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hookbench.clock import NS_PER_MS
from hookbench.ledger.model import Account, StepAccount, Verdict
from hookbench.report.account_lines import (
    cause_lines,
    count_lines,
    fault_lines,
    ms,
    percentiles,
    restart_lines,
    unavailable_lines,
)
from hookbench.results.check import git_differences
from hookbench.results.store import Manifest, ResourceUse

__all__ = ["lag_is_late", "lag_text", "print_run", "run_table"]

_LAG_BOUND_MS = 50.0
"""Of runs that were stored before it was a setting."""
_WIDE = 138
_STATUS = {
    "running": "not at its end: it goes on, or whoever made it was killed",
    "cut off": "cut off before its end",
}
_STYLES = {Verdict.VALID: "green", Verdict.INVALID: "bold red", Verdict.UNKNOWN: "yellow"}


def _columns(*, narrow: bool) -> list[tuple[str, Callable[[StepAccount], str]]]:
    """Heading and text of each column but the first and the last; a phase has all of them."""
    quantiles = ("p50", "p99") if narrow else ("p50", "p99", "max")
    columns: list[tuple[str, Callable[[StepAccount], str]]] = [
        ("tasks", lambda row: f"{row.tasks:,}"),
        ("enqueue\np50/p99 ms", lambda row: percentiles(row.enqueue_ns, ("p50", "p99"))),
        (
            f"end-to-end\n{'/'.join(quantiles)} ms",
            lambda row: percentiles(row.end_to_end_ns, quantiles),
        ),
        ("in / out\nper s", lambda row: f"{_rate(row.accepted_per_s)} / {_rate(row.done_per_s)}"),
        ("redel." if narrow else "redelivered", lambda row: f"{row.redelivered:,}"),
        ("dup." if narrow else _DUPLICATED, _duplicates if not narrow else _executions),
        ("ex-\nplained", lambda row: f"{row.explained:,}"),
        ("lost", lambda row: f"{row.lost:,}"),
        ("stuck", lambda row: f"{sum(row.stuck.values()):,}"),
        ("left in\nredis", lambda row: f"{row.left:,}"),
    ]
    if narrow:
        del columns[6], columns[3], columns[1]
    return columns


def _rate(value_per_s: float | None) -> str:
    return "-" if value_per_s is None else f"{value_per_s:,.0f}"


def _executions(row: StepAccount) -> str:
    return f"{row.duplicated:,}"


def _duplicates(row: StepAccount) -> str:
    """Deliveries, executions and effects beyond the first; zeros as one."""
    effects = row.duplicated_effects
    numbers = (row.duplicated_deliveries, row.duplicated, effects)
    if not any(numbers):
        return "0"
    return " / ".join("-" if number is None else f"{number:,}" for number in numbers)


_DUPLICATED = "duplicated\ndeliv./done/effects"
_OF_A_TRANSITION = frozenset({"tasks", _DUPLICATED, "dup.", "ex-\nplained"})


def run_table(account: Account, *, narrow: bool = False) -> Table:
    """One row per phase, and one per transition; ``narrow`` for a narrow terminal."""
    table = Table(
        box=None, pad_edge=False, header_style="bold", padding=(0, 1 if narrow else 2, 0, 0)
    )
    columns = _columns(narrow=narrow)
    table.add_column("phase", no_wrap=True)
    for heading, _text in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for row in account.rows:
        verdict = row.verdict if row.verdict is not Verdict.INVALID else "INVALID"
        cells = [
            text(row) if not row.transition or heading in _OF_A_TRANSITION else ""
            for heading, text in columns
        ]
        name = f" {row.name}" if row.transition else row.name
        table.add_row(name, *cells, Text(verdict, style=_STYLES[row.verdict]))
    return table


def print_run(console: Console, manifest: Manifest) -> None:
    """Everything about one run that fits on a screen."""
    heading = (
        f"run {manifest.run}  design {manifest.design}  seed {manifest.seed}"
        f"  durability {manifest.durability}  commit {manifest.environment.commit}"
    )
    _say(console, heading, style="bold")
    account = manifest.account
    if manifest.status != "complete":
        _say(console, f"status    {_STATUS.get(manifest.status, manifest.status)}", style="yellow")
        if account is None:
            _say(console, f"          hookbench check {manifest.run} accounts for what is there")
    if account is not None:
        console.print(run_table(account, narrow=console.width < _WIDE))
        _print_findings(console, account)
        _print_lines(console, "cause", cause_lines(account))
        _print_lines(console, "fault", fault_lines(account))
        _print_notes(console, manifest)
        _print_crashes(console, account)
        _print_lines(console, "restart", restart_lines(account))
        _print_lines(console, "away", unavailable_lines(account))
        _print_invariants(console, account)
        _print_gaps(console, account)
        _print_totals(console, manifest, account)
    _print_gates(console, manifest)
    for report in manifest.broker_reports:
        _say(console, f"broker    {report.line}")
    for incident in manifest.incidents:
        _say(console, f"incident  {incident.what}")
    for reason in manifest.unknown_because:
        _say(console, f"unknown   {reason}", style="yellow")
    _say(
        console,
        f"verdict   design {manifest.design}: {manifest.verdict.upper()}",
        style=_STYLES[manifest.verdict],
    )


def _say(console: Console, text: str, *, style: str | None = None) -> None:
    console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)


def _print_findings(console: Console, account: Account) -> None:
    label = "why"
    for finding in account.findings:
        examples = ", ".join(finding.examples)
        _say(
            console,
            f"{label:<9} {finding.hazard:<4} {finding.row.strip('→ ')}: {finding.text},"
            f" e.g. {examples}",
        )
        label = ""


def _print_crashes(console: Console, account: Account) -> None:
    for crash in account.crashes:
        examples = f", e.g. {', '.join(crash.examples)}" if crash.examples else ""
        restart = ""
        if crash.restart_ns is not None:
            restart = f"; started again after {percentiles(crash.restart_ns, ('p50', 'max'))} ms"
        _say(
            console,
            f"crash     {crash.writer} died with {crash.in_hand:,} tasks in hand:"
            f" {crash.done_by_others:,} ended by others, {crash.stuck:,} stuck,"
            f" {crash.lost:,} lost{restart}{examples}",
        )


def _print_lines(console: Console, label: str, lines: list[str]) -> None:
    """Lines under one label."""
    for line in lines:
        _say(console, f"{label:<9} {line}")
        label = ""


def _print_notes(console: Console, manifest: Manifest) -> None:
    """What the faults saw of their effect."""
    label = "noted"
    for record in manifest.faults:
        if record.noted:
            notes = ", ".join(f"{name} {value}" for name, value in record.noted.items())
            _say(console, f"{label:<9} {record.index} {record.name}: {notes}")
            label = ""


def _print_gates(console: Console, manifest: Manifest) -> None:
    """What each gate said; where it was not go, what held it back."""
    label = "gate"
    for record in manifest.gates:
        times = f" (asked {record.asked} times)" if record.asked > 1 else ""
        _say(
            console,
            f"{label:<9} {record.source} to {record.target}, {record.moment}: {record.answer}"
            f" of {len(record.checks)} conditions{times}",
        )
        label = ""
        for check in record.checks:
            if check.answer != "go":
                examples = f", e.g. {check.ids[0]}" if check.ids else ""
                _say(
                    console,
                    f"{'':<9}   {check.name} {check.answer}: {check.evidence}{examples}",
                    style="yellow",
                )


def _print_invariants(console: Console, account: Account) -> None:
    label = "rules"
    for item in account.invariants:
        if item.verdict is Verdict.INVALID:
            figures = f"; {item.reason}" if item.reason else ""
            text = f"{item.number} broken {item.count:,} times: {item.rule}{figures}"
            _say(console, f"{label:<9} {text}")
            label = ""
    held = [item for item in account.invariants if item.verdict is Verdict.VALID]
    if held:
        numbers = ", ".join(str(item.number) for item in held)
        figures = "".join(f"; {item.number}: {item.reason}" for item in held if item.reason)
        _say(console, f"{label:<9} {numbers} held{figures}")


def lag_text(manifest: Manifest) -> str | None:
    """What the latencies of a run are worth: its schedule lag, or the loop that hides it."""
    loop = manifest.settings.get("loop", "open")
    if loop != "open":
        return (
            f"none: a {loop} loop; latency counts from the moment of sending, so what a stall kept"
            " from being sent is not in it"
        )
    lag = manifest.lag
    if lag is None:
        return None
    text = (
        f"schedule lag p50 {ms(lag['lag_p50_ns'])} p99 {ms(lag['lag_p99_ns'])}"
        f" max {ms(lag['lag_max_ns'])} ms"
    )
    if lag_is_late(manifest):
        text += f" (p99 above {_lag_bound_ms(manifest):g} ms: latencies are NOT valid)"
    return text


def lag_is_late(manifest: Manifest) -> bool:
    """Whether the producers were so late that the latencies say nothing."""
    lag = manifest.lag
    return lag is not None and lag["lag_p99_ns"] > _lag_bound_ms(manifest) * NS_PER_MS


def _lag_bound_ms(manifest: Manifest) -> float:
    return float(manifest.settings.get("max_lag_ms", _LAG_BOUND_MS))


def _print_resources(console: Console, manifest: Manifest, account: Account) -> None:
    parts = []
    for kind in ("redis", "nats", "worker", "producer"):
        used = [item for item in manifest.resources if item.name.split("-")[0] == kind]
        if used and account.tasks:
            cpu_s = sum(item.cpu_s for item in used)
            memory_mib = max(item.rss_max_bytes for item in used) / 2**20
            disk_mib = sum(item.written_bytes for item in used) / 2**20
            network = _network(used, account.tasks)
            parts.append(
                f"{kind} {cpu_s:.1f} s CPU ({cpu_s / account.tasks * 1e6:,.0f} s per million"
                f" tasks), {memory_mib:,.0f} MiB memory, {disk_mib:,.0f} MiB written{network}"
            )
    if parts:
        _say(console, f"cost      {'; '.join(parts)}")


def _network(used: list[ResourceUse], tasks: int) -> str:
    """Bytes per task, as far as they were measured for all of ``used``."""
    received = [item.received_bytes for item in used if item.received_bytes is not None]
    sent = [item.sent_bytes for item in used if item.sent_bytes is not None]
    if len(received) < len(used) or len(sent) < len(used):
        return ""
    return f", {sum(received) / tasks:,.0f} / {sum(sent) / tasks:,.0f} B/task received / sent"


def _print_gaps(console: Console, account: Account) -> None:
    parts = [
        f"{row.name} {ms(row.gap_accepted_ns)} / {ms(row.gap_done_ns)} ms"
        for row in account.rows
        if row.transition and row.gap_accepted_ns is not None and row.gap_done_ns is not None
    ]
    if parts:
        _say(
            console,
            f"gaps      accepted / done, longest around each transition: {'; '.join(parts)}",
        )


def _print_totals(console: Console, manifest: Manifest, account: Account) -> None:
    superseded = f"{account.superseded:,} superseded, " if account.superseded else ""
    _say(
        console,
        f"tasks     {account.tasks:,} offered, {account.accepted:,} acknowledged to the caller,"
        f" {account.refused:,} refused, {account.doubtful:,} in doubt; {account.done:,} done,"
        f" {account.dead:,} dead letters, {superseded}{account.junk:,} not tasks",
    )
    if manifest.not_offered:
        _say(
            console,
            f"          {manifest.not_offered:,} were due while a fault had their producer down,"
            " and were not offered",
        )
    _print_lines(console, "counts", count_lines(account))
    if (lag := lag_text(manifest)) is not None:
        _say(console, f"lag       {lag}")
    _print_resources(console, manifest, account)
    if manifest.git is not None:
        git = manifest.git
        push = percentiles(account.push_to_done_ns, ("p50", "max"))
        _say(
            console,
            f"git       {git.pushes} pushes, {git.tasks} tasks, {git.equal} of {git.repositories}"
            f" mirrors equal to their origin ({git.refs} refs); push to mirror p50/max {push} ms",
        )
        for difference in git_differences(git):
            _say(console, f"          {difference}", style="bold red")
