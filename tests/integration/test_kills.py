"""SIGKILL of a producer and of the harness: what is left can be read, the verdict is right."""

import os
import signal
import subprocess
import time

import psutil
import pytest

from hookbench.results.check import check_run
from hookbench.results.store import load_manifest, resolve_run
from tests.integration.conftest import COMMAND
from tests.integration.test_rehearsal import QUICK, processes_of

DEADLINE_S = 60.0


def start(out, *arguments):
    return subprocess.Popen(
        [*COMMAND, *QUICK, f"--out={out}", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def command_line(process):
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def running(process, verb):
    """The worker or producer processes of a rehearsal."""
    try:
        children = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return [child for child in children if verb in command_line(child)[:4]]


def wait_until(condition, what):
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def test_a_killed_producer_makes_the_verdict_unknown_and_every_task_is_accounted_for(tmp_path):
    process = start(tmp_path, "--phases=0,3", "--phase-seconds=3")
    with process:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("redis_only    00:"):
                victim = running(process, "produce")[0].pid
                os.kill(victim, signal.SIGKILL)
                break
        text = "".join(lines) + process.stdout.read()
        assert process.wait() == 3, text
    assert f"(pid {victim}) was killed by SIGKILL, not replaced" in text
    manifest = load_manifest(resolve_run("latest", tmp_path))
    assert manifest.status == "complete"
    assert manifest.verdict == "unknown"
    account = manifest.account
    planned = 400 * 3 * 2
    synthetic = account.tasks - account.pushed_tasks
    assert planned / 2 < synthetic < planned
    assert manifest.unknown_because == [
        f"the load was not as planned: {synthetic:,} of {planned:,} synthetic tasks were offered"
    ]
    # What its callers were told is what they can hold it to; the rest is one end or none.
    assert account.accepted + account.refused + account.doubtful == account.tasks
    assert account.accepted <= account.done <= account.tasks
    assert (account.lost, account.stuck) == (0, 0)
    assert manifest.git.equal == manifest.git.repositories


def in_preparation(process):
    """The repositories are being made: no worker yet."""
    wait_until(lambda: psutil.Process(process.pid).children(), "no child of the rehearsal")
    time.sleep(0.3)


def in_a_phase(process):
    for line in process.stdout:
        if line.startswith("dual_write    00:02"):
            return


def in_the_drain(process):
    """The producers have ended, and the workers have a backlog."""
    wait_until(lambda: running(process, "produce"), "no producer")
    wait_until(lambda: not running(process, "produce"), "a producer that does not end")
    assert running(process, "worker")
    assert process.poll() is None


@pytest.mark.parametrize(
    ("moment", "checked"), [(in_preparation, False), (in_a_phase, True), (in_the_drain, True)]
)
def test_a_killed_harness_leaves_no_process_and_a_run_that_can_be_read(tmp_path, moment, checked):
    slow = ["--phases=0,1", "--phase-seconds=2", "--rate=1000", "--service-ms=120"]
    process = start(tmp_path, *slow)
    with process:
        moment(process)
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
    assert children
    _gone, alive = psutil.wait_procs(children, timeout=15)
    assert alive == []
    wait_until(lambda: processes_of(tmp_path) == [], "a process of the run is left")
    (partial,) = [path for path in tmp_path.iterdir() if path.name != "latest"]
    assert partial.name.endswith(".partial")
    manifest = load_manifest(partial)
    assert (manifest.status, manifest.verdict) == ("running", "unknown")
    shown = subprocess.run(
        [*COMMAND, "show", str(partial)], capture_output=True, text=True, check=False
    )
    assert shown.returncode == 0, shown.stderr
    again = subprocess.run(
        [*COMMAND, "check", str(partial)], capture_output=True, text=True, check=False
    )
    assert again.returncode == 3, again.stderr
    if not checked:
        assert "nothing to account for" in again.stdout
        return
    account = check_run(partial).account
    assert account.accepted > 0
    assert account.done > 0
    assert account.effects > 0
