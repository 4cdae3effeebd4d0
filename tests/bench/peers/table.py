"""A measurement as a text: Markdown that a terminal can show as well."""

from tests.bench.peers.effects import WARM_UP_SHARE
from tests.bench.peers.judge import (
    best_peer,
    measured_on_a_crash,
    ratio_to_best,
    spread,
    verdict,
)
from tests.bench.peers.trial import KILL_AT_SHARE, MARGIN_S, NUDGES

__all__ = ["markdown", "table_of"]

_BROKERS = {"nats": "NATS JetStream", "redis": "Redis"}
_HEADER = (
    "contender",
    "queue",
    "at once",
    "no-op, tasks/s",
    "low to high",
    "x best",
    "CPU, us/task",
    "5 ms, tasks/s",
    "low to high",
    "x best",
    "promised",
    "SIGKILL",
    "back after",
)
_LEFT = {0, 1, 2, 10, 11}
_TOLD = {
    *("arq", "celery", "dramatiq", "faststream", "kombu", "rq", "saq", "streaq"),
    *("taskiq", "taskiq-nats", "taskiq-redis"),
    *("coredis", "hiredis", "nats-py", "orjson", "redis", "uvloop"),
}
"""Packages whose versions are told; those of all stand in the JSON."""


def markdown(report):
    """Everything: tables, the verdict, settings, what went wrong, and how it was measured."""
    lines = [f"## The reference worker and its peers: {report.commit}", "", _head(report), ""]
    for broker, title in _BROKERS.items():
        if any(row.contender.broker == broker for row in report.rows):
            lines += [f"### {title}", "", *table_of(report, broker), ""]
    lines += ["### Target", ""]
    lines += [f"- {item.verdict}: {item.text}" for item in verdict(report)]
    lines += ["", *_troubles(report), "### Settings", "", *_settings(report), _how(report), ""]
    return "\n".join(lines)


def _head(report):
    brokers = ", ".join(report.brokers.values())
    return (
        f"{report.started}, {report.cpu}, {report.cpus} cores, Python {report.python}; {brokers},"
        f" one node, durability {report.durability}; seed {report.plan.seed}, rounds"
        f" {report.plan.rounds}; {report.payload_bytes} bytes of payload."
    )


def table_of(report, broker):
    """The lines of the table of one broker, the fastest first."""
    rows = [row for row in report.rows if row.contender.broker == broker]
    rows.sort(key=lambda row: -(_median(row) or 0))
    cells = [_HEADER, *(_cells(report, row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(_HEADER))]
    rule = ["-" * (width - 1) + ("-" if i in _LEFT else ":") for i, width in enumerate(widths)]
    return [_line(row, widths) for row in (cells[0], rule, *cells[1:])]


def _median(row):
    found = spread(row, "noop")
    return None if found is None else found.median


def _cells(report, row):
    name, queue = row.contender.name, row.contender.queue
    if row.skipped:
        return (name, queue, "skipped: see below", *[""] * (len(_HEADER) - 3))
    at_once = {handler: told.concurrency for handler, told in row.told.items()}
    shown = at_once["noop"]
    if at_once["sleep"] != shown:
        shown = f"{shown}; 5 ms: {at_once['sleep']}"
    told = row.told["sleep"]
    back = "" if row.crashed is None else f"{row.crashed.recovery_s:.0f} s"
    return (
        name,
        queue,
        shown,
        *_rate_cells(report, row, "noop"),
        _middle(row.cpu_us.get("noop", [])),
        *_rate_cells(report, row, "sleep"),
        told.promise,
        measured_on_a_crash(row.crashed),
        back,
    )


def _rate_cells(report, row, handler):
    found = spread(row, handler)
    if found is None:
        return ("none", "", "")
    times = ratio_to_best(report.rows, row, handler)
    best = best_peer(report.rows, row.contender.broker, handler)
    shown = "" if times is None else f"{times:.2f}"
    return (
        f"{found.median:,.0f}",
        f"{found.low:,.0f} to {found.high:,.0f}",
        "best" if best is row else shown,
    )


def _middle(values):
    known = sorted(value for value in values if value is not None)
    return f"{known[len(known) // 2]:,.0f}" if known else ""


def _troubles(report):
    lines = [f"- skipped: {row.skipped}" for row in report.rows if row.skipped]
    lines += [f"- {' '.join(text.split())}" for row in report.rows for text in row.problems]
    return ["### What went wrong", "", *lines, ""] if lines else []


def _settings(report):
    lines = []
    for row in report.rows:
        if not row.told:
            continue
        lines += [f"**{row.contender.name}**" + _versions(row), ""]
        told = row.told["noop"]
        settings = list(told.settings)
        settings += [item for item in row.told["sleep"].settings if item not in settings]
        for item in settings:
            lines.append(f"- `{item['text']}`: {item['why']} ({_link(item['page'])})")
        promise = row.told["sleep"]
        lines.append(f"- {promise.promise}: {promise.promised} ({_link(promise.promise_page)})")
        lines.append("")
    return lines


def _versions(row):
    told = [line.replace("==", " ") for line in row.versions if line.partition("==")[0] in _TOLD]
    return f" ({', '.join(told)})" if told else ""


def _link(page):
    return f"<{page}>" if page.startswith("https:") else f"`{page}`"


def _how(report):
    return (
        f"A fresh broker, a backlog, then one worker process. Its handler writes 16 bytes"
        f" into a mapped file for each task; the rate is that of the effects after the first"
        f" {100 * WARM_UP_SHARE:.0f} %, until the last. `x best`: median of the rounds' ratios to"
        f" the best peer of the same broker. `SIGKILL`: the worker with all of its processes, at"
        f" {100 * KILL_AT_SHARE:.0f} % of a backlog of tasks of 5 ms; a new worker, and"
        f" {MARGIN_S:.0f} s more than its redelivery takes; if tasks are missing {NUDGES} new ones"
        f" are put, and it is waited once more. `back after`: from the kill to the last task that"
        f" had its first effect before that. About {report.plan.seconds:g} s a drain."
    )


def _line(cells, widths):
    padded = [
        cell.ljust(width) if index in _LEFT else cell.rjust(width)
        for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return f"| {' | '.join(padded)} |"
