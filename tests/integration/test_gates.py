"""The gates on live brokers: by hand, in a rehearsal, and in the scenarios of hazards."""

import json
import subprocess

import pytest

from hookbench.clock import SystemClock
from hookbench.hazards.model import Outcome
from hookbench.hazards.registry import HAZARDS
from hookbench.hazards.suite import run_hazard
from hookbench.migration.phases import Design, Phase
from hookbench.migration.service import open_service
from hookbench.queues.connections import Connections
from hookbench.queues.jetstream import StreamSettings, ensure_stream
from hookbench.task import encode_task
from tests.integration.conftest import COMMAND, stored

SAID = {"event": "phase", "phase": "dual_write", "version": "1", "measures": "none"}


class Gate:
    """Runs ``hookbench gate`` on the session's brokers."""

    def __init__(self, redis_url, nats_url, names, folder):
        self.redis_url, self.nats_url, self.names, self.folder = redis_url, nats_url, names, folder

    def announce(self, name, **changes):
        role = name.partition("-")[0]
        line = json.dumps({**SAID, "role": role, "task_type": "sync", **changes})
        (self.folder / f"{name}.jsonl").write_text(line + '\n{"event": "pro')

    def call(self, *more, source="dual_write", target="dual_read"):
        return subprocess.run(
            [
                *COMMAND, "gate", source, target,
                f"--redis-url={self.redis_url}", f"--nats-url={self.nats_url}",
                f"--prefix={self.names.prefix}", f"--subject-root={self.names.subject_root}",
                f"--stream={self.names.stream}", "--storage=memory", *more,
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )  # fmt: skip

    def ask(self, *more, code, **way):
        done = self.call(*more, **way)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def checks(self, *more, code, **way):
        answer = json.loads(self.ask("--json", *more, code=code, **way))
        return answer["answer"], {check["name"]: check for check in answer["checks"]}


@pytest.fixture
async def gate(redis_broker, nats_broker, names, tmp_path, transport):
    await ensure_stream(transport, StreamSettings(storage="memory"))
    return Gate(redis_broker.url, nats_broker.url, names, tmp_path)


async def put(gate, phase, clock, *tasks):
    connections = Connections(
        redis_url=gate.redis_url,
        nats_url=gate.nats_url,
        names=gate.names,
        clock=clock,
        stream=StreamSettings(storage="memory"),
    )
    try:
        service = await open_service(phase, connections, gate.names)
        for task in tasks:
            await service.send(task)
    finally:
        await connections.close()


def announced(gate):
    gate.announce("producer-0")
    gate.announce("worker-0")
    return f"--announced={gate.folder}"


async def test_a_ready_queue_is_go(gate):
    text = gate.ask(announced(gate), code=0)
    assert text.splitlines()[-1] == "go       dual_write to dual_read, before"
    assert "2 workers" not in text
    assert "1 workers, all in dual_write" in text


async def test_without_announcements_it_is_unknown(gate):
    answer, checks = gate.checks(code=3)
    assert answer == "unknown"
    assert checks["no old producer"]["answer"] == "unknown"
    assert checks["watermark"]["answer"] == "go"


async def test_an_old_producer_and_a_mixed_fleet_are_no_go(gate):
    options = announced(gate)
    gate.announce("producer-1", phase="redis_only")
    gate.announce("worker-1", version="2")
    answer, checks = gate.checks(options, code=1)
    assert answer == "no-go"
    assert "producer-1 in redis_only" in checks["no old producer"]["evidence"]
    assert checks["homogeneous fleet"]["answer"] == "no-go"
    assert "no-go" in gate.ask(options, code=1)


async def test_what_lies_on_the_brokers_is_found(gate, clock, make_task, redis_client):
    options = announced(gate)
    orphan, alone, both = make_task(), make_task(), make_task()
    await put(gate, Phase.REDIS_ONLY, clock, alone)
    await put(gate, Phase.DUAL_WRITE, clock, both)
    own_list = f"{gate.names.work_key('sync')}:worker-7"
    await redis_client.lpush(own_list, encode_task(orphan))
    await redis_client.lpush(gate.names.pending_key("gc"), encode_task(make_task(task_type="gc")))
    _answer, checks = gate.checks(options, code=1)
    backlog = checks["backlog and orphans"]
    assert "3 tasks pending and 1 in work lists" in backlog["evidence"]
    assert {str(orphan.id), str(alone.id), str(both.id)} <= set(backlog["ids"])
    assert checks["watermark"]["evidence"].endswith("all of them still in Redis")
    assert "without a consumer: gc" in checks["task types"]["evidence"]


async def test_a_setting_that_differs_and_a_task_type_without_a_consumer(
    gate, transport, make_task
):
    await transport.publish(gate.names.subject("fsck"), encode_task(make_task(task_type="fsck")))
    _answer, checks = gate.checks(announced(gate), "--max-age=60", code=1)
    assert "max_age: wanted 60.0" in checks["configuration"]["evidence"]
    assert checks["task types"]["answer"] == "no-go"


async def test_a_broker_that_is_away_is_unknown(gate):
    options = announced(gate)
    gate.nats_url = "nats://127.0.0.1:1"
    answer, checks = gate.checks(options, code=3)
    assert answer == "unknown"
    assert "does not answer" in checks["brokers answer"]["evidence"]
    gate.redis_url = "redis://127.0.0.1:1"
    assert gate.checks(options, code=3)[0] == "unknown"


async def test_late_publishes_are_looked_for_twice(gate):
    gate.announce("producer-0", phase="redis_only")
    gate.announce("worker-0", phase="redis_only")
    way = {"source": "nats_primary", "target": "redis_only"}
    options = (f"--announced={gate.folder}", "--moment=after")
    answer, checks = gate.checks(*options, code=0, **way)
    assert answer == "go"
    assert checks["late publishes"]["evidence"].startswith("0 tasks published")


def test_a_way_that_there_is_not_is_named():
    text = subprocess.run([*COMMAND, "gate", "0", "4"], capture_output=True, text=True, check=False)
    assert text.returncode == 2
    assert "no such transition or rollback" in text.stderr


SCENARIO = """
name = "gated"
description = "a test"
measures = ["gates", "ack_after"]
[timeline]
phases = [{phases}]
phase_seconds = 2.0
[producers]
rate_per_s = 100.0
[pushes]
interval_s = 1.0
"""


def rehearse(folder, phases):
    path = folder / "gated.toml"
    path.write_text(SCENARIO.format(phases=", ".join(f'"{item}"' for item in phases)))
    return subprocess.run(
        [*COMMAND, "run", str(path), f"--out={folder}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )


def test_a_rehearsal_keeps_what_its_gates_said(tmp_path):
    done = rehearse(tmp_path, ["nats_primary", "nats_only"])
    manifest = stored(tmp_path)
    said = [(record.step, record.moment, record.answer) for record in manifest.gates]
    assert said == [(1, "before", "go"), (1, "between", "go"), (1, "after", "go")], done.stderr
    assert all(record.checks for record in manifest.gates)
    assert "gate      nats_primary to nats_only, before: go" in done.stdout
    assert [row.name for row in manifest.account.rows] == [
        "nats_primary", "→ nats_only", "nats_only"
    ]  # fmt: skip
    assert manifest.account.lost == manifest.account.stuck == 0


def test_a_rehearsal_that_is_held_back_ends_with_the_evidence(tmp_path):
    """Nobody says which tasks of phase 1 are done: a new consumer might replay all of them."""
    done = rehearse(tmp_path, ["dual_write", "dual_read", "nats_primary"])
    assert done.returncode == 3, done.stderr
    manifest = stored(tmp_path)
    assert manifest.verdict == "unknown"
    reasons = [text for text in manifest.unknown_because if text.startswith("held back: ")]
    assert len(reasons) == 1
    assert "watermark unknown" in reasons[0]
    assert [record.plan.phase for record in manifest.steps] == ["dual_write"]
    assert manifest.gates[-1].answer != "go"
    assert sum(record.asked for record in manifest.gates) > 1
    assert all("end of the load" not in text for text in manifest.unknown_because)
    assert manifest.account.lost == 0
    assert "no done-store says which of them are done" in done.stdout


OUTCOMES = {
    "P1": Outcome.REFUSED,
    "P6": Outcome.REFUSED,
    "P12": Outcome.REFUSED,
    "C1": Outcome.PREVENTED,
    "B1": Outcome.REFUSED,
    "B2": Outcome.PREVENTED,
    "B3": Outcome.REFUSED,
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("row", list(OUTCOMES))
async def test_with_gates_alone_the_hazard_does_no_harm(row, tmp_path):
    result = await run_hazard(
        HAZARDS[row],
        Design.GUIDE,
        measures="gates",
        folder=tmp_path / row,
        clock=SystemClock(),
        seed=7,
    )
    assert result.problem == ""
    assert result.outcome is OUTCOMES[row]
    assert result.count == 0  # of the harm
