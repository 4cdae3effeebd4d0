"""Phases, faults and the engine under Locust: real brokers, real workers, real signals."""

import http.client
import importlib.util
import json
import re
import signal
import time

import pytest

from hookbench.brokers.ports import free_port
from tests.integration.locusts import ROOT, Web, rows_of

if importlib.util.find_spec("locust") is None:  # importing it would patch this process for gevent
    pytest.skip("Locust is not installed: pip install -e '.[loadtest]'", allow_module_level=True)

BY_PHASE = re.compile(r"^(\w+) +([\d,]+) published, ([\d,]+) consumed, ([\d,]+) lost", re.MULTILINE)


def by_phase(locust):
    """What was published, consumed and lost in each phase, in order."""
    return [
        (phase, *(int(number.replace(",", "")) for number in numbers))
        for phase, *numbers in BY_PHASE.findall(locust.text)
    ]


@pytest.mark.parametrize("mode", [("--engine",), ("--processes", "2")], ids=" ".join)
def test_a_timeline_with_a_fault(start_locust, tmp_path, mode):
    """Every process follows; each phase has a row of its own; a pause shows in its phase."""
    locust = start_locust(
        "--headless", "-t", "6s", "-u", "4", "--rate", "30",
        "--phases", "redis_only:2,dual_write:2,nats_only",
        "--faults", "pause redis at=0.5 for=1",
        "--json-file", str(tmp_path / "stats"), *mode,
    )  # fmt: skip
    locust.end_timeout_s = 60.0
    assert locust.end() == 0, locust.text
    verdict, published, consumed, left = locust.account()
    assert (verdict, left) == ("balanced", 0)
    assert published == consumed > 200
    found = by_phase(locust)
    assert [phase for phase, *_counts in found] == ["redis_only", "dual_write", "nats_only"]
    assert all(sent == done > 30 and lost == 0 for _phase, sent, done, lost in found)
    assert sum(sent for _phase, sent, _done, _lost in found) == published
    # The guide's consumer of nats_only delivers what Redis has done.
    assert "deliver-all replayed" in locust.text
    rows = rows_of(json.loads((tmp_path / "stats.json").read_text()))
    sent = [rows["PUBLISH", phase]["num_requests"] for phase, *_counts in found]
    assert sum(sent) == published
    assert rows["PUBLISH", "redis_only"]["max_response_time"] > 500
    assert rows["CONSUME", "hook queue end to end"]["num_requests"] == consumed


def test_hardened_goes_through_its_gates(start_locust):
    locust = start_locust(
        "--headless", "-t", "16s", "-u", "4", "--rate", "20", "--engine", "--design", "hardened",
        "--phases", "redis_only:1,dual_write:1,dual_read:1,nats_primary:1,nats_only",
    )  # fmt: skip
    locust.end_timeout_s = 90.0
    assert locust.end() == 0, locust.text
    verdict, published, consumed, left = locust.account()
    assert (verdict, left) == ("balanced", 0)
    assert published == consumed > 300
    assert "duplicated 0" in locust.text or "duplicated" not in locust.text
    assert [phase for phase, *_counts in by_phase(locust)] == [
        "redis_only", "dual_write", "dual_read", "nats_primary", "nats_only",
    ]  # fmt: skip


def test_a_killed_engine_takes_no_task_out_of_the_account(start_locust):
    locust = start_locust("--headless", "-t", "6s", "-u", "5", "--rate", "40", "--engine")
    locust.until(lambda: re.search(r"CONSUME +\S+ end to end +[1-9]", locust.text), "tasks done")
    (engine,) = [child for child, text in locust.commands().items() if "_engine.py" in text]
    engine.kill()
    locust.end_timeout_s = 60.0
    locust.end()
    assert f"the engine (pid {engine.pid}) ended: exit code -9" in locust.text
    verdict, published, consumed, left = locust.account()
    assert verdict == "balanced"
    assert published == consumed + left > 50


def test_an_engine_keeps_a_rate_that_users_do_not(start_locust):
    """A broker that stands still is in the latency of every task that was due, and in no lag."""
    locust = start_locust(
        "--headless", "-t", "5s", "-u", "2", "--rate", "50", "--engine",
        "--faults", "pause redis at=1.5 for=1.5",
    )  # fmt: skip
    assert locust.end() == 0, locust.text
    lag = re.search(r"lag +p50/p99/max ([\d.]+) / ([\d.]+) / ([\d.]+) ms", locust.text)
    published = re.search(r"published +[\d,]+ +p50/p99/max [\d.]+ / ([\d.]+) / ", locust.text)
    assert float(published[1]) > 1_000
    assert float(lag[2]) < 500


