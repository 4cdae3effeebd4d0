"""A rehearsal that is cut off leaves no flush of its hooks, and ends nobody else's."""

import subprocess
import sys

import psutil
import pytest

from hookbench.rehearsal.pushes import Pusher, PushSettings


@pytest.fixture
def flush():
    """A process with the command line of a flush."""
    started = []

    def start(config):
        words = ["hook", "flush", "--config", str(config)]
        started.append(
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", *words])
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


async def test_flushes_of_its_own_repositories_end_and_no_others(tmp_path, clock, flush):
    settings = PushSettings(
        origins=tmp_path / "origins",
        clones=tmp_path / "clones",
        spool=tmp_path / "spool.sqlite",
        repositories=1,
        interval_s=1.0,
        count=1,
        seed=1,
    )
    ours = flush(tmp_path / "origins" / "team" / "a.git" / "hook.json")
    others = flush(tmp_path / "origins-of-others" / "a.git" / "hook.json")
    await Pusher(settings, clock=clock).stop_flushes()
    assert not psutil.pid_exists(ours.pid)
    assert others.poll() is None
