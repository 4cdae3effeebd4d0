"""The harness against no queue at all."""

import json
import subprocess
import sys

import pytest

from hookbench.load.ceiling import measure_ceiling
from hookbench.load.generator import GeneratorSettings, LoadGenerator
from hookbench.migration.phases import Phase
from tests.virtual import VirtualClock


@pytest.mark.parametrize(
    "changes",
    [
        {"loop": "windowed", "callers": 7},
        {"loop": "closed", "callers": 3, "rate_per_s": 1000.0},
        {"arrivals": "poisson"},
        {"arrivals": "bursts:size=5", "payload": "uniform:min=1,max=50", "skew": 1.2},
    ],
)
async def test_every_task_is_taken_and_none_comes_back(changes):
    settings = GeneratorSettings(phase=Phase.NATS_ONLY, null=True, count=250, **changes)
    totals = await LoadGenerator(settings, clock=VirtualClock()).run()
    assert (totals.offered, totals.accepted, totals.refused, totals.unknown) == (250, 250, 0, 0)


async def test_a_ceiling_has_figures_of_both_loops():
    fast = await measure_ceiling(loop="windowed", count=2000, repeats=2)
    assert fast.tasks_per_s > 100
    assert (fast.lag_p99_us, fast.repeats) == (0, 2)
    paced = await measure_ceiling(loop="open", rate_per_s=500.0, count=100, repeats=1)
    assert 50 < paced.tasks_per_s < 560
    assert 0 < paced.lag_p50_us <= paced.lag_p99_us


def test_the_command_line_says_it():
    arguments = ["ceiling", "--count=500", "--seconds=0.2", "--rate=500", "--repeats=1"]
    done = subprocess.run(
        [sys.executable, "-m", "hookbench", *arguments, "--json"], capture_output=True, check=True
    )
    assert [item["loop"] for item in json.loads(done.stdout)] == ["windowed", "open"]
    done = subprocess.run(
        [sys.executable, "-m", "hookbench", *arguments], capture_output=True, check=True, text=True
    )
    assert "open loop at 500/s" in done.stdout
    refused = subprocess.run(
        [sys.executable, "-m", "hookbench", "ceiling", "--rate=0"], capture_output=True, check=False
    )
    assert refused.returncode == 2
    assert b"rate of 0.0 tasks/s" in refused.stderr