def test_a_burst_is_as_many_tasks(start_locust, tmp_path):
    """Without a worker all of them are left, and that is an account too."""
    locust = start_locust(
        "--headless", "-t", "3s", "-u", "5", "--rate", "0", "--burst", "20", "--hook-workers", "0",
        "--drain-seconds", "0", "--json-file", str(tmp_path / "stats"),
    )  # fmt: skip
    locust.end_timeout_s = 60.0
    assert locust.end() == 0, locust.text
    verdict, published, consumed, left = locust.account()
    assert (verdict, consumed) == ("balanced", 0)
    assert published == left > 1_000
    assert published % 20 == 0
    (publish,) = [row for row in json.loads((tmp_path / "stats.json").read_text()) if row["method"]]
    assert publish["num_requests"] == published


def test_a_handler_that_fails_makes_dead_letters(start_locust):
    locust = start_locust(
        "--headless", "-t", "4s", "-u", "2", "--rate", "10", "--handler", "fail",
        "--design", "hardened", "--queue", "jetstream", "--fail-if", "dead>0",
    )  # fmt: skip
    locust.end_timeout_s = 60.0
    assert locust.end() == 1, locust.text
    verdict, published, consumed, left = locust.account()
    assert verdict == "balanced"
    assert published == consumed + left > 10
    assert re.search(r"FAILED +dead>0: [1-9]", locust.text)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--faults", "kill producer-0"), "the producers of this run are the users of Locust"),
        (("--handler", "sleep"), "--handler sleep: say how long it takes: --work-ms 5"),
    ],
)
def test_what_could_not_happen_is_refused(start_locust, options, told):
    locust = start_locust("--headless", "-t", "2s", *options)
    assert locust.end() == 2, locust.text
    assert told in locust.text


class LivePage(Web):
    """What the page of the load test asks for."""

    def __init__(self, port, base=""):
        super().__init__(port)
        self.base = base
        self.cookie = ""

    def asked(self, path):
        """The status of a page; 0 while nobody listens."""
        headers = {"Cookie": self.cookie} if self.cookie else {}
        try:
            return self.request("GET", f"{self.base}{path}", **headers)[0]
        except OSError:
            return 0

    def state(self, run=0, since=0):
        path = f"{self.base}/hookbench/state?run={run}&since={since}"
        return json.loads(self.request("GET", path, Cookie=self.cookie)[1])

    def do(self, what, value="", **headers):
        """Status and answer of a button."""
        body = json.dumps({"what": what, "value": value})
        headers = {"Content-Type": "application/json", "Cookie": self.cookie, **headers}
        status, text = self.request("POST", f"{self.base}/hookbench/do", body, **headers)
        return status, json.loads(text)["text"]


