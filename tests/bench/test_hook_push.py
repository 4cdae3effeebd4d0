"""What the hook adds to a push: the same push with and without it, in turn, both brokers down.

A round is one push to the repository with the hook; its yardstick, one push to a repository
without a hook, runs right before it and is not part of the round. ``idle``: no flush runs, so each
push starts one. ``flushing``: a flush runs and keeps trying, so a push only spools its task.
"""

import os
import statistics
import subprocess
import sys
import time

import psutil
import pytest

from hookbench.brokers.ports import free_port
from hookbench.githook.config import HookConfig
from hookbench.githook.install import install_hook
from hookbench.githook.receive import flush_is_running, lock_path
from hookbench.migration.spool import Spool
from tests.bench.conftest import TALKS

ROUNDS = 30
WARMUP_ROUNDS = 2
FLUSH_DEADLINE_S = 30.0
LARGEST_RATIO = 40.0
"""A hooked push to a plain one. Far above what is measured (2 to 3), far below a push that waits
for a broker, for a flush, or for the lock of either."""

ENVIRONMENT = {
    **os.environ,
    "GIT_AUTHOR_NAME": "T",
    "GIT_AUTHOR_EMAIL": "t@example.com",
    "GIT_COMMITTER_NAME": "T",
    "GIT_COMMITTER_EMAIL": "t@example.com",
}


def git(*arguments):
    subprocess.run(
        ["git", *map(str, arguments)], env=ENVIRONMENT, check=True, capture_output=True, timeout=60
    )


class Remote:
    """A bare repository, and a clone to push from; it keeps the time of every push."""

    def __init__(self, folder):
        self.origin = folder / "app.git"
        self.clone = folder / "clone"
        self.pushes_s = []
        git("init", "--bare", "-b", "main", self.origin)
        git("clone", self.origin, self.clone)

    def commit(self):
        git("-C", self.clone, "commit", "--allow-empty", "-m", "change")

    def push(self):
        started = time.perf_counter()
        git("-C", self.clone, "push", "--quiet", "origin", "HEAD:main")
        self.pushes_s.append(time.perf_counter() - started)

    def median_s(self, skip):
        return statistics.median(self.pushes_s[skip:])


class Hooked(Remote):
    """One with the hook installed, for brokers that are down."""

    def __init__(self, folder):
        super().__init__(folder)
        self.spool = folder / "spool.sqlite"
        install_hook(
            self.origin,
            HookConfig(
                repo_id="app.git",
                spool=str(self.spool),
                phase="dual_write",
                redis_url=f"redis://127.0.0.1:{free_port()}",
                nats_url=f"nats://127.0.0.1:{free_port()}",
            ),
        )

    def waiting(self):
        with Spool(self.spool) as spool:
            return len(spool)

    def flush_pid(self):
        """The process id of the flush that runs, else ``None``."""
        if not flush_is_running(self.spool):
            return None
        text = lock_path(self.spool).read_text().strip()
        return int(text) if text else None

    def await_flush(self):
        deadline = time.monotonic() + FLUSH_DEADLINE_S
        while (pid := self.flush_pid()) is None:
            assert time.monotonic() < deadline, "no flush started"
            time.sleep(0.02)
        return pid

    def end_flush(self):
        process = psutil.Process(self.await_flush())
        process.kill()  # what it had not handed over is in the spool
        process.wait(timeout=FLUSH_DEADLINE_S)


@pytest.fixture
def plain(tmp_path):
    folder = tmp_path / "plain"
    folder.mkdir()
    return Remote(folder)


@pytest.fixture
def hooked(tmp_path):
    folder = tmp_path / "hooked"
    folder.mkdir()
    remote = Hooked(folder)
    yield remote
    if remote.pushes_s:
        remote.end_flush()


@pytest.mark.benchmark(group="hook: one push, brokers down")
@pytest.mark.parametrize("flush", ["idle", "flushing"])
def test_push(benchmark, capsys, plain, hooked, flush):
    for remote in (plain, hooked):
        remote.commit()
        remote.push()  # the first one creates the branch, and here the spool's first flush
    hooked.await_flush()

    def prepare():
        if flush == "idle":
            hooked.end_flush()
        plain.commit()
        hooked.commit()
        plain.push()

    benchmark.pedantic(hooked.push, setup=prepare, rounds=ROUNDS, warmup_rounds=WARMUP_ROUNDS)
    assert hooked.waiting() == len(hooked.pushes_s) == len(plain.pushes_s)
    assert hooked.await_flush(), "the push ended its flush"
    skip = 1 + WARMUP_ROUNDS if benchmark.enabled else 1
    plain_s, hooked_s = plain.median_s(skip), hooked.median_s(skip)
    assert hooked_s / plain_s < LARGEST_RATIO, f"{hooked_s:.3f} s with, {plain_s:.3f} s without"
    if benchmark.enabled:
        benchmark.extra_info |= {
            "plain_median_s": plain_s,
            "added_median_s": hooked_s - plain_s,
            "yardstick_s": plain.pushes_s[skip:],
            "least_effect": TALKS,
        }
        with capsys.disabled():
            sys.stdout.write(
                f"\nmedians of a push, {flush}: {plain_s * 1000:.1f} ms without the hook,"
                f" {hooked_s * 1000:.1f} ms with it, {(hooked_s - plain_s) * 1000:.1f} ms added\n"
            )
