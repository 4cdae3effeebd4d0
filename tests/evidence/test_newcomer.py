"""A newcomer's path, timed: from a clone to a report, and to a gate on brokers of one's own."""

import asyncio
import contextlib
import json
import re
import signal
import subprocess
import sys
import time

import pytest

from hookbench.brokers.ports import free_port
from hookbench.brokers.probe import probe_nats, probe_redis
from hookbench.brokers.process import spawn
from hookbench.brokers.resolve import resolve_nats, resolve_redis
from hookbench.clock import SystemClock
from hookbench.errors import BrokerUnreachableError
from tests.wheel import ROOT, plain_environment

RATE_PER_S = 50
LOAD_S = 10.0
START_S, WORK_S = 60.0, 120.0


def wait_for(condition, seconds, what):
    clock = SystemClock()
    deadline_ns = clock.monotonic_ns() + int(seconds * 1e9)
    while not condition():
        assert clock.monotonic_ns() < deadline_ns, f"{what}: not within {seconds:.0f} s"
        clock.block(0.1)


def answers(probe, url):
    try:
        asyncio.run(probe(url))
    except BrokerUnreachableError:
        return False
    return True


@contextlib.contextmanager
def own_brokers(folder):
    """A Redis and a NATS server as somebody starts them by hand."""
    redis_port, nats_port = free_port(), free_port()
    commands = {
        "redis": [
            str(resolve_redis(env={"PATH": ""}).binary), "--port", str(redis_port),
            "--dir", str(folder), "--appendonly", "yes", "--save", "",
        ],
        "nats": [
            str(resolve_nats(env={"PATH": ""}).binary), "-js", "-sd", str(folder / "jetstream"),
            "-a", "127.0.0.1", "-p", str(nats_port),
        ],
    }  # fmt: skip
    with contextlib.ExitStack() as stack:
        for name, command in commands.items():
            log = stack.enter_context((folder / f"{name}.log").open("wb"))
            stack.callback(spawn(name, command, output=log).stop)
        urls = f"redis://127.0.0.1:{redis_port}", f"nats://127.0.0.1:{nats_port}"
        for probe, url in zip((probe_redis, probe_nats), urls, strict=True):
            wait_for(lambda probe=probe, url=url: answers(probe, url), START_S, url)
        yield urls


@pytest.mark.evidence(
    claim="From a fresh clone with an empty home and no environment `make rehearse ARGS=--quick`"
    " comes to a report, and on brokers that were started by hand `hookbench gate` says go.",
    seed=7,
)
@pytest.mark.timeout(3_000)
def test_newcomer(proof, tmp_path):
    clone, home, data = tmp_path / "hookbench", tmp_path / "home", tmp_path / "brokers"
    for folder in (home, data):
        folder.mkdir()
    environment = plain_environment(HOME=str(home))
    began = time.perf_counter()
    subprocess.run(
        ["git", "clone", "--quiet", str(ROOT), str(clone)], check=True, timeout=300,
        env=environment,
    )  # fmt: skip
    cloned = time.perf_counter()
    done = subprocess.run(
        ["make", "rehearse", "ARGS=--quick", f"PYTHON={sys.executable}"], cwd=clone,
        env=environment, capture_output=True, text=True, timeout=2_400, check=False,
    )  # fmt: skip
    reported = time.perf_counter()
    wrong = []
    named = re.findall(r"report +(\S+report\.html)", done.stdout + done.stderr)
    if done.returncode != 0:
        wrong.append(f"make rehearse ended with {done.returncode}: {done.stderr[-300:]}")
    elif not named or not (clone / named[-1]).is_file():
        wrong.append("no report is named, or it is not there")
    hookbench = str(clone / ".venv" / "bin" / "hookbench")
    seconds = {"clone": round(cloned - began, 1), "to_report": round(reported - began, 1)}
    with own_brokers(data) as (redis_url, nats_url):
        answer, code, seconds["gate_on_own_brokers"] = _gate(
            hookbench,
            clone,
            {**environment, "HOOKBENCH_REDIS_URL": redis_url, "HOOKBENCH_NATS_URL": nats_url},
        )
    if (answer, code) != ("go", 0):
        wrong.append(f"the gate does not say go: {answer}, exit code {code}")
    proof.record(seconds=seconds, answer=answer)
    proof.conclude(wrong)


def _gate(hookbench, folder, environment):
    """A fleet of one producer and one worker in dual_write, and the gate to dual_read.

    Its answer, its exit code, and the seconds from the first command to the answer.
    """

    def run(*words):
        return subprocess.run(
            [hookbench, *words], cwd=folder, env=environment, capture_output=True, text=True,
            timeout=120, check=False,
        )  # fmt: skip

    began = time.perf_counter()
    places = ("nats:producers", "nats:worker-1")
    for place in places:
        assert run("phase", "set", place, "dual_write").returncode == 0
    with contextlib.ExitStack() as stack:
        for role, place, more in (
            ("worker", places[1], ["--measures", "all"]),
            ("produce", places[0], ["--rate", str(RATE_PER_S), "--count", "100000"]),
        ):
            child = spawn(role, [hookbench, role, "--phase-at", place, *more], env=environment)
            stack.callback(child.stop)
            stack.callback(child.signal, signal.SIGTERM)

        def heard():
            said = [run("phase", "show", place, "--json") for place in places]
            return all(
                done.returncode == 0 and json.loads(done.stdout)["followers"] for done in said
            )

        wait_for(heard, WORK_S, "the fleet's word")
        time.sleep(LOAD_S)  # some tasks for the gate to look at
        done = run(
            "gate", "dual_write", "dual_read", "--producers", places[0], "--workers", places[1],
            "--json",
        )  # fmt: skip
    seconds = round(time.perf_counter() - began, 1)
    answer = json.loads(done.stdout)["answer"] if done.stdout else done.stderr[-300:]
    return answer, done.returncode, seconds
