"""``hookbench watch``: both queues as they are, and nothing touched."""

import asyncio
import json
import subprocess

import pytest
from rich.console import Console

from hookbench.cli.watch import make_table
from hookbench.live.watch import Watch
from hookbench.migration.phases import Phase
from hookbench.queues.jetstream import (
    ConsumerSettings,
    StreamSettings,
    ensure_consumer,
    ensure_stream,
)
from hookbench.task import encode_task
from tests.integration.conftest import COMMAND
from tests.integration.test_gates import Gate, put
from tests.integration.test_live_gate import Untouched


@pytest.fixture
async def site(redis_broker, nats_broker, names, tmp_path, transport):
    await ensure_stream(transport, StreamSettings(storage="memory"))
    return Gate(redis_broker.url, nats_broker.url, names, tmp_path)


def options(site):
    names = site.names
    return [
        *COMMAND, "watch", f"--redis={site.redis_url}", f"--nats={site.nats_url}",
        f"--prefix={names.prefix}", f"--subject-root={names.subject_root}",
        f"--stream={names.stream}",
    ]  # fmt: skip


def run(arguments):
    return subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=30)


async def test_what_lies_in_both_queues(site, transport, clock, make_task, redis_client):
    await put(site, Phase.DUAL_WRITE, clock, *(make_task() for _ in range(3)))
    own_list = f"{site.names.work_key('sync')}:worker-7"
    await redis_client.lpush(own_list, encode_task(make_task()))
    await ensure_consumer(transport, ConsumerSettings())
    await transport.pull(site.names.subject("sync"), 1, 5.0)
    untouched = Untouched(site.redis_url, site.nats_url, site.names)
    try:
        async with untouched.watched():
            done = await asyncio.to_thread(
                run, [*options(site), "--json", "--count=2", "--every=0.1"]
            )
    finally:
        await untouched.close()
    first, second = map(json.loads, done.stdout.splitlines())
    assert first["problems"] == {}, done.stderr
    redis, nats = second["redis"], second["nats"]
    assert (redis["pending"], redis["work"], redis["dead"]) == (3, 1, 0)
    assert redis["oldest_s"] >= 0
    assert (nats["messages"], nats["pending"], nats["ack_pending"]) == (3, 2, 1)
    assert first["nats"]["put_per_s"] is None
    assert nats["put_per_s"] == 0.0
    line = run([*options(site), "--count=1"]).stdout
    assert line.startswith("redis pending 3 work 1 dead 0  nats pending 2 unacknowledged 1")


async def test_a_broker_that_is_away_is_said(site):
    site.nats_url = "nats://me:xyzzy@127.0.0.1:1"
    done = run([*options(site), "--count=1"])
    assert done.returncode == 0
    assert "redis pending 0" in done.stdout
    assert "does not answer" in done.stdout
    assert "xyzzy" not in done.stdout + done.stderr
    assert run([*COMMAND, "watch"]).returncode == 2


async def test_rates_and_the_table(site, clock, make_task):
    watching = Watch(site.redis_url, site.nats_url, site.names, clock=clock)
    try:
        await watching.look()
        await put(site, Phase.DUAL_WRITE, clock, *(make_task() for _ in range(5)))
        look = await watching.look()
    finally:
        await watching.close()
    assert look.nats.put_per_s > 0
    console = Console(width=80)
    with console.capture() as captured:
        console.print(make_table(look))
    lines = captured.get().splitlines()
    assert next(line for line in lines if "pending" in line).split("│")[2].strip() == "5"
