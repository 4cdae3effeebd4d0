"""Real pushes, with the real hook."""

import contextlib
import dataclasses
import json
import os
import subprocess
import time

import psutil
import pytest

from hookbench.brokers.durability import Durability
from hookbench.brokers.embedded import start_nats, start_redis
from hookbench.brokers.ports import free_port
from hookbench.brokers.resolve import resolve_nats, resolve_redis
from hookbench.githook.config import CONFIG_NAME, read_config, write_config
from hookbench.githook.locks import flush_is_running
from hookbench.migration.spool import Spool
from hookbench.queues.redis_client import connect_redis
from hookbench.task import Names, decode_task
from tests.conftest import eventually
from tests.integration.conftest import COMMAND

PUSH_LIMIT_S = 20.0
FLUSH_START_LIMIT_S = 30.0


def run(*arguments, cwd=None, check=True):
    environment = {
        **os.environ,
        "GIT_AUTHOR_NAME": "T",
        "GIT_AUTHOR_EMAIL": "t@example.com",
        "GIT_COMMITTER_NAME": "T",
        "GIT_COMMITTER_EMAIL": "t@example.com",
    }
    return subprocess.run(
        arguments, cwd=cwd, env=environment, check=check, capture_output=True, text=True, timeout=60
    )


class Repository:
    """A bare repository with the hook, and a clone to push from."""

    def __init__(self, folder, redis_port, nats_port):
        self.origin = folder / "app.git"
        self.clone = folder / "clone"
        run("git", "init", "--bare", "-b", "main", str(self.origin))
        run("git", "clone", str(self.origin), str(self.clone))
        self.config = self.origin / CONFIG_NAME
        self.spool = self.origin / "hookbench-spool.sqlite"
        self.install(
            "--phase=dual_write",
            f"--redis-url=redis://127.0.0.1:{redis_port}",
            f"--nats-url=nats://127.0.0.1:{nats_port}",
            "--storage=memory",
        )
        # A flush ends with this process, whatever becomes of the test.
        owned = dataclasses.replace(read_config(self.config), owner_pid=os.getpid())
        write_config(self.origin, dataclasses.replace(owned, flush_for_s=60.0))

    def install(self, *arguments, check=True):
        return run(*COMMAND, "hook", "install", str(self.origin), *arguments, check=check)

    def push(self):
        run("git", "commit", "--allow-empty", "-m", "change", cwd=self.clone)
        started = time.monotonic()
        pushed = run("git", "push", "origin", "main", cwd=self.clone)
        return pushed, time.monotonic() - started

    def head(self):
        return run("git", "rev-parse", "main", cwd=self.origin).stdout.strip()

    def waiting(self):
        with Spool(self.spool) as spool:
            return len(spool)

    def push_and_await_flush(self):
        self.push()
        deadline = time.monotonic() + FLUSH_START_LIMIT_S
        while not flush_is_running(self.spool):
            assert time.monotonic() < deadline, "no flush started"
            time.sleep(0.02)

    def end_flush(self):
        """End a detached flush by the id in its lock file, which it writes when it has the lock."""
        lock = self.origin / "hookbench-spool.sqlite.lock"
        deadline = time.monotonic() + FLUSH_START_LIMIT_S
        while flush_is_running(self.spool):
            assert time.monotonic() < deadline, "the flush does not end"
            text = lock.read_text().strip()
            with contextlib.suppress(psutil.NoSuchProcess):
                if text:  # of the flush before, perhaps
                    flush = psutil.Process(int(text))
                    flush.terminate()
                    flush.wait(timeout=15)
            time.sleep(0.02)


@pytest.fixture
def repository(tmp_path):
    made = Repository(tmp_path, free_port(), free_port())
    yield made
    made.end_flush()


