"""SIGKILL of a producer, a worker and the harness itself, in real rehearsals on real brokers."""

import os
import signal
import subprocess
import time

import msgspec
import psutil
import pytest

from hookbench.ledger.events import Event
from hookbench.ledger.read import read_ledger
from hookbench.results.store import Manifest, load_manifest, resolve_run
from tests.integration.conftest import COMMAND

LIMIT_S = 50.0
GONE_S = 10.0


class Rehearsal:
    """A rehearsal that is watched by what it says on stderr."""

    def __init__(self, out, *arguments):
        self.out = out
        self.lines = []
        self.deadline = time.monotonic() + LIMIT_S
        self.process = subprocess.Popen(
            [*COMMAND, "rehearse", "--push-interval=0.5", f"--out={out}", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    @property
    def text(self):
        return "".join(self.lines)

    def read_until(self, beginning):
        for line in self.process.stdout:
            self.lines.append(line)
            if line.startswith(beginning):
                return line
            assert time.monotonic() < self.deadline, self.text
        raise AssertionError(f"it ended before it said {beginning!r}: {self.text}")

    def wait(self):
        self.lines += self.process.stdout
        return self.process.wait(timeout=LIMIT_S)

    def wait_until(self, condition, what):
        while not condition():
            assert self.process.poll() is None, f"it ended before {what}"
            assert time.monotonic() < self.deadline, f"no {what}: {self.text}"
            time.sleep(0.01)

    def children(self, verb=""):
        """Its processes, and what these started, whose command line has ``verb``."""
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            try:
                if verb in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
        return found

    def left(self):
        """Processes whose command line names its folder."""
        return [
            process.info
            for process in psutil.process_iter(["pid", "cmdline"])
            if any(str(self.out) in part for part in process.info["cmdline"] or [])
        ]

    def check(self, run):
        checked = subprocess.run(
            [*COMMAND, "check", str(run), "--json"], capture_output=True, text=True, check=False
        )
        return checked.returncode, msgspec.json.decode(checked.stdout, type=Manifest)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def rehearse(tmp_path):
    started = []

    def start(*arguments):
        started.append(Rehearsal(tmp_path / "out", *arguments))
        return started[-1]

    yield start
    for rehearsal in started:
        rehearsal.close()


def test_the_load_that_a_killed_producer_did_not_offer_is_no_success(rehearse):
    run = rehearse("--phases=0", "--phase-seconds=4", "--rate=400")
    run.read_until("redis_only ")
    victim = run.children(" produce ")[0].pid
    os.kill(victim, signal.SIGKILL)
    assert run.wait() == 3, run.text
    manifest = load_manifest(resolve_run("latest", run.out))
    account = manifest.account
    offered = account.tasks - account.pushed_tasks
    assert 800 <= offered < 1600  # all of the other one's, and some of its own
    reason = f"the load was not as planned: {offered:,} of 1,600 synthetic tasks were offered"
    assert (manifest.verdict, manifest.unknown_because) == ("unknown", [reason])
    assert f"unknown   {reason}" in run.text
    (incident,) = manifest.incidents
    assert incident.what.startswith("producer-")
    assert f"(pid {victim}) was killed by SIGKILL, replaced by pid " in incident.what
    assert f"incident  {incident.what}" in run.text
    # What it had begun to put may be there or not; what it had put is done.
    assert account.tasks == account.accepted + account.refused + account.doubtful
    assert (account.lost, account.stuck, account.unexpected) == (0, 0, 0)
    ledger = read_ledger(run.out / "latest" / "ledger")
    assert [name.split(".")[0] for name in ledger.crashed] == ["producer"]
    code, checked = run.check(run.out / "latest")
    assert (code, checked.unknown_because) == (3, [reason])


def test_what_a_killed_worker_had_in_hand_is_found_in_the_work_list(rehearse):
    """On Redis nobody gives it back (hazard R3): stuck, and the verdict says so."""
    run = rehearse("--phases=0", "--phase-seconds=3", "--rate=400", "--service-ms=60")
    run.read_until("redis_only    00:01")
    victim = run.children(" worker ")[0].pid
    os.kill(victim, signal.SIGKILL)
    assert run.wait() == 1, run.text
    manifest = load_manifest(resolve_run("latest", run.out))
    (crash,) = manifest.account.crashes
    assert crash.in_hand == crash.stuck > 0
    # More are stuck where it died between the move into the work list and its record of it.
    assert manifest.account.stuck >= crash.stuck
    assert {name.split("/")[0] for name in manifest.account.rows[0].stuck} == {"redis-work"}
    assert manifest.account.lost == 0
    assert manifest.verdict == "invalid"
    assert f"(pid {victim}) was killed by SIGKILL, replaced by pid" in run.text
    assert {item.hazard for item in manifest.account.findings} == {"R3"}
    code, checked = run.check(run.out / "latest")
    assert (code, checked.account) == (1, manifest.account)


def preparing(run):
    run.read_until("run ")


def in_a_phase(run):
    run.read_until("dual_write ")


def draining(run):
    """The producers have ended, and the workers have not done what they left."""
    run.read_until("dual_write ")
    run.wait_until(lambda: not run.children(" produce "), "end of the producers")
    assert run.children(" worker ")


@pytest.mark.parametrize("moment", [preparing, in_a_phase, draining])
def test_a_killed_rehearsal_leaves_no_process_and_no_run_that_looks_whole(rehearse, moment):
    # One worker that is slow: what is left to do at the end takes it ten seconds.
    run = rehearse(
        "--phases=0,1", "--phase-seconds=2", "--rate=400", "--workers=1", "--service-ms=200"
    )
    moment(run)
    children = run.children()
    run.process.kill()
    run.process.wait()
    assert len(children) >= 2
    _gone, alive = psutil.wait_procs(children, timeout=GONE_S)
    assert alive == []
    deadline = time.monotonic() + GONE_S  # pushes under way, and the flush that they start
    while run.left() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert run.left() == []

    (partial,) = run.out.iterdir()
    assert partial.name.endswith(".partial")
    manifest = load_manifest(partial)
    assert (manifest.status, manifest.verdict) == ("running", "unknown")
    shown = subprocess.run(
        [*COMMAND, "show", str(partial)], capture_output=True, text=True, check=False
    )
    assert shown.returncode == 0, shown.stderr
    assert "UNKNOWN" in shown.stdout
    code, checked = run.check(partial)
    assert (code, checked.verdict) == (3, "unknown")
    if moment is preparing:
        assert checked.account is None
        assert "check: nothing to account for" in checked.unknown_because[0]
        return
    assert "not at its end" in shown.stdout
    reason = "what was left on the brokers was not recorded"
    assert [item.split(" ")[:2] for item in checked.unknown_because] == [
        ["invariant", "1"],
        ["invariant", "5"],
    ]
    assert all(reason in item for item in checked.unknown_because)
    # Nothing is called lost, or valid, that nobody can know.
    assert (checked.account.lost, checked.account.stuck) == (0, 0)
    assert {row.verdict for row in checked.account.rows} == {"unknown"}
    begun = [row.name for row in checked.account.rows if not row.transition]
    assert begun == ["redis_only", "dual_write"]
    ledger = read_ledger(partial / "ledger", same_boot=True)
    assert checked.account.tasks > 0
    assert checked.account.effects > 0
    assert checked.account.done == int((ledger.records["event"] == Event.DONE).sum())
    offered = checked.account.tasks - checked.account.pushed_tasks
    if moment is draining:
        assert offered == 1600
        assert checked.account.done < 1600
    else:
        assert offered < 1600
