"""What a model says as rows of texts, for a terminal and for a notebook."""

import math
from collections.abc import Sequence

from hookbench.model.fitted import LATENCIES
from hookbench.model.predict import Prediction
from hookbench.model.scale import SitePlan
from hookbench.model.shard_day import Strikes
from hookbench.model.timeline import Timeline
from hookbench.model.validate import Validation

__all__ = [
    "bytes_text",
    "day_lines",
    "effect_rows",
    "error_rows",
    "prediction_lines",
    "seconds_text",
    "site_lines",
    "site_rows",
    "strike_rows",
]

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_STEP = 1024
_LEAST_SHOWN = 10
_PERCENTILES = {"p50": "p50", "p99": "p99", "p999": "p99.9"}
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86_400


def bytes_text(value: float) -> str:
    """``12 GiB``; one decimal below ten."""
    unit = 0
    while value >= _STEP and unit < len(_UNITS) - 1:
        value, unit = value / _STEP, unit + 1
    digits = 1 if unit and value < _LEAST_SHOWN else 0
    return f"{value:,.{digits}f} {_UNITS[unit]}"


def seconds_text(value: float | None) -> str:
    """``90 s``, ``15 min``, ``3.5 h``, ``2 days``; ``never`` for no end."""
    if value is None or math.isinf(value):
        return "never"
    if value < 2 * _MINUTE_S:
        return f"{value:,.0f} s"
    if value < 2 * _HOUR_S:
        return f"{value / _MINUTE_S:,.0f} min"
    if value < 2 * _DAY_S:
        return f"{value / _HOUR_S:,.1f} h"
    return f"{value / _DAY_S:,.1f} days"


def _ms(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.2f} ms" if value < _LEAST_SHOWN else f"{value:,.1f} ms"


def prediction_lines(found: Prediction) -> list[str]:
    """What conditions come to, a line each."""
    asked = found.conditions
    rate = f"{asked.rate_per_s:,.0f} tasks/s"
    lines = [
        f"capacity  {found.capacity_per_s:,.0f} tasks/s, limited by: {found.bottleneck}",
        "limits    "
        + "  ".join(f"{name} {value:,.0f}" for name, value in found.limits_per_s.items()),
    ]
    if found.growth_per_s:
        lines.append(f"at {rate}  more than that: the backlog grows by {found.growth_per_s:,.0f}/s")
    else:
        for what, prefix in (("done", ""), ("accepted", "enqueue_")):
            figures = [
                f"{_PERCENTILES[name.removeprefix(prefix).removesuffix('_ms')]} {_ms(value)}"
                for name, value in found.latency_ms.items()
                if name in LATENCIES and name.startswith("enqueue") == bool(prefix)
            ]
            lines.append(f"at {rate}  until {what}: {', '.join(figures)}")
    lines.append(
        "CPU       "
        + "  ".join(
            f"{role} {value:,.0f} us a task ({found.busy[role]:.0%} busy, batches of"
            f" {found.batch[role]:.1f})"
            for role, value in found.cpu_us.items()
        )
    )
    return lines + [f"note      {text}" for text in found.notes]


def error_rows(found: Validation) -> list[dict[str, str]]:
    """One row per figure, all of them last."""
    return [
        {
            "figure": item.figure,
            "cells": f"{item.cells:,}",
            "median error": f"{item.median:.1%}",
            "worst error": f"{item.worst:.1%}",
            "worst of": item.worst_cell,
        }
        for item in found.errors
    ]


