"""The bare clients with so many tasks at once: ``python -m tests.evidence.bare_publish URL S N``.

A process of its own, as Locust is: uvloop, ``nats-py`` or ``redis.asyncio``, payloads of the size
of a task of the load test, no ledger. Prints tasks per second, and p50 and p99 of a send in ms.
"""

import asyncio
import json
import sys
import time

import nats
import numpy as np
import redis.asyncio as redis_asyncio
import uvloop

PAYLOAD = b"x" * 480  # a task with 256 bytes of filling, and its envelope
WARM_UP_S = 1.0


async def publish(url, seconds, callers):
    if url.startswith("redis"):
        client = redis_asyncio.Redis.from_url(url, max_connections=callers)

        async def send():
            await client.lpush("bare", PAYLOAD)
    else:
        client = await nats.connect(url)
        jetstream = client.jetstream()
        await jetstream.add_stream(name="BARE", subjects=["bare"], storage="memory")

        async def send():
            await jetstream.publish("bare", PAYLOAD)

    begin = time.perf_counter() + WARM_UP_S
    end = begin + seconds
    took = []

    async def call():
        while (now := time.perf_counter()) < end:
            await send()
            if now >= begin:
                took.append(time.perf_counter() - now)

    await asyncio.gather(*(call() for _ in range(callers)))
    await (client.aclose() if url.startswith("redis") else client.close())
    p50, p99 = np.percentile(took, [50, 99]) * 1_000
    return {"per_s": round(len(took) / seconds), "p50_ms": round(p50, 2), "p99_ms": round(p99, 2)}


if __name__ == "__main__":
    found = uvloop.run(publish(sys.argv[1], float(sys.argv[2]), int(sys.argv[3])))
    sys.stdout.write(json.dumps(found) + "\n")
