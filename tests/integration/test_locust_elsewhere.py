"""A Locust worker on another machine: another clock, and none of the master's folders.

A time namespace has the clock of a machine that was started at another time, and a mount namespace
hides the folders; the network is shared.
"""

import contextlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hookbench.brokers.ports import free_port
from tests.integration.locusts import ROOT

if importlib.util.find_spec("locust") is None:  # importing it would patch this process for gevent
    pytest.skip("Locust is not installed: pip install -e '.[loadtest]'", allow_module_level=True)

AHEAD_S = 100_000
ELSEWHERE = ["unshare", "--time", "--monotonic", str(AHEAD_S), "--mount"]


def may_unshare():
    if shutil.which("unshare") is None:
        return False
    asked = subprocess.run([*ELSEWHERE, "true"], check=False, capture_output=True)
    return asked.returncode == 0


if not may_unshare():
    pytest.skip(
        "no time and mount namespaces here: run as root, on Linux 5.6 or later",
        allow_module_level=True,
    )

CLOCK = re.compile(r"clock +\S+: ([\d,.]+) s ahead, known to ([\d.]+) ms")


@pytest.fixture
def elsewhere(tmp_path):
    """Starts a Locust worker that does not see the folders below ``tmp_path``."""
    started = []
    output = tmp_path / "worker.txt"

    def start(port):
        hidden = f'mount -t tmpfs none "{tmp_path}" && exec "$@"'
        locust = [
            str(Path(sys.executable).with_name("locust")), "-f", "loadtests/", "--worker",
            "--master-host", "127.0.0.1", "--master-port", str(port),
        ]  # fmt: skip
        with output.open("wb") as file:
            started.append(
                subprocess.Popen(
                    [*ELSEWHERE, "sh", "-c", hidden, "-", *locust],
                    cwd=ROOT,
                    env={**os.environ, "TMPDIR": str(tmp_path)},
                    stdout=file,
                    stderr=subprocess.STDOUT,
                )
            )
        return started[-1]

    yield start
    for process in started:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10.0)
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.mark.parametrize("mode", ["bridge", "engine"])
def test_its_tasks_are_accounted_for_by_the_masters_clock(
    start_locust, elsewhere, redis_broker, nats_broker, mode
):
    port = free_port()
    master = start_locust(
        "--headless", "--master", "--master-bind-host", "127.0.0.1",
        "--master-bind-port", str(port), "--expect-workers", "1", "-t", "6s", "-u", "4",
        "--rate", "40", "--queue", "jetstream", "--mode", mode,
        "--redis-url", redis_broker.url, "--nats-url", nats_broker.url,
    )  # fmt: skip
    worker = elsewhere(port)
    master.end_timeout_s = 60.0
    assert master.end() == 0, master.text
    assert worker.wait(10.0) == 0
    verdict, published, consumed, left = master.account()
    assert (verdict, left) == ("balanced", 0)
    assert published == consumed > 300
    ((ahead, error),) = CLOCK.findall(master.text)
    error_s = float(error) / 1_000
    assert 0 < error_s < 0.5
    assert abs(float(ahead.replace(",", "")) - AHEAD_S) <= error_s
    off, negative, count = re.search(
        r"end to end +up to ([\d.]+) ms off; ([\d,]+) of ([\d,]+) are negative", master.text
    ).groups()
    assert (off, int(count.replace(",", ""))) == (error, consumed)
    assert int(negative.replace(",", "")) < published


def test_embedded_brokers_are_for_one_machine(start_locust, elsewhere):
    port = free_port()
    master = start_locust(
        "--headless", "--master", "--master-bind-host", "127.0.0.1",
        "--master-bind-port", str(port), "--expect-workers", "1", "-t", "6s",
    )  # fmt: skip
    elsewhere(port)
    master.end_timeout_s = 60.0
    assert master.end() == 2, master.text
    assert "give it --redis-url and --nats-url" in master.text
