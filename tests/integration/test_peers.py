"""Trials of the peers with real brokers and processes; of those whose environments are there."""

import signal
from pathlib import Path

import pytest

from hookbench.brokers.process import spawn
from hookbench.clock import NS_PER_S, SystemClock
from tests.bench.peers.catalogue import CONTENDERS
from tests.bench.peers.environments import FOLDER, describe, interpreter, is_ready
from tests.bench.peers.trial import SLEEP_S, TrialError, crash, drain, end_group

DEADLINE_S = 60.0


def named(name):
    (found,) = [item for item in CONTENDERS if item.name == name]
    return found


def needs(environment):
    return pytest.mark.skipif(
        not is_ready(environment), reason=f"no environment {environment} in {FOLDER}: make peers"
    )


def wait_until(condition):
    clock = SystemClock()
    deadline_ns = clock.monotonic_ns() + int(DEADLINE_S * NS_PER_S)
    while not condition():
        assert clock.monotonic_ns() < deadline_ns
        clock.block(0.01)


def is_alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_group_is_ended_with_all_that_its_leader_started(tmp_path):
    told = tmp_path / "pid"
    child = spawn("parent", ["/bin/sh", "-c", f"sleep 600 & echo $! > {told}; wait"])
    wait_until(lambda: told.exists() and told.read_text().strip())
    grandchild = int(told.read_text())
    assert is_alive(grandchild)
    end_group(child)
    assert child.exit_code == -signal.SIGKILL
    wait_until(lambda: not is_alive(grandchild))


@pytest.mark.parametrize("name", [item.name for item in CONTENDERS if item.is_reference])
def test_the_reference_drains_a_backlog(name):
    contender = named(name)
    found = drain(contender, interpreter(contender), 300, 0.0)
    assert (found.account.tasks, found.account.lost, found.account.repeated) == (300, 0, 0)
    assert found.account.rate_per_s > 0


def test_a_worker_that_cannot_work_is_an_error_with_the_end_of_its_log(tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho no such module >&2\nexit 3\n")
    python.chmod(0o755)
    with pytest.raises(TrialError, match="putting 300 tasks ended with 3:\nno such module"):
        drain(named("arq"), python, 300, 0.0)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("taskiq-nats", marks=needs("taskiq-nats")),
        pytest.param("taskiq-redis list", marks=needs("taskiq-redis")),
    ],
)
def test_a_peer_drains_a_backlog_and_is_killed_in_the_middle_of_one(name):
    contender = named(name)
    found = drain(contender, interpreter(contender), 300, 0.0)
    assert (found.account.tasks, found.account.lost, found.account.repeated) == (300, 0, 0)
    redelivery_s = describe(contender)[SLEEP_S].redelivery_s
    crashed = crash(contender, interpreter(contender), 2_000, SLEEP_S, redelivery_s)
    assert 800 <= crashed.at_kill < 2_000
    if name == "taskiq-nats":
        assert crashed.lost == 0
