"""Real worker processes on the session's brokers."""

import json
import subprocess
import sys
import time

import psutil
import pytest

from hookbench.migration.phases import PhaseFile
from hookbench.queues.redis_client import connect_redis
from hookbench.queues.transport import AppTransport
from hookbench.results.store import load_manifest, resolve_run
from tests.integration.locusts import Locust

COMMAND = [sys.executable, "-m", "hookbench"]
DEADLINE_S = 30.0


class Process:
    """A hookbench command that says what it does in JSON lines."""

    def __init__(self, arguments, folder, name):
        self.output = folder / f"{name}.jsonl"
        self.errors = folder / f"{name}.log"
        with self.output.open("wb") as out, self.errors.open("wb") as err:
            self.popen = subprocess.Popen([*COMMAND, *arguments], stdout=out, stderr=err)

    def said(self):
        lines = self.output.read_bytes().split(b"\n")[:-1]
        return [json.loads(line) for line in lines]

    def latest(self, key):
        values = [event[key] for event in self.said() if key in event]
        return values[-1] if values else None

    def wait_for(self, condition, what):
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert self.popen.poll() is None, self.errors.read_text()
            assert time.monotonic() < deadline, f"{what}: {self.said()} {self.errors.read_text()}"
            time.sleep(0.02)

    def stop(self, number=15):
        self.popen.send_signal(number)
        return self.popen.wait(timeout=DEADLINE_S)


class Fleet:
    """Starts workers on the session's brokers under the test's own names."""

    def __init__(self, redis_url, nats_url, names, folder):
        self.redis_url = redis_url
        self.nats_url = nats_url
        self.names = names
        self.folder = folder
        self.ledger = folder / "ledger"
        self.ledger.mkdir()
        self.phase_file = PhaseFile(folder / "phase.json")
        self.processes = []

    def arguments(self):
        return [
            "--redis-url",
            self.redis_url,
            "--nats-url",
            self.nats_url,
            f"--prefix={self.names.prefix}",
            f"--subject-root={self.names.subject_root}",
            f"--stream={self.names.stream}",
            "--storage=memory",
        ]

    def worker(self, *more, writer=1):
        process = Process(
            [
                "worker",
                *self.arguments(),
                "--block-timeout=0.5",
                f"--ledger={self.ledger}",
                f"--writer={writer}",
                "--json",
                *more,
            ],
            self.folder,
            f"worker-{writer}",
        )
        self.processes.append(process)
        process.wait_for(lambda: process.latest("phase") is not None, "the first phase")
        return process

    def close(self):
        for process in self.processes:
            if process.popen.poll() is None:
                process.popen.kill()
                process.popen.wait()


@pytest.fixture
def fleet(redis_broker, nats_broker, names, tmp_path):
    opened = Fleet(redis_broker.url, nats_broker.url, names, tmp_path)
    yield opened
    opened.close()


@pytest.fixture
async def redis_client(redis_broker):
    client = connect_redis(redis_broker.url)
    yield client
    await client.aclose()


@pytest.fixture
async def transport(nats_broker, names):
    async with await AppTransport.connect(nats_broker.url, names=names) as opened:
        yield opened


@pytest.fixture
def no_process_left():
    """What this test started, and what that started, must be gone at its end."""
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    yield
    deadline = time.monotonic() + 10
    left = True
    while left and time.monotonic() < deadline:
        left = [
            process
            for process in psutil.Process().children(recursive=True)
            if process.pid not in before and process.status() != psutil.STATUS_ZOMBIE
        ]
        time.sleep(0.05)
    assert left == []


def processes_of(folder):
    """Processes whose command line names the run's folder, or that were started for it."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(str(folder) in part for part in process.info["cmdline"] or [])
    ]


FAULTY = """
name = "faulty"
description = "a test"
[timeline]
phases = [{phases}]
phase_seconds = {seconds}
[producers]
rate_per_s = 300.0
"""


@pytest.fixture
def rehearse(tmp_path):
    def run(faults, *arguments, phases='"redis_only", "nats_primary"', seconds=2.0):
        path = tmp_path / "faulty.toml"
        tables = "".join(
            "[[faults]]\n"
            + "".join(f"{key} = {json.dumps(value)}\n" for key, value in item.items())
            for item in faults
        )
        path.write_text(FAULTY.format(phases=phases, seconds=seconds) + tables)
        done = subprocess.run(
            [*COMMAND, "run", str(path), f"--out={tmp_path}", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert processes_of(tmp_path) == []
        return done

    return run


def stored(folder):
    return load_manifest(resolve_run("latest", folder))


@pytest.fixture
def start_locust(tmp_path):
    """Starts Locust with arguments and variables of the environment; nothing outlives the test."""
    started = []

    def begin(*arguments, **variables):
        started.append(Locust(tmp_path, *arguments, **variables))
        return started[-1]

    yield begin
    for locust in started:
        if locust.process.poll() is None:
            locust.process.kill()
            locust.process.wait()
