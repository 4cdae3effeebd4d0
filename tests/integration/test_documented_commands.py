"""The commands of the documents that are short, really run, on brokers and files of this test.

The others take minutes, a browser or a signal to end: they are named here with the test that runs
their like, and tests/unit/test_documented_commands.py parses each as it stands.
"""

import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from hookbench.brokers.durability import Durability
from hookbench.brokers.embedded import start_nats, start_redis
from hookbench.brokers.resolve import resolve_nats, resolve_redis
from hookbench.cli.main import app
from hookbench.errors import HookbenchError
from tests.documented import ROOT, all_commands

REDIS, NATS = "redis://127.0.0.1:6379", "nats://127.0.0.1:4222"
"""The brokers of the documents."""

ELSEWHERE = {
    "acl": "tests of its own",
    "brokers up": "test_brokers.py",
    "brokers join": "test_compose.py",
    "capacity": "test_capacity.py, test_model.py",
    "ceiling": "unit/test_ceiling.py",
    "check": "test_rehearsal.py",
    "compare": "test_compare.py",
    "dead requeue": "test_dead.py",
    "dead show": "test_dead.py",
    "hazards": "test_hazards.py",
    "matrix": "test_matrix.py",
    "migrate": "test_migrate.py",
    "report": "notebooks/test_report.py",
    "rehearse": "test_rehearsal.py",
    "run": "test_rehearsal.py",
    "show --task": "test_rehearsal.py",
    "sim": "sim/test_sim_verb.py",
    "soak": "test_chaos.py",
    "worker": "test_worker_process.py",
}
"""What is not run here, and where its like is."""

HERE = {
    "config show": {0},
    "dead list": {0},
    "doctor": {0},
    "gate": {0, 1, 3},  # an answer; 2 would be none
    "hook flush": {0},
    "hook install": {0},
    "hook status": {0},
    "hook uninstall": {0},
    "list": {0},
    "phase set": {0},
    "phase show": {0},
    "produce": {0},
    "reconcile": {0},
    "scan": {0},
    "secrets": {0},
    "show": {0},
    "trace from-git": {0},
    "version": {0},
    "watch": {0},
}
"""What is run here, with the exit codes that it may have on the brokers of this test."""

SKIPPED_HERE = ("--measures outbox", "--phase-at", "--metrics-linger", "--traces")
"""Of a verb that is run: what needs another process beside it, so its like is elsewhere."""


def kind_of(words):
    """The entry of a command: the longest of its first words that there is one for."""
    names = [*HERE, *ELSEWHERE]
    text = " ".join(words)
    if words[0] == "show" and "--task" in words:
        return "show --task"
    found = [name for name in names if text == name or text.startswith(f"{name} ")]
    return max(found, key=len, default=None)


def documented(kinds):
    return [
        command
        for command in all_commands()
        if command.words[0] == "hookbench"
        and not command.words[1].startswith("-")
        and kind_of(command.words[1:]) in kinds
        and not any(text in " ".join(command.words) for text in SKIPPED_HERE)
    ]


def test_every_command_is_run_here_or_elsewhere():
    unknown = {
        f"{command.place}: {command.text}"
        for command in all_commands()
        if command.words[0] == "hookbench"
        and not command.words[1].startswith("-")
        and kind_of(command.words[1:]) is None
    }
    assert not unknown
    for places in ELSEWHERE.values():
        for place in places.split(", "):
            found = list((ROOT / "tests").rglob(place.rpartition("/")[2]))
            assert found or place == "tests of its own", place


@pytest.fixture(scope="module")
def brokers(tmp_path_factory):
    """Both, of this module's own: the commands use the real names of the queue."""
    folder = tmp_path_factory.mktemp("documented")
    redis = start_redis(resolve_redis(env={"PATH": ""}), folder, Durability.MEMORY)
    nats = start_nats(resolve_nats(env={"PATH": ""}), folder, Durability.LAZY)
    yield {REDIS: redis.url, NATS: nats.url}
    nats.stop()
    redis.stop()


@pytest.fixture
def desk(tmp_path, monkeypatch, brokers):
    """A folder with what the commands name: stored runs, a bare repository, a folder of logs."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("HOOKBENCH_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOOKBENCH_REDIS_URL", brokers[REDIS])
    monkeypatch.setenv("HOOKBENCH_NATS_URL", brokers[NATS])
    results = tmp_path / "results"
    results.mkdir()
    stored = ROOT / "notebooks" / "data"
    for name, source in (("0001-aaaaaaa", "guide"), ("0002-aaaaaaa", "hardened")):
        (results / name).symlink_to(stored / source)
    (results / "latest").symlink_to(results / "0001-aaaaaaa")
    (tmp_path / "logs").mkdir()
    for name in ("app.git", "team/app.git"):
        subprocess.run(
            ["git", "init", "--quiet", "--bare", str(tmp_path / name)], check=True, timeout=30
        )
    return tmp_path


def local(words, desk, brokers):
    """The words with brokers, folders and counts of this test."""
    changes = {
        **brokers,
        "/srv/git": str(desk),
        "~/src/project": str(ROOT),
        "--count=5000": "--count=5",
    }
    made = []
    for word in words:
        for old, new in changes.items():
            word = word.replace(old, new)  # noqa: PLW2901 - each change after the other
        made.append(word)
    if "--count" in made:
        made[made.index("--count") + 1] = "1" if made[0] == "watch" else "5"
    elif made[0] == "watch":
        made += ["--count", "1"]
    if made[0] == "produce" and "--count" not in made:
        made += ["--count", "5"]
    if made[0] == "reconcile" and "--once" not in made:
        made += ["--once"]
    return made


def run(words, codes, place):
    done = CliRunner().invoke(app, words)
    if isinstance(done.exception, HookbenchError):
        pytest.fail(f"{place}: hookbench {' '.join(words)}: {done.exception}")
    assert done.exit_code in codes, f"{place}: hookbench {' '.join(words)}: {done.output}"


def prepare(words, desk):
    """What must be there before a command: the hook of a repository, or a phase in its place."""
    kind = kind_of(words)
    if kind in ("hook flush", "hook status", "hook uninstall"):
        run(["hook", "install", str(desk / "app.git"), "--phase", "dual_write"], {0}, "before")
    elif kind == "phase show":
        run(["phase", "set", words[2], "dual_write"], {0}, "before")


def test_the_commands_that_are_short_do_what_they_say(desk, brokers):
    commands = documented(HERE)
    assert {kind_of(command.words[1:]) for command in commands} >= {"gate", "produce", "show"}
    seen = set()
    for command in commands:
        words = local(command.words[1:], desk, brokers)
        if tuple(words) in seen:
            continue
        seen.add(tuple(words))
        prepare(words, desk)
        run(words, HERE[kind_of(words)], command.place)


def test_a_command_as_a_process_of_its_own(desk):
    """As a shell starts it, once: the others share the interpreter of the tests."""
    done = subprocess.run(
        [sys.executable, "-m", "hookbench", "list", "phases"], cwd=desk, capture_output=True,
        text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert "dual_read" in done.stdout
