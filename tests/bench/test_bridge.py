"""The bridge from greenlets to coroutines, beside what both loops cost without it."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import hookbench
from tests.bench.conftest import TALKS

USERS = 20
CALLS = 20
ROUNDS = 60
TREE = Path(hookbench.__file__).resolve().parents[1]
DEADLINE_S = 30.0

if importlib.util.find_spec("gevent") is None:
    pytest.skip("the bridge needs gevent: install the extra loadtest", allow_module_level=True)


@pytest.fixture
def child():
    """The process with gevent; its standard error is this one's."""
    command = [sys.executable, "-m", "tests.bench.bridge_child", str(TREE / "loadtests")]
    with subprocess.Popen(
        [*command, str(USERS), str(CALLS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    ) as process:
        yield process
        if process.poll() is None:
            process.kill()


@pytest.mark.benchmark(group=f"bridge: {USERS} users with {CALLS} calls each, beside both loops")
def test_bridge(beside, child):
    def ask(word):
        child.stdin.write(f"{word}\n")
        child.stdin.flush()
        return int(child.stdout.readline() or "0")

    called, awaited = beside(
        lambda: ask("reference"), lambda: ask("yardstick"), rounds=ROUNDS, least_effect=TALKS
    )
    assert called == awaited == USERS * CALLS
    child.stdin.write("end\n")
    child.stdin.flush()
    assert child.wait(timeout=DEADLINE_S) == 0
    assert "gevent" not in sys.modules, "gevent is in the process of the other benchmarks"
