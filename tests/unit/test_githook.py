import dataclasses
import subprocess
import sys

import pytest

from hookbench.clock import SystemClock
from hookbench.errors import RepositoryError, SettingError
from hookbench.githook.config import CONFIG_NAME, HookConfig, read_config, write_config
from hookbench.githook.install import MARK, install_hook
from hookbench.githook.receive import MAX_REFS, flush_is_running, task_json
from hookbench.task import decode_task

ZERO = "0" * 40


@pytest.fixture
def bare(tmp_path):
    path = tmp_path / "app.git"
    subprocess.run(["git", "init", "--quiet", "--bare", path], check=True)
    return path


def config_for(folder, **changes):
    values = {
        "repo_id": "app.git",
        "spool": str(folder / "spool.sqlite"),
        "phase": "redis_only",
        "redis_url": "redis://127.0.0.1:1",
        **changes,
    }
    return HookConfig(**values)


def test_the_hooks_json_is_a_task(tmp_path):
    lines = [f"{ZERO} {'a' * 40} refs/heads/main", f"{'b' * 40} {ZERO} refs/heads/grün und blau"]
    task_id, data = task_json(config_for(tmp_path), lines, SystemClock())
    task = decode_task(data)
    assert str(task.id) == task_id
    assert task.id.version == 7
    assert task.repo_id == "app.git"
    assert task.payload["refs"][1] == {
        "old": "b" * 40,
        "new": ZERO,
        "ref": "refs/heads/grün und blau",
    }


def test_a_push_of_very_many_refs_stays_small(tmp_path):
    lines = [f"{ZERO} {'a' * 40} refs/tags/v{number}" for number in range(MAX_REFS * 50)]
    _, data = task_json(config_for(tmp_path), lines, SystemClock())
    task = decode_task(data)
    assert len(task.payload["refs"]) == MAX_REFS
    assert task.payload["refs_total"] == MAX_REFS * 50
    assert len(data) < 500_000


def test_settings_are_private_and_read_back(bare):
    config = config_for(bare, redis_url="redis://:secret@127.0.0.1:1")
    path = write_config(bare, config)
    assert path.stat().st_mode & 0o077 == 0
    assert read_config(path) == config


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"repo_id": "a", "spool": "b", "more": 1}'])
def test_damaged_settings_are_named(bare, content):
    (bare / CONFIG_NAME).write_text(content)
    with pytest.raises(SettingError, match=CONFIG_NAME):
        read_config(bare / CONFIG_NAME)


def test_install_writes_an_executable_hook_and_again(bare):
    for _ in range(2):
        hook = install_hook(bare, config_for(bare))
        assert hook.stat().st_mode & 0o111
        assert MARK in hook.read_text()
        assert sys.executable in hook.read_text()


def test_a_foreign_hook_is_left_alone(bare):
    hook = bare / "hooks" / "post-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho mine\n")
    with pytest.raises(RepositoryError, match="not hookbench's"):
        install_hook(bare, config_for(bare))
    assert hook.read_text() == "#!/bin/sh\necho mine\n"
    assert not (bare / CONFIG_NAME).exists()


def test_what_is_no_repository_is_refused(tmp_path):
    with pytest.raises(RepositoryError, match="no bare git repository"):
        install_hook(tmp_path, config_for(tmp_path))
    assert list(tmp_path.iterdir()) == []


def run_hook(config_path, lines):
    return subprocess.run(
        [sys.executable, "-m", "hookbench.githook.receive", str(config_path)],
        input=lines,
        capture_output=True,
        timeout=30,
        check=False,
    )


def test_a_broken_spool_does_not_fail_the_push(bare):
    path = write_config(bare, config_for(bare, spool="/nowhere/at/all/spool"))
    done = run_hook(path, f"{ZERO} {'a' * 40} refs/heads/main\n".encode())
    assert done.returncode == 0
    assert b"no task was queued" in done.stderr


def test_missing_settings_do_not_fail_the_push(bare):
    done = run_hook(bare / CONFIG_NAME, b"x y z\n")
    assert done.returncode == 0
    assert b"hook settings" in done.stderr


def test_the_receiving_side_needs_no_client_libraries_and_no_asyncio():
    code = (
        "import sys, hookbench.githook.receive as r\n"
        "print([m for m in sys.modules if m.split('.')[0] in"
        " ('redis', 'nats', 'msgspec', 'numpy', 'psutil', 'uvloop', 'asyncio')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_flush_runs_on_a_fresh_spool(tmp_path):
    assert not flush_is_running(tmp_path / "spool")
    assert dataclasses.is_dataclass(HookConfig)
