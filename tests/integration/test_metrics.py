"""Metrics of live processes: scraped, held against their ledgers, and gone with their brokers."""

import asyncio
import re
import subprocess

import pytest

from hookbench.brokers.durability import Durability
from hookbench.brokers.embedded import start_nats, start_redis
from hookbench.brokers.resolve import resolve_nats, resolve_redis
from hookbench.ledger.read import read_ledger
from hookbench.metrics.agreement import compare_metrics
from hookbench.metrics.families import METRICS
from hookbench.metrics.kept import read_scrapes
from hookbench.metrics.scrape import parse_samples, scrape
from hookbench.results.check import check_run
from hookbench.results.store import MANIFEST_NAME, encode_manifest
from tests.conftest import eventually
from tests.integration.conftest import COMMAND, Fleet, Process, stored
from tests.unit.test_metrics_package import used_names

SERVED = ("--metrics=127.0.0.1:0", "--metrics-linger=20")


def figures(text, name, *parts):
    """Values by the labels named, of one metric."""
    return {
        tuple(dict(labels)[part] for part in parts): value
        for (sample, labels), value in parse_samples(text).items()
        if sample == name
    }


def produce(fleet, *more, writer=2):
    arguments = ["produce", *fleet.arguments(), f"--ledger={fleet.ledger}", f"--writer={writer}"]
    process = Process([*arguments, "--json", *more], fleet.folder, f"producer-{writer}")
    fleet.processes.append(process)
    return process


def stopped(process):
    """Wait for the end of its work, and return its last scrape."""
    process.wait_for(lambda: process.latest("event") == "stopped", "the end of its work")
    text = scrape(process.latest("metrics_url"))
    assert process.popen.wait(timeout=10) == 0  # it waits for one scrape, not for 20 s
    return text


async def test_a_live_worker_and_producer_say_what_their_ledgers_say(fleet):
    producer = produce(fleet, *SERVED, "--phase=1", "--rate=500", "--count=200", "--mix=plain=1")
    producer_text = stopped(producer)
    worker = fleet.worker(*SERVED, "--phase=2", "--ack=after_processing", "--max-attempts=2")
    url = worker.latest("metrics_url")
    held = {
        ("redis_list", "sync", "pending"): 200,  # the guide's copies that nothing trims
        ("redis_list", "sync", "in_work"): 0,
        ("redis_list", "sync", "dead"): 0,
        ("jetstream", "all", "stream"): 200,
        ("jetstream", "all", "dead"): 0,
        ("jetstream", "sync", "pending"): 0,
        ("jetstream", "sync", "ack_pending"): 0,
    }
    during = ""

    async def drained():
        nonlocal during
        during = await asyncio.to_thread(scrape, url)
        return figures(during, "hookbench_queue_tasks", "queue", "task_type", "state") == held

    await eventually(drained, timeout_s=20)
    oldest = figures(during, "hookbench_queue_oldest_seconds", "queue")
    assert list(oldest) == [("redis_list",)]
    assert oldest["redis_list",] > 0
    assert figures(during, "hookbench_queue_lag_tasks", "task_type") == {("sync",): 0}
    worker.popen.terminate()
    worker_text = stopped(worker)
    check = compare_metrics(
        {"producer.00002": producer_text, "worker.00001": worker_text}, read_ledger(fleet.ledger)
    )
    assert check.differences == []
    assert check.compared == ["producer.00002", "worker.00001"]
    assert check.totals["hookbench_tasks_total nats done"] == 200
    assert check.totals["hookbench_puts_total redis ok"] == 200
    names = {name for text in (producer_text, during) for name, _labels in parse_samples(text)}
    served = {re.sub(r"_(bucket|count|sum)$", "", name) for name in names}
    assert {item.name for item in METRICS} <= served
    assert used_names() <= served  # of dashboard and alert rules
    assert figures(producer_text, "hookbench_broker_up", "broker") == {("redis",): 1, ("nats",): 1}
    assert figures(producer_text, "hookbench_queue_tasks", "queue") == {}


