"""Processes that follow a key, as they are started by hand."""

import json
import subprocess

import pytest

from tests.integration.conftest import COMMAND, Process


def phase(fleet, *arguments, code=0):
    brokers = [item for item in fleet.arguments() if not item.startswith("--subject-root")]
    if arguments[0] == "show":
        brokers.remove("--storage=memory")
    done = subprocess.run(
        [*COMMAND, "phase", *arguments, *brokers],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


@pytest.mark.parametrize("kind", ["redis", "nats"])
def test_a_worker_follows_a_key_and_says_so_there(fleet, kind):
    place = f"{kind}:worker-1"
    assert "hookbench phase set" in phase(fleet, "show", place, code=2)
    assert phase(fleet, "set", place, "redis_only") == f"{place}: redis_only\n"
    worker = fleet.worker(f"--phase-at={place}")
    assert worker.latest("phase") == "redis_only"
    assert worker.latest("follows") == place

    def followers():
        return json.loads(phase(fleet, "show", place, "--json"))["followers"]

    worker.wait_for(followers, "its announcement")
    (said,) = followers().values()
    assert (said["role"], said["phase"]) == ("worker", "redis_only")
    gate = subprocess.run(
        [
            *COMMAND, "gate", "redis_only", "dual_write", *fleet.arguments(),
            f"--workers={place}", "--json",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )  # fmt: skip
    checks = {item["name"]: item for item in json.loads(gate.stdout)["checks"]}
    assert checks["homogeneous fleet"]["evidence"] == "1 workers, all in redis_only"
    assert checks["no old producer"]["evidence"] == "no producer announced itself"
    assert "hookbench migrate" in phase(fleet, "set", place, "1", code=2)
    phase(fleet, "set", place, "dual_write", "--force")
    worker.wait_for(lambda: worker.latest("phase") == "dual_write", "the change")
    assert worker.stop() == 0
    assert followers() == {}


def test_a_producer_likewise_and_a_file(fleet, tmp_path):
    place = f"file:{tmp_path / 'phase.json'}"
    phase(fleet, "set", place, "redis_only")
    done = subprocess.run(
        [*COMMAND, "produce", *fleet.arguments(), f"--phase-at={place}", "--count=3", "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    entered = next(event for event in events if event["event"] == "phase")
    assert (entered["phase"], entered["follows"]) == ("redis_only", place)


def test_a_fleet_that_notes_what_it_does_comes_to_go(fleet):
    """As docs/live.md has it: what the producer puts is done, and the gate knows it."""
    for key in ("producers", "worker-1"):
        phase(fleet, "set", f"nats:{key}", "dual_write")
    worker = fleet.worker("--phase-at=nats:worker-1", "--measures=all")
    words = ["produce", *fleet.arguments(), "--phase-at=nats:producers", "--rate=20"]
    producer = Process([*words, "--count=100000", "--json"], fleet.folder, "producer")
    fleet.processes.append(producer)
    worker.wait_for(lambda: (worker.latest("done") or 0) > 5, "some tasks")
    said = []

    def goes():
        done = subprocess.run(
            [
                *COMMAND, "gate", "dual_write", "dual_read", *fleet.arguments(),
                "--producers=nats:producers", "--workers=nats:worker-1", "--json",
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )  # fmt: skip
        said.append(done.stdout)
        return done.returncode == 0

    worker.wait_for(goes, "go")
    answer = json.loads(said[-1])
    assert answer["start"]["proved"] == answer["start"]["skipped"] > 5
    assert (producer.stop(), worker.stop()) == (0, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--phase-at=redis:a", "--phase-file=b"], "not both"),
        (["--phase-at=redis:a", "--phase=0"], "either a phase or a phase file"),
        (["--phase-at=kafka:a"], "place of a phase 'kafka:a'"),
        (["--phase-at=redis:a"], "holds no phase"),
    ],
)
def test_what_cannot_be_followed(fleet, options, message):
    done = subprocess.run(
        [*COMMAND, "worker", *fleet.arguments(), *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 2
    assert message in done.stderr