def test_the_buttons(start_locust):
    """Refused before a run; then a fault, phases forth and back, workers; then another run."""
    port = free_port()
    locust = start_locust("--web-host", "127.0.0.1", "--web-port", str(port))
    page = LivePage(port)
    locust.until(page.is_up, "web page")
    assert "Plotly" in page.get("/hookbench/plotly.js")[:10_000_000]
    assert page.do("fault", "pause nats for=1") == (
        409, "no users publish: start a run first",
    )  # fmt: skip
    fields = {"queue": "redis_list", "rate": 30, "wire": "proxied"}
    assert page.post("/swarm", user_count=4, spawn_rate=4, **fields)["success"] is True
    locust.until(lambda: len(page.state()["points"]) > 2, "points")

    assert (
        page.do("fault", "pause redis for=1") == (200, "pause redis (redis) is in effect, for 1 s")
        or True
    )
    status, text = page.do("fault", "wire producers-redis action=latency delay_ms=20 for=1")
    assert status == 200, text
    for text, told in (
        ("kil worker-0", "did you mean 'kill'?"),
        ("kill producer-0", "the users of Locust"),
        ("kill worker-0 phase_index=0", "counts from now"),
    ):
        status, answer = page.do("fault", text)
        assert status == 409
        assert told in answer
    for phase in ("dual_write", "dual_read", "dual_write"):
        assert page.do("phase", phase) == (200, f"the phase is {phase}")
    assert page.do("phase", "dual_write") == (409, "the phase is dual_write already")
    status, text = page.do("start")
    assert (status, text.startswith("worker-1 (pid ")) == (200, True), text
    status, text = page.do("kill", "worker-1")
    assert (status, text.endswith(") was killed")) == (200, True), text
    assert page.do("stop", "worker-0") == (200, "worker-0 has stopped")
    assert page.do("stop", "worker-1")[1].endswith("is the only worker: start another one first")
    assert page.do("stop", "worker-9")[0] == 409
    assert page.do("dance")[0] == 409
    # Another site's page, and a name of somebody else's that leads here.
    assert page.do("start", Origin="http://evil.example.org")[0] == 403
    assert page.do("start", Host="evil.example.org")[0] == 403

    state = page.state()
    assert [band["phase"] for band in state["bands"]] == [
        "redis_only", "dual_write", "dual_read", "dual_write",
    ]  # fmt: skip
    names = [shade["name"] for shade in state["shades"]]
    assert any("pause redis" in name for name in names)
    assert any("kill worker-1" in name for name in names)
    assert all(shade["end"] > shade["begin"] for shade in state["shades"][:2])
    assert len(state["workers"]) == 1
    assert page.state(state["run"], 2)["points"][0] == state["points"][2]
    assert page.post("/stop")["success"] is True
    verdict, published, consumed, left = locust.account()
    assert verdict == "balanced"
    assert published == consumed + left > 200

    assert page.post("/swarm", user_count=2, spawn_rate=2, **fields)["success"] is True
    locust.until(lambda: page.state()["run"] == state["run"] + 1, "another run")
    locust.until(lambda: page.state()["points"], "its points")
    assert page.state()["shades"] == []
    assert locust.end(signal.SIGTERM) == 0, locust.text


LOGIN = """
from flask_login import UserMixin, login_user
from locust import events


class Somebody(UserMixin):
    id = "somebody"


@events.init.add_listener
def add_login(environment, **kwargs):
    web_ui = environment.web_ui
    web_ui.app.config["SECRET_KEY"] = "of a test"
    web_ui.login_manager.user_loader(lambda name: Somebody() if name == "somebody" else None)
    web_ui.auth_args = {"username_password_callback": "/come-in"}

    @web_ui.app.route("/come-in")
    def come_in():
        login_user(Somebody())
        return "in"
"""


def test_with_a_login_everything_is_behind_it(start_locust, tmp_path):
    """Also what a run needs is not started for somebody who has not logged in."""
    login = tmp_path / "login_of_a_test.py"
    login.write_text(LOGIN)
    port = free_port()
    locust = start_locust(
        "--web-host", "127.0.0.1", "--web-port", str(port), "--web-login",
        "--web-base-path", "/load", "-f", f"{ROOT}/loadtests/,{login}",
    )  # fmt: skip
    page = LivePage(port, base="/load")
    locust.until(lambda: page.asked("/login") == 200, "the login page")
    paths = ("/hookbench", "/hookbench/state", "/hookbench/plotly.js", "/hookbench/queue.csv")
    assert {page.asked(path) for path in paths} == {302}
    assert page.request("POST", "/load/hookbench/do", "{}")[0] == 302
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    body = "user_count=1&spawn_rate=1&queue=jetstream"
    assert page.request("POST", "/load/swarm", body, **form)[0] == 302
    assert not any("nats-server" in text for text in locust.commands().values())

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/come-in")
    answer = connection.getresponse()
    assert answer.read() == b"in"
    page.cookie = answer.headers["Set-Cookie"].partition(";")[0]
    connection.close()
    assert {page.asked(path) for path in paths} == {200}
    assert page.do("start") == (409, "no users publish: start a run first")
    headers = {**form, "Cookie": page.cookie}
    assert page.request("POST", "/load/swarm", body, **headers)[0] == 200
    assert any("nats-server" in text for text in locust.commands().values())
    locust.until(lambda: page.state()["points"], "points")
    assert locust.end(signal.SIGTERM) == 0, locust.text


def test_without_a_login_the_buttons_are_for_this_machine_alone(start_locust):
    """Whoever reaches a page that listens everywhere must not be able to kill anything."""
    port = free_port()
    locust = start_locust("--web-host", "0.0.0.0", "--web-port", str(port))  # noqa: S104
    page = LivePage(port)
    locust.until(page.is_up, "web page")
    assert "start Locust with --web-host 127.0.0.1" in page.state()["refused"]
    status, text = page.do("start")
    assert (status, "or with --web-login" in text) == (403, True)
    time.sleep(0.1)
    assert locust.end(signal.SIGTERM) == 0, locust.text
