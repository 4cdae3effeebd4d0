"""Stored runs that were damaged, and disks that are full."""

import json
import os
import shutil
import signal
import subprocess
import uuid

import numpy as np
import psutil
import pytest

from hookbench.ledger.events import HEADER, HEADER_BYTES, RECORD_BYTES, Event
from hookbench.ledger.read import RECORD_DTYPE, read_ledger
from hookbench.results.store import load_manifest
from tests.integration.conftest import COMMAND


def hookbench(*arguments):
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=55, check=False
    )


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """A run of two phases that comes out valid."""
    out = tmp_path_factory.mktemp("whole")
    done = hookbench(
        "rehearse", "--phases=0,1", "--phase-seconds=1", "--rate=200", "--push-interval=0.5",
        f"--out={out}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture
def stored(whole_run, tmp_path):
    """A copy of it to damage: the results folder, and the folder of the run."""
    out = tmp_path / "results"
    shutil.copytree(whole_run, out, symlinks=True)
    return out, (out / "latest").resolve()


def segment(run, role):
    return min((run / "ledger").glob(f"{role}*.ledger"))


def change_header(path, **changes):
    data = bytearray(path.read_bytes())
    names = ("magic", "schema", "record_bytes", "capacity", "pid", "boot", "role")
    fields = dict(zip(names, HEADER.unpack_from(data), strict=True)) | changes
    HEADER.pack_into(data, 0, *fields.values())
    path.write_bytes(data)


def change_record(path, kind, **changes):
    """In the middle: the tenth record of a kind of event."""
    data = path.read_bytes()
    records = np.frombuffer(data[HEADER_BYTES:], dtype=RECORD_DTYPE).copy()
    row = np.flatnonzero(records["event"] == kind)[9]
    for name, value in changes.items():
        records[name][row] = value
    path.write_bytes(data[:HEADER_BYTES] + records.tobytes())


def cut(path, size):
    path.write_bytes(path.read_bytes()[:size])


# Which segment, what is done to it, what is said of it.
DAMAGES = {
    "zero bytes": ("worker", lambda p: cut(p, 0), "0 bytes, shorter than its header"),
    "within the header": ("producer", lambda p: cut(p, 50), "50 bytes, shorter than its header"),
    "in a record": ("worker", lambda p: cut(p, HEADER_BYTES + 40 * RECORD_BYTES + 9), "after 40"),
    "magic": ("producer", lambda p: change_header(p, magic=b"NOLEDGER"), "no ledger"),
    "record size": ("worker", lambda p: change_header(p, record_bytes=47), "records of 47 bytes"),
    "role": ("worker", lambda p: change_header(p, role=b"producer"), "names the writer"),
    "newer": ("hook", lambda p: change_header(p, schema=99), "schema 99"),
    "other boot": ("producer", lambda p: change_header(p, boot=b"x" * 16), "another boot"),
    "event": ("worker", lambda p: change_record(p, Event.DONE, event=250), "with event 250"),
    "broker": ("worker", lambda p: change_record(p, Event.DONE, broker=77), "with broker 77"),
    "phase": ("producer", lambda p: change_record(p, Event.PUT_INVOKED, phase=2), "with phase 2"),
    "time zero": ("worker", lambda p: change_record(p, Event.DONE, time_ns=0), "with time_ns 0"),
    "long ago": ("worker", lambda p: change_record(p, Event.DONE, time_ns=1), "with a time out"),
    "the harness": ("harness", lambda p: cut(p, 0), "harness.00000.0000.ledger: 0 bytes"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_the_rest_of_a_damaged_run_is_checked_and_its_verdict_is_unknown(stored, name, forks):
    out, run = stored
    role, damage, message = DAMAGES[name]
    path = segment(run, role)
    damage(path)
    checked = forks.call("hookbench", ["check", f"--out={out}", "--json"])
    assert checked.returncode == 3, checked.stderr
    assert checked.stderr == ""
    manifest = json.loads(checked.stdout)
    assert manifest["verdict"] == "unknown"
    (reason,) = manifest["unknown_because"]
    assert reason.startswith(f"check: segment {path.name}: ")
    assert message in reason
    assert manifest["account"]["tasks"] >= 200
    assert manifest["account"]["done"] >= 100
    assert not [item for item in manifest["account"]["invariants"] if "crashed" in item["reason"]]


def test_a_segment_that_is_damaged_while_the_run_lasts_makes_its_verdict_unknown(tmp_path):
    """The run goes on to its end and accounts for the rest."""
    process = subprocess.Popen(
        [
            *COMMAND,
            "rehearse",
            "--phases=0",
            "--phase-seconds=2",
            "--rate=200",
            f"--out={tmp_path}",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        for line in process.stderr:
            if line.startswith("workers "):
                (ledger,) = tmp_path.glob("*.partial/ledger")
                (ledger / "worker.00099.0000.ledger").write_bytes(b"")
        out = process.stdout.read()
    assert process.returncode == 3
    reason = "segment worker.00099.0000.ledger: 0 bytes, shorter than its header of 128"
    assert f"unknown   check: {reason}" in out
    manifest = load_manifest(tmp_path / "latest")
    assert manifest.status == "complete"
    assert manifest.unknown_because == [f"check: {reason}"]
    assert manifest.account.tasks - manifest.account.pushed_tasks == 400
    checked = hookbench("check", f"--out={tmp_path}")
    assert checked.returncode == 3
    assert checked.stdout.count(reason) == 1


def test_what_is_said_of_a_damaged_run(stored):
    """show, show --task and the report go on with what is there, and say what is not."""
    out, run = stored
    before = hookbench("show", f"--out={out}")
    ledger = read_ledger(run / "ledger")
    done = ledger.records["event"] == Event.DONE
    worker = ledger.writers[ledger.writer[done][0]]
    task = str(uuid.UUID(bytes=bytes(ledger.ids[ledger.task[done][0]])))
    cut(run / "ledger" / f"{worker}.0000.ledger", 0)
    shown = hookbench("show", f"--out={out}")
    assert (shown.returncode, shown.stdout) == (0, before.stdout)
    told = hookbench("show", f"--out={out}", f"--task={task}")
    assert told.returncode == 0, told.stderr
    assert "is asked to put the task" in told.stdout
    assert "is done with it" not in told.stdout
    assert f"may be incomplete: damaged segment {worker}.0000.ledger: 0 bytes" in told.stdout
    reported = hookbench("report", f"--out={out}")
    assert reported.returncode == 0, reported.stderr
    page = (run / "report.html").read_text()
    assert f"segment {worker}.0000.ledger: 0 bytes" in page
    assert "its ledger was damaged since: hookbench check" in page


@pytest.mark.parametrize("how", ["no folder", "an empty folder", "nothing readable"])
def test_a_run_without_a_readable_ledger_is_a_clear_error(stored, how):
    out, run = stored
    ledger = run / "ledger"
    if how == "nothing readable":
        for path in ledger.iterdir():
            cut(path, 0)
    else:
        shutil.rmtree(ledger)
    if how == "an empty folder":
        ledger.mkdir()
    assert hookbench("show", f"--out={out}").returncode == 0
    for arguments in (["check"], ["show", "--task=0"]):
        failed = hookbench(*arguments, f"--out={out}")
        assert failed.returncode == 2, failed.stdout
        assert failed.stderr.startswith("hookbench: ")
        assert str(ledger) in failed.stderr
        assert len(failed.stderr.splitlines()) == 1
    if how == "an empty folder":
        failed = hookbench("report", f"--out={out}")
        assert failed.returncode == 2, failed.stdout
        assert f"complete, but {ledger} holds no ledger segments" in failed.stderr
        assert failed.stderr.splitlines()[-1].startswith("hookbench: ")
        assert not (run / "report.html").exists()
    checked = hookbench("check", f"--out={out}").stderr
    assert ("there is no such folder" in checked) == (how == "no folder")
    assert ("0 bytes, shorter than its header" in checked) == (how == "nothing readable")


NAMESPACES = (["unshare", "-m"], ["unshare", "-rm"])
MOUNT = 'mount -t tmpfs -o size="$0" tmpfs "$1"'


@pytest.fixture(scope="module")
def tmpfs_prefix(tmp_path_factory):
    """The command that gives another one mounts of its own, which end with it."""
    folder = tmp_path_factory.mktemp("probe")
    for prefix in NAMESPACES:
        try:
            probe = subprocess.run(
                [*prefix, "sh", "-c", MOUNT, "1m", str(folder)], capture_output=True, check=False
            )
        except OSError:
            continue
        if probe.returncode == 0:
            return prefix
    return pytest.skip(
        "no small disk to fill: neither `unshare -m` nor `unshare -rm` may mount a tmpfs here; run"
        " the tests as root, or allow user namespaces (sysctl kernel.unprivileged_userns_clone=1)"
    )


@pytest.fixture
def on_small_disk(tmpfs_prefix, tmp_path):
    """Run a script with a small disk at ``$disk``; what is on it at the end is copied out."""
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    kept.mkdir()

    def run(size, script, *arguments):
        """The finished process, and the folder with what was on the disk."""
        text = f"""
            {MOUNT} || exit 99
            disk="$1" kept="$2"
            shift 2
            {script}
            cp -a "$disk/." "$kept"
            exit $code
        """
        command = [*tmpfs_prefix, "sh", "-c", text, size, disk, kept, *COMMAND, *arguments]
        process = subprocess.Popen(
            list(map(str, command)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            out, err = process.communicate(timeout=55)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise
        return subprocess.CompletedProcess(command, process.returncode, out, err), kept

    yield run
    assert [
        process.info
        for process in psutil.process_iter(["cmdline"])
        if any(str(disk) in part for part in process.info["cmdline"] or [])
    ] == []


REHEARSE = ("rehearse", "--phase-seconds=6", "--rate=1000", "--push-interval=0.5")


def check_cut_off(done, kept, tmp_path, *, keep=False):
    """One clear line, and a run that can be read."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "never retrieved" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("hookbench: ")]
    assert len(errors) == 1, done.stderr
    assert f"results folder {tmp_path}/disk/results: its disk is full" in errors[0]
    assert "--out" in errors[0]
    results = kept / "results"
    manifest = load_manifest(results / "latest")
    assert (manifest.status, manifest.verdict) == ("cut off", "unknown")
    assert errors[0].removeprefix("hookbench: ") in manifest.unknown_because[0]
    assert sorted(item.name for item in results.iterdir()) == [manifest.run, "latest"]
    left = {item.name for item in (results / "latest").iterdir()}
    assert left & {"work", "table.txt"} == ({"work"} if keep else set())
    assert not (results / "latest" / "work" / "reserve").exists()
    assert not [name for name in left if name.startswith(".")]
    ledger = read_ledger(results / "latest" / "ledger", same_boot=True)
    assert (ledger.records["event"] == Event.DONE).sum() > 0
    shown = hookbench("show", f"--out={results}")
    assert shown.returncode == 0, shown.stderr
    assert "unknown   cut off: results folder" in shown.stdout
    checked = hookbench("check", f"--out={results}")
    assert checked.returncode == 3, checked.stderr
    assert "cut off: results folder" in checked.stdout
    assert "verdict   design guide: UNKNOWN" in checked.stdout
    return manifest


def test_a_disk_that_fills_up_cuts_the_run_off_in_order(on_small_disk, tmp_path):
    done, kept = on_small_disk("32m", '"$@" --out="$disk/results"; code=$?', *REHEARSE)
    manifest = check_cut_off(done, kept, tmp_path)
    assert len(manifest.brokers) == 2
    assert "redis_only" in done.stderr


@pytest.mark.parametrize("more", [[], ["--keep"]])
def test_a_disk_that_is_full_from_one_moment_to_the_next_cuts_the_run_off(
    on_small_disk, tmp_path, more
):
    """No room for anything: samples, phase files, logs, spool, and the brokers' own data.

    With --keep nothing of it is removed, and what was held back is all the room there is.
    """
    script = """
        { "$@" --out="$disk/results" & }
        until grep -q '"done": [1-9]' "$disk"/results/*.partial/logs/worker-0.jsonl
        do sleep 0.05; done 2>/dev/null
        dd if=/dev/zero of="$disk/somebody" bs=4k 2>/dev/null
        wait $!; code=$?
        rm "$disk/somebody"
    """
    done, kept = on_small_disk("64m", script, *REHEARSE, *more)
    check_cut_off(done, kept, tmp_path, keep=bool(more))


def test_a_disk_that_is_too_full_at_the_start_is_refused(on_small_disk, tmp_path):
    done, kept = on_small_disk("6m", '"$@" --out="$disk/results"; code=$?', *REHEARSE)
    assert done.returncode == 2
    assert done.stderr.startswith(
        f"hookbench: results folder {tmp_path}/disk/results: its disk is full (6.0 MiB free"
    )
    assert len(done.stderr.splitlines()) == 1
    assert list(kept.iterdir()) == []


def test_a_producer_without_room_for_its_next_segment_says_so_and_ends(
    on_small_disk, redis_broker, names
):
    """Its first segment fits, the second one does not: nothing that it wrote is lost."""
    done, kept = on_small_disk(
        "4m",
        'mkdir "$disk/ledger" && "$@" --ledger="$disk/ledger"; code=$?',
        "produce",
        "--phase=redis_only",
        f"--redis-url={redis_broker.url}",
        f"--prefix={names.prefix}",
        "--rate=1000000",
        "--count=60000",
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "0001.ledger of 3145856 bytes: no room left; free some room" in done.stderr
    ledger = read_ledger(kept / "ledger", same_boot=True)
    assert len(ledger.records) == 65_536
    assert [path.name for path in (kept / "ledger").iterdir()] == ["producer.00000.0000.ledger"]


def test_a_worker_without_room_for_its_next_segment_says_so_and_ends(
    on_small_disk, redis_broker, names
):
    arguments = [
        f"--redis-url={redis_broker.url}",
        f"--prefix={names.prefix}",
        "--phase=redis_only",
    ]
    put = hookbench("produce", *arguments, "--rate=1000000", "--count=20000")
    assert put.returncode == 0, put.stderr
    done, kept = on_small_disk(
        "4m",
        'mkdir "$disk/ledger" && "$@" --ledger="$disk/ledger"; code=$?',
        "worker",
        *arguments,
        "--concurrency=64",
    )
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("hookbench: ledger segment ")
    assert "no room left; free some room" in last
    assert len(read_ledger(kept / "ledger", same_boot=True).records) == 65_536
