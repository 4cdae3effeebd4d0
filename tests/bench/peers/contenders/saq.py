"""SAQ on Redis."""

import asyncio

import orjson
import uvloop
from saq import Queue

from tests.bench.peers.contenders.child import (
    GIVEN,
    REDELIVERY_S,
    Description,
    Setting,
    at_once,
    do_task,
    main,
)

PAGES = "https://saq-py.readthedocs.io/en/latest"
SOURCE = "https://github.com/tobymao/saq/blob/master/saq"
SWEEP_S = 5
RETRIES = 3

asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())

queue = Queue.from_url(
    GIVEN.url,
    name="peers",
    max_concurrent_ops=GIVEN.concurrency,
    dump=orjson.dumps,
    load=orjson.loads,
)


async def peer_task(_context, *, payload):
    await do_task(payload)


settings = {
    "queue": queue,
    "functions": [("peer_task", peer_task)],
    "concurrency": GIVEN.concurrency,
    "timers": {"sweep": SWEEP_S},
}

WORKER = ["saq", f"{__spec__.name}.settings", "--workers=1"]

DESCRIPTION = Description(
    concurrency=f"{GIVEN.concurrency} coroutines",
    settings=[
        Setting(f"concurrency={GIVEN.concurrency}", "10 by default", f"{SOURCE}/worker.py"),
        Setting(
            f"max_concurrent_ops={GIVEN.concurrency}",
            "calls to Redis at once, 20 by default",
            f"{SOURCE}/queue/redis.py",
        ),
        Setting(
            "dump=orjson.dumps load=orjson.loads; uvloop as the policy; hiredis installed",
            "the JSON library, loop and parser may be chosen",
            f"{SOURCE}/queue/redis.py",
        ),
        Setting("ttl=-1", "no result is stored", f"{SOURCE}/job.py"),
        Setting(
            f"timeout={REDELIVERY_S} retries={RETRIES} sweep={SWEEP_S}",
            "redelivery; with its one try by default a job of a dead worker is aborted",
            f"{SOURCE}/job.py",
        ),
    ],
    promise="none lost",
    promised="jobs that are active for longer than their timeout are swept, and tried again",
    promise_page=f"{PAGES}/",
    redelivery_s=REDELIVERY_S + 2 * SWEEP_S,
)


async def enqueue(first, count):
    await queue.connect()

    async def send(payload):
        await queue.enqueue(
            "peer_task", payload=payload, timeout=REDELIVERY_S, retries=RETRIES, ttl=-1
        )

    await at_once(send, first, count)
    await queue.disconnect()


if __name__ == "__main__":
    main(DESCRIPTION, enqueue, WORKER)