def day_lines(found: Timeline) -> list[str]:
    """The day as a whole, a line each."""
    day = found.day
    load = f"{found.offered.sum():,.0f} tasks in {seconds_text(day.seconds)}, {day.arrivals}"
    oldest = seconds_text(float(found.oldest_s.max()))
    lines = [
        (
            f"day       {day.phase.label}, {day.design}, {load}; done {found.done.sum():,.0f}, most"
            f" waiting {found.waiting.max():,.0f}, oldest {oldest}"
        )
    ]
    lines += [
        f"{broker:<10}peak memory {bytes_text(float(found.memory_bytes[broker].max()))}, disk"
        f" {bytes_text(float(found.disk_bytes[broker].max()))}, tasks held"
        f" {found.stored[broker].max():,.0f}"
        for broker in ("redis", "nats")
        if found.stored[broker].any()
    ]
    if found.max_age_at_s is not None:
        lines.append(
            f"max-age   strikes after {seconds_text(found.max_age_at_s)}: up to"
            f" {found.aged_out:,.0f} tasks leave the stream before anybody has done them"
        )
    if found.maxmemory_at_s is not None:
        lines.append(
            f"maxmemory strikes after {seconds_text(found.maxmemory_at_s)}: from then on Redis"
            " takes no task; what follows is as if it had room"
        )
    if day.capacity_per_s < day.rate_per_s:
        lines.append("note      more comes in than is done: the backlog grows all day")
    return lines


def effect_rows(found: Timeline) -> list[dict[str, str]]:
    """One row per outage."""
    return [
        {
            "away": f"{item.outage.target} {seconds_text(item.outage.length_s)}"
            f" at {seconds_text(item.outage.begin_s)}",
            "most waiting": f"{item.peak_waiting:,.0f}",
            "caught up after": seconds_text(item.catch_up_s),
            "outbox": bytes_text(item.outbox_peak_bytes),
            "outbox empty after": seconds_text(item.outbox_empty_s),
            "refused": f"{item.refused:,.0f}",
            "on one broker only": f"{item.one_broker_only:,.0f}",
        }
        for item in found.effects
    ]


def site_lines(found: SitePlan) -> list[str]:
    """What a plan is of, a line each, and what there is to know of its phases."""
    site = found.site
    load = f"{site.rate_per_s:,.0f} tasks/s at the peak, {site.workers:,} workers"
    shard = f"{found.one_master_per_s:,.0f} tasks/s of a Redis master"
    lines = [
        f"site      {load}, {site.payload_bytes:,.0f} B, {site.durability}, {site.design}",
        f"margin    a shard has at most {site.busy:.0%} of what it sustains",
        f"a shard   {shard}, {found.one_stream_per_s:,.0f} of a stream",
    ]
    if found.left_out:
        lines.append(f"left out  {', '.join(found.left_out)}: not measured")
    lines += [f"note      {phase.phase}: {text}" for phase in found.phases for text in phase.notes]
    return lines


def site_rows(found: SitePlan) -> list[dict[str, str]]:
    """One row per phase."""
    return [
        {
            "phase": item.phase,
            "Redis masters": _count(item.masters),
            "Redis nodes": _count(item.redis_nodes),
            "streams": _count(item.streams),
            "NATS nodes": _count(item.nats_nodes),
            "producers": f"{item.producers:,}",
            "workers needed": f"{item.workers_needed:,}",
            "workers per shard": f"{item.workers_per_shard:,.0f}",
            "workers busy": f"{item.workers_busy:.1%}",
            "ack pending per stream": _count(item.ack_pending),
            "memory of a master": bytes_text(item.redis_memory_bytes) if item.masters else "-",
            "disk of a stream": bytes_text(item.stream_disk_bytes) if item.streams else "-",
            f"outbox after {seconds_text(found.site.outage_s)}": bytes_text(item.outbox_bytes),
            "caught up after": seconds_text(item.catch_up_s),
        }
        for item in found.phases
    ]


def strike_rows(found: Sequence[Strikes]) -> list[dict[str, str]]:
    """One row per phase: when maxmemory and max-age strike."""
    return [
        {
            "phase": item.phase,
            "master full without workers": _after(item.full_s),
            "master full of copies": _after(item.copies_full_s),
            "unread tasks dropped by max-age": _after(item.aged_s),
            "disk of a stream at the end": bytes_text(item.disk_bytes) if item.disk_bytes else "-",
        }
        for item in found
    ]


def _after(seconds: float | None) -> str:
    return "-" if seconds is None else f"after {seconds_text(seconds)}"


def _count(value: int) -> str:
    return f"{value:,}" if value else "-"
