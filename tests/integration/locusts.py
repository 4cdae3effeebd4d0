"""A Locust process as a user starts it, and its web page."""

import contextlib
import http.client
import json
import os
import re
import subprocess
import sys
import time
import urllib.parse
from pathlib import Path

import psutil

from hookbench.brokers.ports import free_port

ROOT = Path(__file__).parents[2]
ACCOUNT = re.compile(r"account +(.+?): ([\d,]+) published, ([\d,]+) consumed \+ ([\d,]+) left")
END_TIMEOUT_S = 30.0


class Locust:
    """One Locust process, and every process that it was seen to have."""

    def __init__(self, tmp_path, *arguments, **variables):
        self.folder = tmp_path
        self.output = tmp_path / "output.txt"
        self.seen = []
        self.end_timeout_s = END_TIMEOUT_S
        env = {key: value for key, value in os.environ.items() if "LOCUST" not in key}
        for name in ("HOOKBENCH_REDIS_URL", "HOOKBENCH_NATS_URL"):
            env.pop(name, None)
        if "--processes" in arguments:  # a port of its own: other tests have masters as well
            port = str(free_port())
            arguments = (
                *arguments, "--master-bind-host", "127.0.0.1", "--master-bind-port", port,
                "--master-port", port,
            )  # fmt: skip
        command = [str(Path(sys.executable).with_name("locust")), "-f", "loadtests/", *arguments]
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**env, "TMPDIR": str(tmp_path), **variables},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def text(self):
        return self.output.read_text()

    def look(self):
        """Note the children that there are now."""
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.process.pid).children(recursive=True):
                if child not in self.seen:
                    self.seen.append(child)
        return self.seen

    def commands(self):
        """Command line of each child that lives now."""
        found = {}
        for child in self.look():
            with contextlib.suppress(psutil.NoSuchProcess):  # it only told its version
                found[child] = " ".join(child.cmdline())
        return found

    def until(self, condition, what, timeout_s=20.0):
        deadline = time.monotonic() + timeout_s
        while not (value := condition()):
            self.look()
            assert self.process.poll() is None, f"Locust ended before {what}:\n{self.text}"
            assert time.monotonic() < deadline, f"no {what} in {timeout_s} s:\n{self.text}"
            time.sleep(0.05)
        return value

    def end(self, number=None):
        """Wait for the end, after a signal; the exit code. Nothing may be left."""
        self.look()
        if number is not None:
            self.process.send_signal(number)
        code = self.process.wait(self.end_timeout_s)
        _gone, alive = psutil.wait_procs(self.seen, timeout=3.0)
        assert alive == [], self.text
        assert list(self.folder.glob("hookbench-locust-*")) == []
        return code

    def account(self):
        """Verdict, published, consumed, left."""
        verdict, *numbers = ACCOUNT.findall(self.text)[-1]
        return (verdict, *(int(number.replace(",", "")) for number in numbers))


def rows_of(entries):
    return {(row["method"], row["name"]): row for row in entries}


class Web:
    """Locust's web page, as the browser talks to it."""

    def __init__(self, port):
        self.port = port

    def request(self, method, path, body=None, **headers):
        """Status and body of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def ask(self, method, path, body=None):
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        return self.request(method, path, body, **kind)[1]

    def get(self, path):
        return self.ask("GET", path)

    def post(self, path, **fields):
        return json.loads(self.ask("POST", path, urllib.parse.urlencode(fields)))

    def is_up(self):
        try:
            return "locust" in self.get("/").lower()
        except OSError:
            return False

    def counts(self, queue):
        """Tasks published and consumed, as the page shows them."""
        rows = rows_of(json.loads(self.get("/stats/requests"))["stats"])
        keys = (("PUBLISH", queue), ("CONSUME", f"{queue} end to end"))
        return tuple(rows[key]["num_requests"] if key in rows else 0 for key in keys)

    def queue_tab(self):
        """The rows of the tab, by figure."""
        (found,) = json.loads(self.get("/stats/requests"))["extended_stats"]
        assert found["key"] == "queue"
        return {row["figure"]: row for row in found["data"]}
