"""The tab "Queue" of Locust's page: what the queue holds now, beside what the users publish."""

import csv
import io
import json
from typing import Any, NamedTuple

from _protocol import Pulse
from _run_options import RunOptions
from flask import Response, request
from locust.env import Environment

__all__ = ["QueueTab"]

_KEY = "queue"
_CSV_PATH = "/hookbench/queue.csv"
_KEPT = 86_400
"""Pulses that are kept for the CSV: a day."""
_CSV_COLUMNS = (
    "time_s", "phase", "redis_depth", "nats_depth", "waiting", "in_flight", "redelivered", "dead",
    "lag_p99_ms", "oldest_s", "done", "offered", "workers", "faults",
)  # fmt: skip


class _Kept(NamedTuple):
    pulse: Pulse
    done: int


class QueueTab:
    """Keeps the pulses of a run, and shows the last one.

    Args:
        environment: whose page gets the tab; without a page pulses are only kept.
    """

    def __init__(self, environment: Environment) -> None:
        self._pulses: list[_Kept] = []
        self._options = RunOptions()
        web_ui = environment.web_ui
        if web_ui is None:
            return
        base = getattr(environment.parsed_options, "web_base_path", None) or ""
        csv_path = f"{base}{_CSV_PATH}"
        arguments = web_ui.template_args
        arguments.setdefault("extended_tabs", []).append({"title": "Queue", "key": _KEY})
        arguments.setdefault("extended_tables", []).append(
            {
                "key": _KEY,
                "structure": [
                    {"key": "figure", "title": "Figure"},
                    {"key": "now", "title": "Now"},
                    {"key": "highest", "title": "Highest"},
                    {"key": "meaning", "title": "Meaning"},
                ],
            }
        )
        arguments.setdefault("extended_csv_files", []).append(
            {"href": csv_path, "title": "Download queue figures CSV"}
        )

        @web_ui.app.after_request
        def add_figures(response: Response) -> Response:
            if request.path.endswith("/stats/requests") and response.is_json:
                found = dict(response.get_json())
                # Locust answers with one response for some seconds: it may have ours already.
                others = [item for item in found.get("extended_stats", []) if item["key"] != _KEY]
                found["extended_stats"] = [*others, {"key": _KEY, "data": self.rows()}]
                response.set_data(json.dumps(found))
            return response

        @web_ui.app.route(csv_path)
        @web_ui.auth_required_if_enabled
        def figures_csv() -> Response:
            headers = {"Content-Disposition": "attachment; filename=queue.csv"}
            return Response(self.as_csv(), mimetype="text/csv", headers=headers)

    def begin(self, options: RunOptions) -> None:
        """Another run begins."""
        self._options = options
        self._pulses = []

    def add(self, pulse: Pulse) -> None:
        """What the backstage process has seen in the last second."""
        done = self._pulses[-1].done if self._pulses else 0
        self._pulses.append(_Kept(pulse, done + pulse.done.count))
        del self._pulses[:-_KEPT]

    def rows(self) -> list[dict[str, Any]]:
        """One for each figure; empty before there is a pulse."""
        if not self._pulses:
            return []
        last, done = self._pulses[-1]
        pulses = [item.pulse for item in self._pulses]

        def row(figure: str, now: object, highest: object, meaning: str) -> dict[str, Any]:
            return {"figure": figure, "now": now, "highest": highest, "meaning": meaning}

        return [
            row("phase", last.phase, "", self._options.phases or f"queue {self._options.queue}"),
            row("faults", ", ".join(last.faults) or "none", "", "in effect"),
            row("workers", last.workers, max(item.workers for item in pulses), "that run"),
            row(
                "depth",
                last.waiting,
                max(item.waiting for item in pulses),
                "tasks that no worker has got yet",
            ),
            row(
                "in flight",
                last.in_flight,
                max(item.in_flight for item in pulses),
                "tasks that a worker has, and that are not acknowledged",
            ),
            row(
                "oldest",
                f"{last.oldest_s:.1f} s",
                f"{max(item.oldest_s for item in pulses):.1f} s",
                "since the task that waits longest was due",
            ),
            row("done", done, "", f"of {last.offered:,} tasks that were sent"),
            row("redelivered", last.redelivered, "", "deliveries of a task beyond its first"),
            row("dead", last.dead, "", "dead letters"),
            row(
                "lag",
                f"{last.lag_p99_ms:.1f} ms",
                f"{max(item.lag_p99_ms for item in pulses):.1f} ms",
                "p99, from the moment when a task was due until it was sent",
            ),
        ]

    def as_csv(self) -> str:
        """Every pulse of the run."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_CSV_COLUMNS)
        begin_ns = self._pulses[0].pulse.time_ns if self._pulses else 0
        for pulse, done in self._pulses:
            writer.writerow(
                [
                    f"{(pulse.time_ns - begin_ns) / 1e9:.3f}",
                    pulse.phase,
                    pulse.redis_depth,
                    pulse.nats_depth,
                    pulse.waiting,
                    pulse.in_flight,
                    pulse.redelivered,
                    pulse.dead,
                    f"{pulse.lag_p99_ms:.3f}",
                    f"{pulse.oldest_s:.3f}",
                    done,
                    pulse.offered,
                    pulse.workers,
                    "; ".join(pulse.faults),
                ]
            )
        return text.getvalue()
