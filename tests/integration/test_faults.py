"""Faults in real rehearsals: they fire, they are healed, and the account names what they did."""

import subprocess

import numpy as np
import psutil
import pytest

from hookbench.brokers.durability import Durability
from hookbench.brokers.embedded import start_redis
from hookbench.brokers.resolve import resolve_redis
from hookbench.errors import ResultsError
from hookbench.ledger.events import Event
from hookbench.ledger.read import read_ledger
from hookbench.results.store import resolve_run
from tests.integration.conftest import COMMAND, stored


def test_faults_of_every_kind_fire_and_are_healed(rehearse, tmp_path):
    faults = [
        {"kind": "kill", "target": "redis", "at_s": 1.0, "for_s": 0.3},
        {"kind": "pause", "target": "worker-1", "at_s": 2.0, "for_s": 0.5},
        {"kind": "kill_at_step", "target": "worker-0", "at_s": 3.5, "step": "effect"},
        {"kind": "restart", "target": "worker-1", "at_s": 4.0},
        {"kind": "kill", "target": "nats", "at_s": 4.5, "for_s": 0.3},
        {"kind": "pause", "target": "nats", "at_s": 5.3, "for_s": 0.3},
    ]
    done = rehearse(faults, seconds=3.0)
    assert done.returncode == 1, done.stderr
    manifest = stored(tmp_path)
    assert [record.problem for record in manifest.faults] == [None] * 6
    for record, fault in zip(manifest.faults, faults, strict=True):
        assert (record.kind, record.target) == (fault["kind"], fault["target"])
        assert record.planned_ns <= record.begin_ns <= record.end_ns
        assert record.end_ns - record.begin_ns >= fault.get("for_s", 0) * 1e9
    account = manifest.account
    more = account.done + account.lost + account.stuck - account.accepted
    assert 0 <= more <= account.doubtful  # nobody was promised those, and they may be done
    # The queue is worked off at once after each outage, or the drain would have timed out.
    assert manifest.unknown_because == []
    assert any("killed by SIGKILL, replaced" in item.what for item in manifest.incidents)


@pytest.mark.parametrize(
    ("step", "lost", "stuck"), [("receive", 0, 1), ("effect", 0, 1), ("ack", 0, 0)]
)
def test_a_worker_on_redis_that_dies_at_a_step(rehearse, tmp_path, step, lost, stuck):
    """In the hand of the one that died, a task of the list is orphaned, unless it was done."""
    fault = {"kind": "kill_at_step", "target": "worker-0", "at_s": 1.0, "step": step, "nth": 5}
    done = rehearse([fault], phases='"redis_only"')
    manifest = stored(tmp_path)
    assert manifest.unknown_because == [], done.stderr
    (crash,) = manifest.account.crashes
    assert (manifest.account.lost > 0) == bool(lost)
    assert manifest.account.stuck >= stuck
    if step == "effect":
        # The effect is in the store, and its worker never said that it was done.
        assert manifest.account.effects > manifest.account.done - manifest.account.pushed_tasks
    assert crash.writer == "worker.00001"
    assert manifest.faults[0].begin_ns is not None


def test_a_fault_that_cannot_fire_makes_the_verdict_unknown(rehearse, tmp_path):
    faults = [
        {"kind": "kill", "target": "redis", "at_s": 60.0},
        {"kind": "kill_at_step", "target": "worker-0", "at_s": 0.5, "step": "claim", "within_s": 1},
    ]
    done = rehearse(faults, phases='"redis_only"')
    assert done.returncode == 3, done.stderr
    manifest = stored(tmp_path)
    assert manifest.verdict == "unknown"
    late, never = manifest.unknown_because
    assert late == (
        "fault 0 (kill redis): it did not fire: planned 60 s after the start, when the load had"
        " ended"
    )
    assert never.startswith("fault 1 (kill_at_step worker-0): it did not fire: worker-0 (pid ")
    assert never.endswith(") did not get to step claim number 1 within 1 s")


