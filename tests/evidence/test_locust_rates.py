"""Locust beside the bare clients, and its memory over a million tasks."""

import json
import re
import statistics
import subprocess
import sys
import time

import psutil
import pytest

from hookbench.brokers.durability import Durability
from hookbench.brokers.embedded import start_nats, start_redis
from hookbench.brokers.resolve import resolve_nats, resolve_redis
from tests.evidence.spread import spread_of
from tests.integration.locusts import ROOT, Locust

ROUNDS = 3
SECONDS = 8
AT_ONCE = 100
MODES = {
    "bridge": ("-u", str(AT_ONCE), "-r", str(AT_ONCE)),
    "bridge, bursts of 20": ("-u", str(AT_ONCE // 20), "-r", "5", "--burst", "20"),
    "engine": ("-u", str(AT_ONCE), "-r", str(AT_ONCE), "--engine"),
}
LEAST = {"bridge, bursts of 20": 0.75, "engine": 0.9}
"""Of the bare client's rate; one user after the other over the bridge is told beside them."""
MOST_P99 = 2.0
SENDS = re.compile(r"send +p50/p99/max ([\d.]+) / ([\d.]+) / ")
RATE = re.compile(r"FAILED +rate<1000000000/s: ([\d,.]+)")


def bare(queue, folder):
    """The bare client on a broker of its own."""
    folder.mkdir()
    resolve, start = {
        "redis_list": (resolve_redis, start_redis),
        "jetstream": (resolve_nats, start_nats),
    }[queue]
    broker = start(resolve(env={"PATH": ""}), folder, Durability.MEMORY)
    try:
        command = [sys.executable, "-m", "tests.evidence.bare_publish"]
        done = subprocess.run(
            [*command, broker.url, str(SECONDS), str(AT_ONCE)],
            cwd=ROOT, capture_output=True, text=True, check=True, timeout=120,
        )  # fmt: skip
    finally:
        broker.stop()
    return json.loads(done.stdout)


def with_locust(queue, mode, folder):
    """Nobody works on what is published, as nobody reads what the bare client sends."""
    folder.mkdir()
    locust = Locust(
        folder, "--headless", "-t", f"{SECONDS}s", "--queue", queue, "--durability", "memory",
        "--rate", "0", "--hook-workers", "0", "--drain-seconds", "0", "--max-tasks", "3000000",
        "--fail-if", "rate<1000000000/s", *MODES[mode],
    )  # fmt: skip
    locust.end_timeout_s = 180.0
    assert locust.end() == 1, locust.text
    assert locust.account()[0] == "balanced", locust.text
    p50, p99 = SENDS.search(locust.text).groups()
    rate = float(RATE.search(locust.text)[1].replace(",", ""))
    return {"per_s": round(rate), "p50_ms": float(p50), "p99_ms": float(p99)}


@pytest.mark.evidence(
    claim="One Locust process publishes at least 0.75 of the bare client's rate over the bridge in"
    " bursts, and at least 0.9 with the engine, at a p99 of less than twice the bare one's, medians"
    " of three interleaved rounds.",
    seed=0,
)
@pytest.mark.timeout(1_800)
def test_locust_rates(proof, tmp_path):
    wrong = []
    for queue in ("jetstream", "redis_list"):
        found = {name: [] for name in ("bare", *MODES)}
        for number in range(ROUNDS):
            found["bare"].append(bare(queue, tmp_path / f"{queue}-{number}-bare"))
            for mode in MODES:
                folder = tmp_path / f"{queue}-{number}-{mode.replace(' ', '-')}"
                found[mode].append(with_locust(queue, mode, folder))
        for name, rounds in found.items():
            pairs = list(zip(rounds, found["bare"], strict=True))
            figures = {
                key: statistics.median(item[key] for item in rounds)
                for key in ("per_s", "p50_ms", "p99_ms")
            }
            figures |= spread_of("ratio", [a["per_s"] / b["per_s"] for a, b in pairs])
            figures |= spread_of("p99_ratio", [a["p99_ms"] / b["p99_ms"] for a, b in pairs])
            proof.record(**{f"{queue}, {name}": figures})
            if name not in LEAST:
                continue
            if figures["ratio"] < LEAST[name]:
                wrong.append(f"{queue}, {name}: {figures['ratio']} of the rate")
            if figures["p99_ratio"] > MOST_P99:
                wrong.append(f"{queue}, {name}: {figures['p99_ratio']} times the p99")
    proof.record(rounds=ROUNDS, seconds=SECONDS)
    proof.conclude(wrong)


MILLION = 1_000_000
WARM_TASKS = 200_000
MOST_GROWTH_MIB = 16.0


def memory_mib(locust):
    """Of Locust, and of its engine; by what each is."""
    sizes = {"locust": psutil.Process(locust.process.pid).memory_info().rss}
    for child, command in locust.commands().items():
        if "_engine.py" in command:
            sizes["engine"] = child.memory_info().rss
    return {name: size / 2**20 for name, size in sizes.items()}


def published(locust):
    found = re.findall(r"Aggregated +(\d+) ", locust.text)
    return int(found[-1]) if found else 0


@pytest.mark.evidence(
    claim="The memory of Locust and of its engine does not grow by more than 16 MiB from the"
    " 200,000th to the millionth task.",
    seed=0,
)
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("mode", ["bridge, bursts of 20", "engine"])
def test_locust_memory(proof, tmp_path, mode):
    locust = Locust(
        tmp_path, "--headless", "-t", "300s", "--queue", "jetstream", "--durability", "memory",
        "--rate", "0", "--drain-seconds", "0", "--max-tasks", str(MILLION), *MODES[mode],
    )  # fmt: skip
    locust.end_timeout_s = 300.0
    seen = []
    while locust.process.poll() is None and "max-tasks is reached" not in locust.text:
        try:
            seen.append((published(locust), memory_mib(locust)))
        except psutil.NoSuchProcess:
            break
        time.sleep(1.0)
    assert locust.end() == 0, locust.text
    verdict, count, _consumed, _left = locust.account()
    warm = [sizes for tasks, sizes in seen if tasks >= WARM_TASKS]
    names = sorted(warm[0])
    growth = {name: max(item[name] for item in warm) - warm[0][name] for name in names}
    proof.record(
        mode=mode,
        published=count,
        samples=len(warm),
        **{f"{name}_mib": round(warm[-1][name], 1) for name in names},
        **{f"{name}_growth_mib": round(growth[name], 2) for name in names},
    )
    wrong = [f"{name} grew by {size:.1f} MiB" for name, size in growth.items()]
    proof.conclude(
        [text for text, size in zip(wrong, growth.values(), strict=True) if size > MOST_GROWTH_MIB]
        + ([] if count >= MILLION else [f"only {count:,} tasks"])
        + ([] if verdict == "balanced" else [f"the account is {verdict}"])
    )
