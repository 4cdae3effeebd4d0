"""``hookbench compare`` on two tiny real runs, as a user calls it."""

import json
import subprocess
import sys

import pytest

from tests.forks import Forks

pytest.importorskip("scipy", reason="the extra notebooks is not installed")

SCENARIO = [
    "--set=timeline.phase_seconds=8",
    "--set=producers.rate_per_s=100",
    "--set=producers.processes=1",
    "--set=workers.processes=1",
    "--set=pushes.repositories=1",
    "--set=pushes.interval_s=60",
    "--set=bounds.max_lag_ms=5000",
]


def hookbench(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "hookbench", *arguments], capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Runs 0001 with 10 ms of work a task, and 0002 with 100 ms."""
    out = tmp_path_factory.mktemp("results")
    for seed, service_ms in ((1, 10), (2, 100)):
        done = hookbench(
            *("run", "phase_nats_only", *SCENARIO, f"--set=workers.service_ms={service_ms}"),
            *(f"--set=seed={seed}", f"--out={out}"),
        )
        assert (out / "latest").exists(), done.stderr
    return out


@pytest.fixture(scope="module")
def compare(tmp_path_factory):
    """The command, forked: what it imports takes longer than what it does."""
    needed = ("hookbench.cli.main", "hookbench.report.comparison", "hookbench.results.run")
    forks = Forks(needed, tmp_path_factory.mktemp("forks"))
    yield lambda *arguments: forks.call("hookbench", ["compare", *arguments])
    forks.close()


def test_runs_of_another_scenario_are_refused_and_compared_by_force(results, compare):
    refused = compare("0001", "0002", f"--out={results}")
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert "setting service_ms: 10.0 in BASE 0001-" in refused.stderr
    assert "seed" not in refused.stderr
    forced = compare("0001", "latest", f"--out={results}", "--force")
    assert forced.returncode == 0, forced.stderr
    assert "not comparable, and compared all the same" in forced.stdout
    assert "answer    worse: p50 in nats_only" in forced.stdout
    assert "one run on each side" in forced.stdout


def test_thresholds_make_the_exit_code(results, compare):
    def code(*options, base="0001", new="0002"):
        done = compare(base, new, f"--out={results}", "--force", *options)
        return done.returncode, done.stderr

    assert code("--fail-if=p50 +20%", "--fail-if=cpu_nats +5%") == (1, "")
    assert code("--fail-if=p50 +20%", base="0002", new="0001") == (0, "")
    assert code("--fail-if=cpu_nats +5%") == (3, "")
    status, said = code("--fail-if=p50 20%")
    assert (status, "use a metric" in said) == (2, True)
    status, said = code(new="0001")
    assert (status, "is given twice" in said) == (2, True)
    status, said = code(new="0002,")
    assert (status, "a name is missing" in said) == (2, True)
    status, said = code(new="0009")
    assert (status, "no such run" in said) == (2, True)


def test_json_is_the_same_as_data(results):
    done = hookbench(
        *("compare", "0001", "0002", f"--out={results}", "--force", "--json"),
        *("--min-effect=10%", "--fail-if=p50 +20%"),
    )
    assert done.returncode == 1
    data = json.loads(done.stdout)
    p50 = next(item for item in data["changes"] if item["metric"] == "p50")
    assert p50["answer"] == "worse"
    assert p50["low"] < p50["change"] < p50["high"]
    assert data["min_effect"] == 0.1
    assert any("service_ms" in line for line in data["forced"])
    assert data["judgements"][0]["answer"] == "exceeded"
