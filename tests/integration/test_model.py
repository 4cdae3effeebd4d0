"""A model of a tiny matrix on real brokers: what is measured can be fitted."""

import json
import subprocess

import pytest

from tests.integration.conftest import COMMAND

pytest.importorskip("pandas", reason="the extra notebooks is not installed")

TINY = [
    "--queues=redis_list,jetstream",
    "--phases=",
    "--durability=memory",
    "--payload=64,16384",
    "--callers=20",
    "--repeats=1",
    "--seconds=1",
    "--warm-up=0.3",
    "--rate=200",
    "--kinds=throughput,latency",
    "--most-others=1000",  # other tests run beside this one
]


def command(*arguments):
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, check=False, timeout=200
    )


@pytest.mark.timeout(240)
def test_a_real_matrix_is_fitted_and_predicted(tmp_path):
    out = tmp_path / "out"
    made = command("matrix", f"--out={out}", *TINY)
    if made.returncode == 3:  # on a machine that is too busy a trial may say nothing
        pytest.skip(f"a trial says nothing: {made.stderr[-500:]}")
    assert made.returncode == 0, made.stderr
    asked = ["capacity", f"--model={out}", "--durability=memory", "--json"]
    found = command(*asked, "--queue=jetstream", "--rate=200", "--outage=nats:60@60")
    assert found.returncode == 0, found.stderr
    answer = json.loads(found.stdout)
    prediction = answer["prediction"]
    assert prediction["capacity_per_s"] > 200
    assert prediction["bottleneck"] in prediction["limits_per_s"]
    assert all(value > 0 for value in prediction["cpu_us"].values())
    latencies = prediction["latency_ms"]
    assert 0 < latencies["p50_ms"] <= latencies["p99_ms"]
    assert answer["day"]["outages"][0]["refused"] == pytest.approx(200 * 60, rel=0.05)
    checked = json.loads(command(*asked, "--validate").stdout)["validation"]
    assert checked["errors"][-1]["figure"] == "all"
    assert checked["halves"] == [2, 2]
