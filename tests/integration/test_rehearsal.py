"""Real rehearsals, short ones."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid

import msgspec
import psutil
import pytest

import hookbench
from hookbench.brokers.durability import Durability
from hookbench.brokers.embedded import start_nats, start_redis
from hookbench.brokers.resolve import resolve_nats, resolve_redis
from hookbench.ledger.events import Event
from hookbench.ledger.read import read_ledger
from hookbench.queues.redis_client import connect_redis
from hookbench.queues.transport import AppTransport
from hookbench.results.store import Manifest, load_manifest, resolve_run
from tests.integration.conftest import COMMAND, processes_of

QUICK = ["rehearse", "--phase-seconds=2", "--rate=400", "--push-interval=0.5"]


def rehearse(out, *arguments, timeout_s=170):
    return subprocess.run(
        [*COMMAND, *QUICK, f"--out={out}", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


@pytest.fixture(scope="module")
def guide_run(tmp_path_factory):
    out = tmp_path_factory.mktemp("results")
    done = rehearse(out)
    return out, done, load_manifest(resolve_run("latest", out))


def test_the_guide_is_convicted_without_a_fault(guide_run):
    out, done, manifest = guide_run
    assert done.returncode == 1, done.stderr
    assert manifest.status == "complete"
    assert manifest.verdict == "invalid"
    rows = {row.name: row for row in manifest.account.rows}
    assert rows["→ dual_read"].duplicated > 0
    assert rows["dual_read"].left > 0
    for name in ("redis_only", "dual_write", "nats_primary", "nats_only"):
        assert rows[name].verdict == "valid", name
        assert rows[name].tasks >= 700
    findings = {finding.hazard: finding for finding in manifest.account.findings}
    assert set(findings) == {"P5", "P8"}
    assert (manifest.account.lost, manifest.account.stuck) == (0, 0)
    ledger = read_ledger(out / "latest" / "ledger")
    known = {str(uuid.UUID(bytes=bytes(item))) for item in ledger.ids}
    for finding in findings.values():
        assert finding.examples
        assert set(finding.examples) <= known
        assert finding.examples[0] in done.stdout


def test_every_task_of_the_ledger_is_accounted_for(guide_run):
    out, _done, manifest = guide_run
    account = manifest.account
    assert account.tasks == sum(row.tasks for row in account.rows if not row.transition)
    assert account.tasks == account.accepted == account.done
    assert account.tasks - account.pushed_tasks == 400 * 2 * 5
    ledger = read_ledger(out / "latest" / "ledger")
    done = ledger.records["event"] == Event.DONE
    assert int(done.sum()) - account.done == account.duplicated
    assert ledger.crashed == []


def test_every_process_announces_each_phase_and_its_version(guide_run):
    out, _done, _manifest = guide_run
    phases = ["redis_only", "dual_write", "dual_read", "nats_primary", "nats_only"]
    for name in ("producer-0", "producer-1", "worker-0", "worker-1"):
        text = (out / "latest" / "logs" / f"{name}.jsonl").read_text()
        said = [json.loads(line) for line in text.splitlines()]
        announced = [item for item in said if item["event"] == "phase"]
        assert [item["phase"] for item in announced] == phases, name
        assert [item["index"] for item in announced] == [0, 1, 2, 3, 4]
        assert {item["version"] for item in announced} == {hookbench.__version__}


def test_the_fleet_is_mixed_while_it_changes_phase(guide_run):
    """Producers before workers, in the same processes all along, and each process for itself."""
    out, _done, _manifest = guide_run
    ledger = read_ledger(out / "latest" / "ledger")
    records = ledger.records
    entered = records["event"] == Event.PHASE
    for index in (1, 2, 3, 4):
        rows = [row for row in entered.nonzero()[0] if records["value"][row] == index]
        rows.sort(key=lambda row: records["time_ns"][row])
        names = [ledger.writers[ledger.writer[row]] for row in rows]
        roles = [name.split(".")[0] for name in names]
        assert roles == ["producer", "producer", "worker", "worker", "harness"]
        first_ns, last_ns = records["time_ns"][rows[0]], records["time_ns"][rows[-2]]
        assert first_ns < last_ns
    assert len([name for name in ledger.writers if name.startswith(("worker", "producer"))]) == 4


def test_depths_are_sampled_until_the_drain_has_ended(guide_run):
    out, _done, manifest = guide_run
    lines = (out / "latest" / "samples.jsonl").read_bytes().splitlines()
    samples = [msgspec.json.decode(line) for line in lines]
    ledger = read_ledger(out / "latest" / "ledger")
    done_ns = ledger.records["time_ns"][ledger.records["event"] == Event.DONE]
    assert samples[-1]["time_ns"] > max(int(done_ns[-1]), manifest.steps[-1].end_ns)
    assert samples[-1]["ack_pending"] == 0


def test_the_cost_of_each_process_is_stored(guide_run):
    _out, _done, manifest = guide_run
    uses = {use.name: use for use in manifest.resources}
    assert {"redis", "nats", "worker-0", "worker-1", "producer-0", "producer-1"} <= set(uses)
    assert all(use.cpu_s > 0 and use.rss_max_bytes > 1_000_000 for use in uses.values())
    assert uses["redis"].written_bytes > 0  # its AOF


def test_what_the_brokers_were_is_stored_and_shown(guide_run):
    out, done, manifest = guide_run
    of_redis, of_nats = manifest.broker_reports
    assert (of_redis.name, of_nats.name) == ("redis", "nats")
    assert of_redis.durability == of_nats.durability == manifest.durability == "lazy"
    assert (of_redis.problem, of_nats.problem) == (None, None)
    assert of_redis.configuration["appendfsync"] == "everysec"
    assert of_nats.configuration["stream.storage"] == "file"
    assert of_nats.configuration["consumer.max_deliver"] == "3"
    for report in manifest.broker_reports:
        assert f"broker    {report.line}" in done.stdout
        assert f"broker    {report.line}" in (out / "latest" / "table.txt").read_text()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux counts a socket")
def test_the_network_bytes_of_each_process_agree_with_the_brokers(guide_run):
    _out, done, manifest = guide_run
    uses = {use.name: use for use in manifest.resources}
    brokers = {name: uses.pop(name) for name in ("redis", "nats")}
    for use in (*uses.values(), *brokers.values()):
        assert use.received_bytes > 0, use.name
        assert use.sent_bytes > 0, use.name
    # Each connection is counted at both of its ends. Only flushes of hooks have an end that is no
    # process of the fleet, and of a connection that closes, up to one sample's distance (0.5 s of
    # these 10 s) of its traffic may be missing at either end: hence 5 %.
    for mine, theirs in (("sent_bytes", "received_bytes"), ("received_bytes", "sent_bytes")):
        ours = sum(getattr(use, mine) for use in uses.values())
        of_brokers = sum(getattr(use, theirs) for use in brokers.values())
        assert ours == pytest.approx(of_brokers, rel=0.05), (mine, theirs)
    # Redis counts for itself, protocol included, and so is an independent witness.
    counted = manifest.broker_reports[0].counters["total_net_input_bytes"]
    assert brokers["redis"].received_bytes == pytest.approx(counted, rel=0.05)
    # NATS does not count its protocol: less than went over the wire.
    counted = manifest.broker_reports[1].counters["in_bytes"]
    assert 0 < counted < brokers["nats"].received_bytes
    assert done.stdout.count("B/task received / sent") == 4


def test_every_push_became_a_task_and_every_mirror_is_equal(guide_run):
    _out, _done, manifest = guide_run
    git = manifest.git
    assert git.pushes >= 15
    assert git.tasks == git.pushes
    assert git.equal == git.repositories == 3
    assert git.differences == []


def test_what_is_stored_is_what_was_printed(guide_run):
    out, done, manifest = guide_run
    shown = subprocess.run(
        [*COMMAND, "show", "latest", f"--out={out}"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "160"},
    )
    assert "verdict   design guide: INVALID" in shown.stdout
    assert (out / "latest" / "table.txt").read_text() == shown.stdout
    assert "P5" in done.stdout
    data = json.loads(
        subprocess.run(
            [*COMMAND, "show", "latest", "--json", f"--out={out}"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    )
    assert data["run"] == manifest.run
    assert not (out / "latest" / "work").exists()
    assert processes_of(out) == []


def test_the_checkers_say_the_same_of_the_stored_run(guide_run):
    out, _done, manifest = guide_run
    checked = subprocess.run(
        [*COMMAND, "check", "latest", "--json", f"--out={out}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 1
    again = msgspec.json.decode(checked.stdout, type=Manifest)
    assert again.account == manifest.account
    assert again.verdict == manifest.verdict


def test_the_life_of_one_task_is_told(guide_run):
    out, _done, manifest = guide_run
    replayed, repeated = [item for item in manifest.account.findings if item.hazard == "P5"]
    assert replayed.count == manifest.account.duplicated
    assert repeated.count == manifest.account.duplicated_effects > 0
    task = repeated.examples[0]
    told = subprocess.run(
        [*COMMAND, "show", "latest", f"--task={task}", f"--out={out}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    lines = told.splitlines()
    assert lines[0] == f"task {task}"
    order = [
        "is asked to put the task",
        "acknowledged by nats",
        "receives it from redis (attempt 1)",
        "starts to work on it",
        "is done with it",
        "receives it from nats (attempt 1)",
        "is done with it",
    ]
    at = 0
    for words in order:
        at = next(number for number, line in enumerate(lines) if number >= at and words in line) + 1
    assert "acknowledged by redis" in told  # a worker may have it before the producer hears so
    assert "done 2 times" in told
    assert "plain effect 2 times in the effect store, by worker.0000" in told
    for wrong in ("ffffffff", task[:2]):
        missing = subprocess.run(
            [*COMMAND, "show", "latest", f"--task={wrong}", f"--out={out}"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert missing.returncode == 2
        assert "begin" in missing.stderr


def test_a_killed_worker_is_replaced_and_its_tasks_are_accounted_for(tmp_path):
    # Workers that are busy for long: the one that is killed has tasks in hand for certain.
    process = subprocess.Popen(
        [
            *COMMAND,
            *QUICK,
            f"--out={tmp_path}",
            "--phases=0,3",
            "--service-ms=60",
            "--phase-seconds=4",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("workers"):
                victim = int(line.rsplit("pid ", 1)[1].split(",")[0])
            if line.startswith("nats_primary  00:06"):
                os.kill(victim, signal.SIGKILL)
                break
        text = "".join(lines) + process.stdout.read()
        assert process.wait() == 1, text
    assert f"(pid {victim}) was killed by SIGKILL, replaced by pid" in text
    manifest = load_manifest(resolve_run("latest", tmp_path))
    (crash,) = manifest.account.crashes
    assert crash.in_hand > 0
    assert crash.in_hand == crash.lost + crash.stuck + crash.done_by_others
    assert crash.lost == manifest.account.lost > 0  # acknowledged before it was processed
    (finding,) = [item for item in manifest.account.findings if item.hazard == "P10"]
    assert finding.count == crash.lost
    assert finding.row == "nats_primary"


@pytest.mark.parametrize(
    ("number", "after_s"),
    [(signal.SIGINT, 0.0), (signal.SIGINT, 1.5), (signal.SIGTERM, 4.5), (signal.SIGINT, 7.0)],
)
def test_an_interrupt_at_any_moment_leaves_no_process(tmp_path, number, after_s):
    process = subprocess.Popen(
        [*COMMAND, *QUICK, f"--out={tmp_path}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        deadline = time.monotonic() + 30
        while not list(tmp_path.glob("*.partial/run.json")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(after_s)
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        _out, err = process.communicate(timeout=40)
    _gone, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []
    assert processes_of(tmp_path) == []
    assert process.returncode == 130, err
    manifest = load_manifest(resolve_run("latest", tmp_path))
    assert manifest.status == "cut off"
    assert manifest.verdict == "unknown"
    assert "is kept, and marked as cut off" in err


async def test_somebody_elses_brokers_get_names_of_the_runs_own_and_are_left_clean(tmp_path):
    redis = start_redis(resolve_redis(env={"PATH": ""}), tmp_path / "brokers", Durability.MEMORY)
    nats = start_nats(resolve_nats(env={"PATH": ""}), tmp_path / "brokers", Durability.MEMORY)
    urls = (f"--redis-url={redis.url}", f"--nats-url={nats.url}")
    client = connect_redis(redis.url)
    try:
        await client.lpush("unrelated", b"kept")
        monitored = f"--nats-monitor-url={nats.monitor_url}"
        done = rehearse(tmp_path / "out", *urls, monitored, "--phases=1,3", "--phase-seconds=1")
        assert done.returncode in (0, 1), done.stderr
        manifest = load_manifest(resolve_run("latest", tmp_path / "out"))
        assert manifest.settings["durability"] == "lazy"
        assert manifest.durability == "redis memory, nats lazy"  # a stream on disk, synced each s
        assert manifest.unknown_because == []
        assert manifest.broker_reports[0].origin == f"redis at {redis.url}"
        assert await client.keys("*") == [b"unrelated"]
        async with await AppTransport.connect(nats.url) as transport:
            assert await transport.jetstream.streams_info() == []
        await client.lpush("{hook}:sync", b"somebody's")
        done = rehearse(tmp_path / "out", *urls)
        assert done.returncode == 2
        assert "already holds hook queue keys ({hook}:sync)" in done.stderr
        assert await client.lrange("{hook}:sync", 0, -1) == [b"somebody's"]
    finally:
        await client.aclose()
        redis.stop()
        nats.stop()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--design=best"], "--design 'best'"),
        (["--durability=tape"], "--durability 'tape'"),
        (["--phases=0,9"], "phase '9'"),
        (["--phases="], "phase ''"),
        (["--rate=0"], "rate of 0"),
        (["--rate=nan"], "rate of nan"),
        (["--workers=0"], "workers 0"),
        (["--phase-seconds=0.1"], "phase seconds 0.1"),
        (["--expect=guide=good"], "guide=good"),
        (["--expect=hardened=valid"], "hardened=valid"),
        (["--redis-url=redis://127.0.0.1:1"], "redis://127.0.0.1:1"),
        (["--nats-url=nats://127.0.0.1:1"], "nats://127.0.0.1:1"),
        (["--nats-url=http://127.0.0.1"], "use nats://host:port"),
        (["--nats-monitor-url=ftp://127.0.0.1"], "use http://host:port"),
        (["--no-such-option"], "--no-such-option"),
    ],
)
def test_bad_input_is_named_and_leaves_nothing(tmp_path, arguments, message):
    done = rehearse(tmp_path / "out", *arguments, timeout_s=40)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_results_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    done = rehearse(tmp_path / "file" / "results", timeout_s=40)
    assert done.returncode == 2
    assert "choose another one with --out" in done.stderr


def test_expectations_set_theexit_code(guide_run):
    from hookbench.cli.rehearse import exit_code  # noqa: PLC0415

    _out, _done, manifest = guide_run
    assert exit_code([manifest], None) == 1
    assert exit_code([manifest], {"guide": "invalid"}) == 0
    assert exit_code([manifest], {"guide": "valid"}) == 1


def test_doctor_says_what_would_be_used():
    done = subprocess.run(
        [*COMMAND, "doctor", "--json"], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert "starts and answers as 8.2" in checks["redis"]["text"]
    assert "starts and answers as 2." in checks["nats"]["text"]
    done = subprocess.run(
        [*COMMAND, "doctor", "--nats-url=nats://127.0.0.1:1"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert "nats://127.0.0.1:1" in done.stdout