async def test_a_stream_on_redis_has_its_states(fleet):
    queue = "--redis-queue=stream"
    stopped(produce(fleet, *SERVED, queue, "--phase=0", "--rate=1000", "--count=30"))
    worker = fleet.worker(
        *SERVED, queue, "--phase=0", "--handler=sleep", "--sleep-ms=60000", "--concurrency=4"
    )

    def depth():
        text = scrape(worker.latest("metrics_url"))
        return {
            **figures(text, "hookbench_queue_tasks", "queue", "state"),
            "in work": figures(text, "hookbench_tasks_in_work")[()],
            "oldest": figures(text, "hookbench_queue_oldest_seconds", "queue"),
        }

    await eventually(lambda: depth()["in work"] == 4)
    await eventually(lambda: depth()["redis_stream", "ack_pending"] == 4)
    found = depth()
    assert found["redis_stream", "pending"] == 26
    assert found["oldest"]["redis_stream",] > 0


async def test_figures_of_a_broker_that_is_gone_are_gone(tmp_path, names):
    redis = start_redis(resolve_redis(None), tmp_path, Durability.MEMORY)
    nats = start_nats(resolve_nats(None), tmp_path, Durability.MEMORY)
    fleet = Fleet(redis.url, nats.url, names, tmp_path)
    try:
        worker = fleet.worker(*SERVED, "--phase=2")

        def up():
            text = scrape(worker.latest("metrics_url"), 10.0)
            known = {labels[0] for labels in figures(text, "hookbench_queue_tasks", "queue")}
            return figures(text, "hookbench_broker_up", "broker"), known

        assert up() == ({("redis",): 1, ("nats",): 1}, {"redis_list", "jetstream"})
        redis.stop()
        await eventually(
            lambda: up() == ({("redis",): 0, ("nats",): 1}, {"jetstream"}), timeout_s=20
        )
        nats.stop()
        await eventually(lambda: up() == ({("redis",): 0, ("nats",): 0}, set()), timeout_s=20)
    finally:
        fleet.close()
        nats.stop()
        redis.stop()


def test_a_taken_port_and_a_bad_address_are_errors(fleet):
    worker = fleet.worker("--metrics=127.0.0.1:0", "--phase=0")
    port = worker.latest("metrics_url").split(":")[2].split("/")[0]
    for address, told in ((port, f"127.0.0.1:{port}"), ("nowhere", "use HOST:PORT")):
        done = subprocess.run(
            [*COMMAND, "worker", *fleet.arguments(), "--phase=0", f"--metrics={address}"],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 2, done.stderr
        assert told in done.stderr


KILLED = {"kind": "kill", "target": "worker-1", "at_s": 0.5}


@pytest.mark.parametrize("faults", [[], [KILLED]], ids=["calm", "a worker killed"])
def test_a_rehearsal_holds_its_metrics_against_its_ledger(rehearse, tmp_path, faults):
    done = rehearse(faults, "--set=metrics=true", phases='"redis_only"', seconds=1.0)
    manifest = stored(tmp_path)
    check = manifest.metrics
    assert check.differences == [], done.stderr
    assert "metrics   " in done.stderr
    assert len(check.compared) == 4
    assert len(check.not_compared) == len(faults)
    assert manifest.verdict in ("valid", "invalid")
    account = manifest.account
    totals = check.totals
    if not faults:
        assert totals["hookbench_tasks_total redis done"] == account.done
        assert totals["hookbench_sends_total accepted"] + account.pushed_tasks == account.accepted
    # One task less, and it is told.
    folder = tmp_path / "latest"
    scraped = read_scrapes(folder / "metrics")
    writer, line, count = next(
        (writer, line, float(line.split()[1]))
        for writer in check.compared
        for line in scraped[writer].splitlines()
        if line.startswith('hookbench_tasks_total{outcome="done",queue="redis_list"}')
        and not line.endswith(" 0.0")
    )
    again = check_run(folder)
    assert (again.metrics, again.verdict) == (check, manifest.verdict)
    kept = folder / "metrics" / f"{writer}.prom"
    kept.write_text(scraped[writer].replace(line, f"{line.split()[0]} {count - 1}"))
    told = check_run(folder)
    (difference,) = told.metrics.differences
    assert difference.startswith(f"{writer}: hookbench_tasks_total redis done")
    assert (told.verdict, f"metrics: {difference}" in told.unknown_because) == ("unknown", True)
    # Stored so, and mended: the reason is gone again.
    (folder / MANIFEST_NAME).write_bytes(encode_manifest(told))
    kept.write_text(scraped[writer])
    assert check_run(folder).unknown_because == manifest.unknown_because
