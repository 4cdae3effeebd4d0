"""``locust -f loadtests/`` as a user starts it: real brokers, a real worker, real signals."""

import importlib.util
import json
import re
import signal
import time

import psutil
import pytest

from hookbench.brokers.ports import free_port
from hookbench.queues.redis_client import connect_redis
from tests.conftest import eventually
from tests.integration.locusts import Web, rows_of

if importlib.util.find_spec("locust") is None:  # importing it would patch this process for gevent
    pytest.skip("Locust is not installed: pip install -e '.[loadtest]'", allow_module_level=True)


@pytest.mark.parametrize("queue", ["redis_list", "jetstream"])
def test_headless_run_accounts_for_every_task(start_locust, tmp_path, queue):
    locust = start_locust(
        "--headless", "-t", "2s", "--queue", queue, "--json-file", str(tmp_path / "stats")
    )
    locust.until(lambda: "All users spawned" in locust.text, "users")
    assert sum("hookbench worker" in command for command in locust.commands().values()) == 1
    assert locust.end() == 0, locust.text
    verdict, published, consumed, left = locust.account()
    assert (verdict, left) == ("balanced", 0)
    assert published == consumed > 100
    rows = rows_of(json.loads((tmp_path / "stats.json").read_text()))
    publish, consume = rows["PUBLISH", queue], rows["CONSUME", f"{queue} end to end"]
    assert (publish["num_requests"], publish["num_failures"]) == (published, 0)
    assert consume["num_requests"] == consumed
    assert sum(consume["response_times"].values()) == consumed
    assert 0 < consume["min_response_time"] <= consume["max_response_time"]
    assert any(0 < float(bucket) < 1 for bucket in publish["response_times"])


def test_thresholds_decide_the_exit_code(start_locust):
    locust = start_locust(
        "--headless", "-t", "2s", "--fail-if", "p99<0.001ms,lost>0", "--fail-if", "rate<100000/s",
        "--fail-if=publish_max>1000s",
    )  # fmt: skip
    assert locust.end() == 1, locust.text
    assert locust.account()[0] == "balanced"
    failed = re.findall(r"FAILED +(.+)", locust.text)
    assert len(failed) == 1, failed
    assert re.fullmatch(r"rate<100000/s: \d+(\.\d+)?", failed[0].replace(",", ""))


def test_payloads_have_a_distribution(start_locust, tmp_path):
    locust = start_locust(
        "--headless", "-t", "2s", "--payload", "choice:10=1,3000=1",
        "--json-file", str(tmp_path / "stats"),
    )  # fmt: skip
    assert locust.end() == 0, locust.text
    rows = rows_of(json.loads((tmp_path / "stats.json").read_text()))
    publish = rows["PUBLISH", "redis_list"]
    mean = publish["total_content_length"] / publish["num_requests"]
    assert 1_000 < mean < 2_000


@pytest.mark.parametrize(
    ("option", "text", "told"),
    [
        ("--fail-if", "p99>5", "threshold 'p99>5'"),
        ("--payload", "large", "payload 'large'"),
    ],
)
def test_an_option_that_is_none_is_refused_before_anything_starts(start_locust, option, text, told):
    locust = start_locust("--headless", "-t", "2s", option, text)
    assert locust.end() == 2, locust.text
    assert f"argument {option}: {told}" in locust.text
    assert not any("redis-server" in command for command in locust.commands().values())


def test_tasks_that_do_not_drain_in_time_are_left_not_lost(start_locust):
    locust = start_locust(
        "--headless", "-t", "2s", "--queue", "jetstream", "--design", "hardened",
        "--work-ms", "400", "--drain-seconds", "0.5",
    )  # fmt: skip
    assert locust.end() == 0, locust.text
    verdict, published, consumed, left = locust.account()
    assert verdict == "balanced"
    assert left > 0
    assert published == consumed + left
    assert "the queue did not become empty within 0.5 s" in locust.text


async def test_tasks_that_vanish_from_the_broker_are_lost(start_locust):
    locust = start_locust("--headless", "-t", "2s", "--work-ms", "400", "--drain-seconds", "0.5")
    locust.until(lambda: "All users spawned" in locust.text, "users")
    ports = [
        connection.laddr.port
        for child, command in locust.commands().items()
        if "redis-server" in command
        for connection in child.net_connections()
        if connection.status == psutil.CONN_LISTEN
    ]
    client = connect_redis(f"redis://127.0.0.1:{ports[0]}")
    await eventually_holds(client, "{hook}:sync", 3)
    stolen = [await client.lpop("{hook}:sync") for _ in range(3)]
    await client.aclose()
    assert None not in stolen
    assert locust.end() == 1, locust.text
    verdict, published, consumed, left = locust.account()
    assert verdict == "NOT BALANCED"
    assert published == consumed + left + 3


async def eventually_holds(client, key, length):
    async def holds():
        return await client.llen(key) >= length

    await eventually(holds, what=f"{length} tasks in {key}")