async def test_a_push_with_both_brokers_down_succeeds_and_its_task_arrives_later(tmp_path):
    redis_port, nats_port = free_port(), free_port()
    repository = Repository(tmp_path, redis_port, nats_port)
    brokers = []
    try:
        for _ in range(3):
            pushed, took_s = repository.push()
            assert pushed.returncode == 0
            assert took_s < PUSH_LIMIT_S, "the push waited for a broker"
        assert repository.waiting() == 3
        folder = tmp_path / "brokers"
        for start, resolve, port in (
            (start_redis, resolve_redis, redis_port),
            (start_nats, resolve_nats, nats_port),
        ):
            brokers.append(start(resolve(env={"PATH": ""}), folder, Durability.MEMORY, port=port))
        await eventually(lambda: repository.waiting() == 0, timeout_s=30)
        client = connect_redis(brokers[0].url)
        data = await client.lrange(Names().pending_key("sync"), 0, -1)
        await client.aclose()
        tasks = [decode_task(item) for item in reversed(data)]
        assert len(tasks) == 3
        assert {task.repo_id for task in tasks} == {"app.git"}
        assert tasks[-1].payload["refs"][0]["new"] == repository.head()
        assert tasks[-1].payload["refs"][0]["ref"] == "refs/heads/main"
    finally:
        repository.end_flush()
        for broker in brokers:
            broker.stop()


def test_flush_says_what_is_left(repository):
    repository.push()
    repository.end_flush()
    done = run(
        *COMMAND, "hook", "flush", "--config", str(repository.config), "--wait", "0.5", check=False
    )
    assert done.returncode == 3
    assert "left 1" in done.stdout
    status = run(*COMMAND, "hook", "status", "--config", str(repository.config)).stdout
    assert "waiting   1" in status


def test_a_task_that_can_never_be_sent_is_set_aside_with_its_reason(repository):
    with Spool(repository.spool) as spool:
        spool.add("id", b"no task", intended_ns=0, boot_id=bytes(16))
    run(*COMMAND, "hook", "flush", "--config", str(repository.config), "--wait", "1")
    status = run(*COMMAND, "hook", "status", "--config", str(repository.config)).stdout
    assert "waiting   0" in status
    assert "no task in 7 bytes" in status


def uninstall(repository, *arguments):
    return run(*COMMAND, "hook", "uninstall", str(repository.origin), *arguments, check=False)


def test_uninstall_leaves_no_task_behind_and_no_push_with_one(repository):
    repository.push_and_await_flush()
    refused = uninstall(repository)
    assert refused.returncode == 2
    assert "a flush (process" in refused.stderr
    repository.end_flush()
    refused = uninstall(repository)
    assert refused.returncode == 2
    assert "wait in the spool" in refused.stderr
    assert f"hookbench hook flush --config {repository.config}" in refused.stderr
    assert repository.config.exists()
    repository.push_and_await_flush()
    repository.end_flush()
    done = uninstall(repository, "--abandon")
    assert done.returncode == 0, done.stderr
    assert "abandoned 2: " in done.stdout
    assert repository.waiting() == 2
    pushed, _ = repository.push()
    assert pushed.returncode == 0
    assert repository.waiting() == 2
    assert not repository.config.exists()
    again = uninstall(repository)
    assert again.returncode == 2
    assert "no hook of hookbench is installed" in again.stderr
    assert "Traceback" not in again.stderr


def test_uninstall_of_an_idle_hook_says_what_it_did(repository):
    done = uninstall(repository, "--json")
    assert json.loads(done.stdout) == {
        "repo_id": "app.git",
        "spool": str(repository.spool),
        "abandoned": 0,
        "rejected": 0,
        "spool_kept": False,
    }
    assert not repository.spool.exists()
    repository.install("--phase=redis_only", "--redis-url=redis://127.0.0.1:1")
    repository.push_and_await_flush()
    assert repository.waiting() == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--phase or --phase-file"),
        (("--phase=9",), "phase '9'"),
        (("--phase=0",), "give --redis-url"),
        (("--phase=3",), "give --nats-url"),
        (("--phase=0", "--redis-url=redis://h", "--repo-id=--upload-pack=x"), "--upload-pack=x"),
        (("--phase=0", "--redis-url=redis://h", "--repo-id=../x"), "'../x'"),
        (("--phase-file=/nope.json",), "/nope.json"),
        (("--phase=0", "--redis-url=redis://h", "--prefix=a b"), "prefix 'a b'"),
        (("--phase=0", "--redis-url=redis://h", "--redis-queue=set"), "Redis queue 'set'"),
    ],
)
def test_bad_input_of_install_is_named(repository, arguments, message):
    before = repository.config.read_bytes()
    done = repository.install(*arguments, check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert repository.config.read_bytes() == before
