"""strace on a process that syncs a known number of times."""

import shutil
import signal
import sys

import pytest

from hookbench.brokers.process import spawn
from hookbench.clock import SystemClock
from hookbench.faults.sync_calls import SyncCalls
from tests.conftest import eventually

pytestmark = [
    pytest.mark.usefixtures("no_process_left"),
    pytest.mark.skipif(shutil.which("strace") is None, reason="there is no strace"),
]

SYNCS = """
import os, sys, time
ready, go, done = sys.argv[1:]
file = os.open(done + ".data", os.O_WRONLY | os.O_CREAT)
os.fsync(file)  # before anybody counts
open(ready, "w").close()
while not os.path.exists(go):
    time.sleep(0.01)
for call in (os.fsync, os.fdatasync, os.fdatasync):
    os.write(file, b"x")
    call(file)
open(done, "w").close()
time.sleep(60)
"""


@pytest.mark.parametrize("stopped", [False, True])
async def test_syncs_are_counted_from_the_beginning_on(tmp_path, stopped):
    clock = SystemClock()
    ready, go, done = tmp_path / "ready", tmp_path / "go", tmp_path / "done"
    child = spawn("syncs", [sys.executable, "-c", SYNCS, str(ready), str(go), str(done)])
    try:
        await eventually(ready.exists, what="the first sync")
        if stopped:
            child.pause()
        calls = await SyncCalls.begin([child.pid], tmp_path, clock)
        if stopped:
            child.signal(signal.SIGCONT)
        go.touch()
        await eventually(done.exists, what="three syncs")
        calls.look()
        child.kill()
        assert (calls.problem, await calls.end(clock)) == (None, 3)
    finally:
        child.kill()


async def test_a_process_that_is_gone_is_not_counted_as_none(tmp_path):
    child = spawn("nothing", ["/bin/true"])
    child.wait(5.0)
    calls = await SyncCalls.begin([child.pid], tmp_path, SystemClock())
    assert await calls.end(SystemClock()) is None
    assert calls.problem.startswith("strace: ")
