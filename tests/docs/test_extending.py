"""The examples of docs/extending.md, executed as they stand."""

import asyncio
import contextlib
import sys
from types import SimpleNamespace

import pytest

from hookbench.brokers.process import is_stopped, spawn
from hookbench.effects.classes import Execution
from hookbench.errors import PublishRefusedError, SettingError
from hookbench.queues.memory import MemoryQueue
from hookbench.scenarios.schema import load_scenario, to_settings
from hookbench.task import encode_task
from tests.contract.test_queue_contract import *  # noqa: F403 - the suite is the same
from tests.documented import ROOT, blocks_of

PAGE = ROOT / "docs" / "extending.md"
BLOCKS = blocks_of(PAGE)


def example(name):
    """What the block that defines ``name`` defines."""
    (block,) = [
        item
        for item in BLOCKS
        if any(line.startswith((f"class {name}", f"def {name}")) for line in item.lines)
    ]
    assert block.language == "python"
    code = compile("\n".join(block.lines), f"{block.place}", "exec", dont_inherit=True)
    space = {"__name__": f"example_{name}"}
    exec(code, space)  # noqa: S102 - the page's own code
    return space[name]


# The fixtures of the contract suite, over the example

ENOUGH = 10_000


@pytest.fixture
def kind():
    return "memory"  # what it bounds


@pytest.fixture
async def queue(clock):
    async with MemoryQueue(clock) as inner:
        yield example("BoundedQueue")(inner, ENOUGH)


@pytest.fixture
def open_more(queue):
    async def open_one():
        return queue

    return open_one


@pytest.fixture
def after_silence(queue):
    return queue


async def test_a_bounded_queue_refuses_one_too_many(clock, make_task):
    async with MemoryQueue(clock) as inner:
        queue = example("BoundedQueue")(inner, 2)
        for _ in range(2):
            await queue.put(encode_task(make_task()))
        with pytest.raises(PublishRefusedError, match="2 tasks wait, and 2 may"):
            await queue.put(encode_task(make_task()))
        assert (await queue.depth()).pending == 2


async def test_a_stutter_stops_a_process_and_lets_it_go_on(clock):
    stutter = example("Stutter")
    fault = stutter(target="worker-0", at_s=0.0, times=2, pause_s=0.02)
    fault.check()
    with pytest.raises(SettingError, match="use times from 1"):
        stutter(target="worker-0", at_s=0.0, times=0).check()
    child = spawn("idle", [sys.executable, "-c", "import time; time.sleep(60)"])
    seen, notes = 0, []

    async def watch():
        nonlocal seen
        while True:
            seen += is_stopped(child.pid)
            await asyncio.sleep(0.005)

    targets = SimpleNamespace(
        process=lambda _name: child,
        clock=clock,
        memory=SimpleNamespace(note=lambda *words: notes.append(words[1:])),
    )
    watching = asyncio.ensure_future(watch())
    try:
        await fault.inject(targets)
        assert notes == [("stopped", "2 times")]
        assert seen > 0
        await fault.heal(targets)
        assert not is_stopped(child.pid)
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        child.stop()


def test_the_scenario_is_one(tmp_path):
    (block,) = [item for item in BLOCKS if item.language == "toml"]
    path = tmp_path / "short_of_cpu.toml"
    path.write_text("\n".join(block.lines))
    scenario = load_scenario(path, ["producers.rate_per_s=500", "design=hardened"])
    assert len(scenario.faults) == 2
    to_settings(scenario, out=tmp_path).check()


async def test_the_handler_leaves_the_same_when_it_is_done_again(tmp_path, make_task):
    handler = example("PayloadFileHandler")(tmp_path)
    task = make_task()
    await handler(task, Execution(attempt=1))
    (first,) = tmp_path.iterdir()
    before = first.read_bytes()
    await handler(task, Execution(attempt=2))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        f"{task.id}.json": before
    }
    assert b"refs/heads/main" in before


def test_the_plot_has_a_title_and_units():
    pytest.importorskip("matplotlib", reason="the extra notebooks is not installed")
    import hookbench  # noqa: PLC0415 - after the check

    run = hookbench.load(ROOT / "notebooks" / "data" / "guide")
    axes = example("plot_attempts")(run)
    assert " tasks were delivered more than once" in axes.get_title(loc="left")
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("deliveries of a task", "tasks")
    assert sum(bar.get_height() for bar in axes.patches) == run.deliveries["id"].nunique()