def test_a_fault_on_a_broker_that_the_run_did_not_start_is_refused(tmp_path):
    broker = start_redis(resolve_redis(env={"PATH": ""}), tmp_path / "brokers", Durability.MEMORY)
    try:
        done = subprocess.run(
            [
                *COMMAND,
                *("run", "quick", f"--redis-url={broker.url}", f"--out={tmp_path}"),
                *("--set", "faults=[{kind='kill', target='redis', at_s=1.0}]"),
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 2, done.stderr
        assert "this run did not start it" in done.stderr
        assert psutil.pid_exists(broker.pid)
    finally:
        broker.stop()


@pytest.mark.parametrize("target", ["worker-9", "mongo", "producer-2"])
def test_a_fault_aimed_at_nobody_is_refused_and_leaves_no_run(rehearse, target, tmp_path):
    done = rehearse([{"kind": "kill", "target": target, "at_s": 1.0}])
    assert done.returncode == 2
    assert f"kill {target}: no such target" in done.stderr
    assert "use redis, redis_master, nats, stream_leader, meta_leader, worker-0 to" in done.stderr
    assert "is kept" not in done.stderr
    with pytest.raises(ResultsError):
        resolve_run("latest", tmp_path)


def test_a_lost_reply_and_a_partition_on_the_wire(rehearse, tmp_path):
    """Hazard R1: nobody died, and a task is orphaned all the same."""
    faults = [
        {
            "kind": "wire",
            "target": "workers-redis",
            "action": "drop",
            "direction": "reply",
            "command": "BLMOVE",
            "nth": 3,
            "at_s": 0.5,
            "for_s": 0.3,
        },
        {
            "kind": "wire",
            "target": "workers-nats",
            "action": "partition",
            "at_s": 2.5,
            "for_s": 0.3,
        },
    ]
    done = rehearse(faults)
    assert done.returncode == 1, done.stderr
    manifest = stored(tmp_path)
    assert manifest.unknown_because == []
    assert [record.name for record in manifest.faults] == [
        "drop reply BLMOVE workers-redis",
        "partition workers-nats",
    ]
    account = manifest.account
    assert account.crashes == []
    # On a busy machine the change of the phase may strand what lies in the list at that moment.
    stranded = {"redis-pending/never-read"}
    assert account.rows[0].stuck["redis-work/orphaned"] == 1
    assert set(account.rows[0].stuck) - stranded == {"redis-work/orphaned"}
    found = {item.hazard for item in account.findings if item.step == 0}
    assert "R3" in found <= {"R3", "P6"}
    assert account.faults[0].stuck == 1
    assert any(use.name == "proxy" for use in manifest.resources)


def test_a_rule_that_makes_no_sense_is_refused_before_the_run(rehearse):
    done = rehearse(
        [
            {
                "kind": "wire",
                "target": "workers-redis",
                "action": "drop",
                "direction": "reply",
                "command": "BLMOV",
                "at_s": 1.0,
            }
        ]
    )
    assert done.returncode == 2
    assert "did you mean 'BLMOVE'" in done.stderr


def test_a_fleet_that_is_restarted_and_a_producer_that_is_killed(rehearse, tmp_path):
    """What was due while nobody offered it is told apart from what is missing."""
    faults = [
        {"kind": "rolling_restart", "target": "workers", "at_s": 0.5},
        {"kind": "kill", "target": "producer-1", "at_s": 1.0},
        {"kind": "rolling_restart", "target": "producers", "at_s": 4.0},
    ]
    without_gates = ("--set=design=hardened", "--set=measures=['-gates']")  # no time for them
    done = rehearse(faults, *without_gates, seconds=5.0)
    assert done.returncode == 0, done.stderr
    manifest = stored(tmp_path)
    assert manifest.unknown_because == []
    account = manifest.account
    synthetic = account.tasks - account.pushed_tasks
    assert 0 < manifest.not_offered < 1500
    assert synthetic + manifest.not_offered == 3000
    assert f"{manifest.not_offered:,} were due while a fault had their producer down" in done.stdout
    replaced = [what.what.split(" ")[0] for what in manifest.incidents if "replaced" in what.what]
    assert sorted(replaced) == [
        *("producer-0", "producer-1", "producer-1", "worker-0", "worker-1"),
    ]
    ledger = read_ledger(resolve_run("latest", tmp_path) / "ledger")
    put = ledger.records["event"] == Event.PUT_INVOKED
    mine = np.array([name.startswith("producer") for name in ledger.writers])[ledger.writer]
    # One put of each task: nobody offered again what another had offered.
    assert len(set(ledger.task[put & mine].tolist())) == int((put & mine).sum()) == synthetic
    due = ledger.records["value"][put & mine]
    assert len(set(due.tolist())) >= 1400  # the two producers are due at the same times
    assert int(due.max()) > manifest.steps[-1].end_ns - 500_000_000  # up to the end of the load
    assert [name.split(".")[0] for name in ledger.crashed] == ["producer"]
