"""Benchmarks: ordinary tests under ``make test`` (each body runs once), measured by ``make bench``.

Nothing here asserts a time. What has a yardstick, the bare client or the standard library, is
measured in turn with it (``beside``), so that their ratio is of one moment and can be compared on
any machine; what goes over a wire is counted as well (``note_counts``). See docs/bench.md.
Embedded Redis runs without AOF and streams are in memory: both brokers in durability class
``memory``.
"""

import asyncio
import time
from pathlib import Path

import pytest
import uvloop

import hookbench

CALCULATES = 0.10
"""A growth of the ratio that counts, of what only calculates."""
TALKS = 0.25
"""The same of what waits for a broker or another process: noisier, and counted as well."""

_FAILED = pytest.StashKey[set[str]]()


@pytest.fixture(scope="session")
def loop():
    """The event loop of all benchmarks, as ``hookbench worker`` has it."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield runner.get_loop()


@pytest.fixture
def payload():
    return {
        "ref": "refs/heads/main",
        "before": "0" * 40,
        "after": "5" * 40,
        "pusher": "ada",
    }


@pytest.fixture
def beside(benchmark):
    """Measure a reference, and its yardstick right before each of its rounds.

    The rounds of the reference are the benchmark's own; the seconds of the yardstick's are kept
    with it, one for each, in ``extra_info["yardstick_s"]``. Blocks of both should be about as
    long, and short, so that what disturbs the one disturbs the other. Returned is what the last of
    each returned.

    ``least_effect`` is the share by which the ratio has to grow before a comparison minds.
    """

    def measure(
        reference,
        yardstick,
        *,
        rounds,
        warmup_rounds=2,
        prepare=tuple,
        prepare_yardstick=tuple,
        least_effect=CALCULATES,
    ):
        seconds, answers = [], []

        def take_turns():
            given = prepare_yardstick()
            began = time.perf_counter()
            answer = yardstick(*given)
            seconds.append(time.perf_counter() - began)
            answers[:] = [answer]
            return prepare(), {}

        found = benchmark.pedantic(
            reference, setup=take_turns, rounds=rounds, warmup_rounds=warmup_rounds
        )
        if benchmark.enabled:
            benchmark.extra_info["yardstick_s"] = seconds[warmup_rounds:]
            benchmark.extra_info["least_effect"] = least_effect
        return found, answers[0]

    return measure


@pytest.fixture
def note_counts(benchmark):
    """Keep counts per task; unlike a time they can be compared as they are."""

    def note(**counts):
        benchmark.extra_info["counts"] = counts

    return note


def times(count, function, *arguments):
    """A function that calls ``function`` so often, for one call is too short to be timed."""

    def repeat():
        for _ in range(count):
            answer = function(*arguments)
        return answer

    return repeat


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(machine_info):
    """Which hookbench was measured: that of the tree that was meant is what a comparison wants."""
    machine_info["hookbench"] = str(Path(hookbench.__file__).resolve().parent)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    if report.failed:
        item.config.stash.setdefault(_FAILED, set()).add(item.nodeid)
    return report


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_json(config, output_json):
    """What failed was measured all the same: it is told, and its figures are not given."""
    failed = config.stash.get(_FAILED, set())
    output_json["failed"] = sorted(failed)
    output_json["benchmarks"] = [
        item for item in output_json["benchmarks"] if item["fullname"] not in failed
    ]