@pytest.mark.parametrize(("queue", "design"), [("redis_list", "guide"), ("jetstream", "hardened")])
def test_a_killed_worker_takes_no_task_out_of_the_account(start_locust, queue, design):
    """The guide leaves what it had in hand in its work list; it is there, and not lost."""
    locust = start_locust(
        "--headless", "-t", "6s", "--queue", queue, "--design", design, "--work-ms", "50",
        "--drain-seconds", "40", "-u", "10", "--rate", "20",
    )  # fmt: skip
    locust.until(lambda: re.search(r"CONSUME +\S+ end to end +[1-9]", locust.text), "tasks done")
    (worker,) = [
        child for child, command in locust.commands().items() if "hookbench worker" in command
    ]
    worker.kill()
    locust.end_timeout_s = 90.0
    assert locust.end() == 0, locust.text
    assert "was killed by SIGKILL, replaced by" in locust.text
    verdict, published, consumed, left = locust.account()
    assert verdict == "balanced"
    assert published == consumed + left > 500
    if design == "hardened":
        assert left == 0
    else:
        assert left > 0


def test_users_that_are_stopped_little_by_little_lose_no_task(start_locust):
    """Half of them in the middle of the run, as with a ramp down in the form."""
    port = free_port()
    locust = start_locust("--web-host", "127.0.0.1", "--web-port", str(port))
    web = Web(port)
    locust.until(web.is_up, "web page")
    fields = {"queue": "jetstream", "rate": 50}
    for users in (20, 10, 5, 1):
        answer = web.post("/swarm", user_count=users, spawn_rate=20, **fields)
        assert answer["success"] is True, answer
        time.sleep(1.0)
    assert web.post("/stop")["success"] is True
    verdict, published, consumed, left = locust.account()
    assert (verdict, left) == ("balanced", 0)
    assert published == consumed > 500
    assert locust.end(signal.SIGTERM) == 0, locust.text


def test_sigterm_in_the_middle_still_accounts_and_leaves_no_process(start_locust):
    locust = start_locust("--headless", "--processes", "2", "--queue", "both")
    locust.until(lambda: re.search(r"CONSUME +both end to end +[1-9]", locust.text), "tasks done")
    commands = locust.commands().values()
    for part in ("_backstage.py", "redis-server", "nats-server", "hookbench worker"):
        assert any(part in command for command in commands), commands
    assert locust.end(signal.SIGTERM) == 0, locust.text
    verdict, published, consumed, left = locust.account()
    assert (verdict, left) == ("balanced", 0)
    assert published == consumed > 0


def test_sigterm_while_brokers_start_leaves_no_process(start_locust):
    locust = start_locust("--headless")
    locust.until(lambda: len(locust.look()) > 1, "a broker")
    assert locust.end(signal.SIGTERM) in (0, 128 + signal.SIGTERM)


async def test_broker_with_a_hook_queue_is_refused(start_locust, redis_broker):
    client = connect_redis(redis_broker.url)
    await client.lpush("{hook}:sync", b"somebody else's")
    try:
        locust = start_locust("--headless", "-t", "1s", HOOKBENCH_REDIS_URL=redis_broker.url)
        assert locust.end() == 2
        assert "already holds hook queue keys ({hook}:sync)" in locust.text
        assert "--allow-existing" in locust.text
        assert await client.lrange("{hook}:sync", 0, -1) == [b"somebody else's"]
    finally:
        await client.delete("{hook}:sync")
        await client.aclose()


def test_web_form_starts_stops_and_starts_again(start_locust):
    port = free_port()
    locust = start_locust("--web-host", "127.0.0.1", "--web-port", str(port))
    web = Web(port)
    locust.until(web.is_up, "web page")
    page = web.get("/")
    for option in ("queue", "durability", "design", "payload", "hook_workers", "rate"):
        assert f'"{option}"' in page
    assert "redis_url" not in page

    refused = web.post("/swarm", user_count=5, spawn_rate=5, queue="kafka")
    assert refused["success"] is False
    assert (
        "--queue 'kafka': use one of redis_list, redis_stream, jetstream, both"
        in refused["message"]
    )

    for queue in ("jetstream", "redis_list"):
        fields = {"queue": queue, "durability": "memory", "rate": 40, "hook_workers": 2}
        answer = web.post("/swarm", user_count=5, spawn_rate=5, **fields)
        assert answer["success"] is True, answer
        locust.until(lambda queue=queue: min(web.counts(queue)) > 0, f"counts of {queue}")
        locust.until(lambda: web.queue_tab().get("done", {"now": 0})["now"] > 0, "the Queue tab")
        tab = web.queue_tab()
        assert tab["phase"]["now"] == {"jetstream": "nats_only", "redis_list": "redis_only"}[queue]
        assert tab["workers"]["now"] == 2
        assert (tab["dead"]["now"], tab["redelivered"]["now"]) == (0, 0)
        assert 0 <= tab["depth"]["now"] <= tab["depth"]["highest"]
        lines = web.get("/hookbench/queue.csv").splitlines()
        assert lines[0].startswith("time_s,phase,redis_depth,nats_depth,waiting,in_flight,")
        assert len(lines) > 1
        locust.look()
        assert web.post("/stop")["success"] is True
        verdict, published, consumed, left = locust.account()
        assert (verdict, left) == ("balanced", 0)
        assert published == consumed > 0
        locust.until(
            lambda queue=queue, wanted=(published, consumed): web.counts(queue) == wanted,
            f"final counts of {queue}",
        )
    _gone, alive = psutil.wait_procs(locust.seen, timeout=3.0)
    assert alive == []  # stopped runs have no brokers and no workers
    assert locust.end(signal.SIGTERM) == 0, locust.text
