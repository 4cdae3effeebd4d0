"""dramatiq on Redis."""

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from tests.bench.peers.contenders.child import (
    GIVEN,
    REDELIVERY_S,
    Description,
    Setting,
    do_task_blocking,
    main,
    payload_of,
)

PAGES = "https://dramatiq.io"
THREADS = GIVEN.concurrency if GIVEN.sleep_s else 16
PREFETCH = 500
MAINTENANCE_CHANCE = 100_000
"""In a million fetches: a tenth of them looks for the tasks of dead workers."""

broker = RedisBroker(
    url=GIVEN.url,
    heartbeat_timeout=REDELIVERY_S * 1000,
    maintenance_chance=MAINTENANCE_CHANCE,
)
dramatiq.set_broker(broker)
peer_task = dramatiq.actor(actor_name="peer_task", queue_name="peers")(do_task_blocking)

os.environ["dramatiq_queue_prefetch"] = str(PREFETCH)  # noqa: SIM112 - this is its name
WORKER = ["dramatiq", __spec__.name, "--processes=1", f"--threads={THREADS}"]

DESCRIPTION = Description(
    concurrency=f"{THREADS} threads",
    settings=[
        Setting(
            f"--processes=1 --threads={THREADS}",
            f"8 by default; 16 for the no-op, {GIVEN.concurrency} where a task waits: each was"
            " faster than the default",
            f"{PAGES}/guide.html#workers",
        ),
        Setting(
            f"dramatiq_queue_prefetch={PREFETCH}",
            "tasks fetched ahead, twice the threads by default",
            f"{PAGES}/advanced.html#prefetch-limits",
        ),
        Setting(
            f"heartbeat_timeout={REDELIVERY_S * 1000} maintenance_chance={MAINTENANCE_CHANCE}",
            "redelivery, 60 s by default, and then by chance, one fetch of a thousand",
            f"{PAGES}/reference.html#dramatiq.brokers.redis.RedisBroker",
        ),
        Setting(
            "hiredis installed",
            "the faster parser of redis-py",
            "https://github.com/redis/redis-py#installation",
        ),
    ],
    promise="none lost",
    promised="acknowledged after the actor; those of a worker without a heartbeat are put back",
    promise_page=f"{PAGES}/motivation.html",
    redelivery_s=REDELIVERY_S + 50,
)


async def enqueue(first, count):
    for index in range(first, first + count):
        peer_task.send(payload_of(index))


if __name__ == "__main__":
    main(DESCRIPTION, enqueue, WORKER)
