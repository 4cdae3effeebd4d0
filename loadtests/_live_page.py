"""The page ``/hookbench``: rates, latency and depth as they are, phases, faults, and buttons.

Whoever can use the buttons can stop brokers and kill processes of the run. So they ask for Locust's
login where that is on; where it is off they are refused unless Locust's page listens on this
machine alone.
"""

import itertools
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from _figures import percentile_ms
from _guard import why_refused
from _protocol import Answer, Pulse, Scene
from _run_options import RunOptions
from flask import Response, jsonify, request
from locust.env import Environment
from plotly.offline import get_plotlyjs

from hookbench.clock import NS_PER_S
from hookbench.migration.phases import Phase

__all__ = ["LivePage", "Point"]

_PATH = "/hookbench"
_HTML = Path(__file__).with_name("_live_page.html")
_KEPT = 86_400
"""Points that are kept: one each second of a day."""


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One second of a run; ``t`` in seconds from its beginning, rates per second, times in ms.

    Attributes:
        published, done: tasks that were acknowledged to their caller, and done.
        p50, p99: from the moment when a task was due to the end of its work; ``None`` for no task.
        lag: p99 of what was sent, likewise.
        redis, nats: depth of each broker.
    """

    t: float
    published: float
    done: float
    p50: float | None
    p99: float | None
    redis: int
    nats: int
    in_flight: int
    lag: float | None
    oldest: float
    redelivered: int
    dead: int


class LivePage:
    """Keeps what the page shows.

    Args:
        environment: whose web page gets it; without one, points are only kept.
        do: carries out what a button asks for.

    Attributes:
        points: of the run.
        scene: the last that was said.
        account_lines: of the run, once it has an account.
    """

    def __init__(self, environment: Environment, do: Callable[[str, str], Answer]) -> None:
        self._run = 0
        self._options = RunOptions()
        self._last: Pulse | None = None
        self._do = do
        self.points: list[Point] = []
        self.scene: Scene | None = None
        self.account_lines: list[str] = []
        if environment.web_ui is not None:
            base = getattr(environment.parsed_options, "web_base_path", None) or ""
            self._add_routes(environment.web_ui, f"{base}{_PATH}")

    def _add_routes(self, web_ui: Any, path: str) -> None:
        app = web_ui.app

        def refusal() -> str | None:
            asked = urllib.parse.urlsplit(f"//{request.host}").hostname or ""
            return why_refused(
                web_ui.host,
                login=web_ui.web_login,
                asked_host=asked,
                origin=request.headers.get("Origin"),
            )

        @app.route(path)
        @web_ui.auth_required_if_enabled
        def page() -> Response:
            return Response(_HTML.read_bytes(), mimetype="text/html")

        @app.route(f"{path}/plotly.js")
        @web_ui.auth_required_if_enabled
        def charts() -> Response:
            headers = {"Cache-Control": "max-age=86400"}
            return Response(get_plotlyjs(), mimetype="text/javascript", headers=headers)

        @app.route(f"{path}/state")
        @web_ui.auth_required_if_enabled
        def state() -> Response:
            run, since = (request.args.get(name, 0, type=int) for name in ("run", "since"))
            return jsonify(self.state(run, since, refusal()))

        @app.route(f"{path}/do", methods=["POST"])
        @web_ui.auth_required_if_enabled
        def act() -> tuple[Response, int]:
            if (refused := refusal()) is not None:
                return jsonify({"ok": False, "text": refused}), 403
            wish = request.get_json(silent=True)  # no other site's form can send JSON
            if not isinstance(wish, dict) or not isinstance(wish.get("what"), str):
                return jsonify({"ok": False, "text": "use JSON with 'what' and 'value'"}), 400
            answer = self._do(wish["what"], str(wish.get("value", "")))
            return jsonify({"ok": answer.ok, "text": answer.text}), 200 if answer.ok else 409

    def begin(self, options: RunOptions) -> None:
        """Another run begins."""
        self._run += 1
        self._options = options
        self._last = None
        self.points = []
        self.scene = None
        self.account_lines = []

    def add(self, pulse: Pulse) -> None:
        """What the backstage process has seen in the last second."""
        before, self._last = self._last, pulse
        if before is None:
            return
        seconds = max(1e-9, (pulse.time_ns - before.time_ns) / NS_PER_S)
        done = pulse.done
        self.points.append(
            Point(
                t=round((pulse.time_ns - self._begin_ns) / NS_PER_S, 3),
                published=round((pulse.accepted - before.accepted) / seconds, 1),
                done=round(done.count / seconds, 1),
                p50=percentile_ms(done, 50) if done.count else None,
                p99=percentile_ms(done, 99) if done.count else None,
                redis=pulse.redis_depth,
                nats=pulse.nats_depth,
                in_flight=pulse.in_flight,
                lag=round(pulse.lag_p99_ms, 3) if pulse.offered > before.offered else None,
                oldest=round(pulse.oldest_s, 3),
                redelivered=pulse.redelivered,
                dead=pulse.dead,
            )
        )
        del self.points[:-_KEPT]

    @property
    def _begin_ns(self) -> int:
        if self.scene is not None and self.scene.steps:
            return self.scene.steps[0].begin_ns
        return self._last.time_ns if self._last is not None else 0

    def bands(self) -> list[dict[str, Any]]:
        """The phases: name, beginning and end in seconds; the last one ends with the points."""
        steps = self.scene.steps if self.scene is not None else []
        ends: list[float | None] = [self._seconds(step.begin_ns) for step in steps[1:]]
        return [
            {"phase": step.phase, "begin": self._seconds(step.begin_ns), "end": end}
            for step, end in itertools.zip_longest(steps, ends)
        ]

    def shades(self) -> list[dict[str, Any]]:
        """The faults that were tried: name, beginning, end, and why one was not in effect."""
        faults = self.scene.faults if self.scene is not None else []
        return [
            {
                "name": fault.name,
                "begin": self._seconds(fault.begin_ns),
                "end": self._seconds(fault.end_ns),
                "problem": fault.problem,
            }
            for fault in faults
        ]

    def _seconds(self, time_ns: int | None) -> float | None:
        return None if time_ns is None else round((time_ns - self._begin_ns) / NS_PER_S, 3)

    def state(self, run: int, since: int, refused: str | None) -> dict[str, Any]:
        """What the page asks for each second: points that it does not have, and the rest."""
        since = since if run == self._run else 0
        shades = self.shades()
        return {
            "run": self._run,
            "since": since,
            "points": msgspec.to_builtins(self.points[since:]),
            "phase": self._last.phase if self._last is not None else "",
            "active": [
                item["name"] for item in shades if item["begin"] is not None and item["end"] is None
            ],
            "offered": self._last.offered if self._last is not None else 0,
            "bands": self.bands(),
            "shades": shades,
            "workers": self.scene.workers if self.scene is not None else [],
            "phases": [phase.label for phase in Phase],
            "design": str(self._options.design),
            "refused": refused,
        }
