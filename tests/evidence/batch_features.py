"""What newer brokers have for puts in batches, beside one by one: rates, CPU and what is stored."""

import asyncio
import os
import statistics
import time
from pathlib import Path

import redis.asyncio
from nats.js.api import StreamConfig

from hookbench.queues.batch_publishers import AtomicBatches, FastIngest
from hookbench.queues.reconnecting import connect_client
from hookbench.queues.stream_publisher import StreamPublisher

AT_ONCE = 100
PAYLOAD_BYTES = 256
WAYS = {"one by one": StreamPublisher, "atomic batch": AtomicBatches, "fast ingest": FastIngest}
IDEMPOTENT_SINCE = (8, 6)
"""https://redis.io/docs/latest/commands/xadd: ``IDMP`` of XADD."""
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_s_of(pid):
    """User and system seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


async def put_all(send, count):
    """``AT_ONCE`` loops that share the puts."""
    left = iter(range(count))

    async def loop():
        for number in left:
            await send(number)

    await asyncio.gather(*(loop() for _ in range(AT_ONCE)))


async def timed(send, count, pid):
    """Rate, and the CPU of client and server, of so many puts."""
    server_s, client_s, began = cpu_s_of(pid), time.process_time(), time.perf_counter()
    await put_all(send, count)
    seconds = time.perf_counter() - began
    client_s, server_s = time.process_time() - client_s, cpu_s_of(pid) - server_s
    return {
        "per_s": count / seconds,
        "client_us": client_s * 1e6 / count,
        "server_us": server_s * 1e6 / count,
    }


async def stream_round(client, way, count, pid):
    """One way on a stream of its own; its figures, and how many puts are stored."""
    jetstream = client.jetstream()
    name = f"batches-{time.monotonic_ns()}"
    await jetstream.add_stream(
        StreamConfig(
            name=name, subjects=[name], storage="file", allow_atomic=True, allow_batched=True
        )
    )
    publisher = WAYS[way](client)
    payload = bytes(PAYLOAD_BYTES)
    found = await timed(lambda _n: publisher.publish(name, payload, timeout=30.0), count, pid)
    found["missing"] = count - (await jetstream.stream_info(name)).state.messages
    await jetstream.delete_stream(name)
    return found


async def measure_streams(broker, *, rounds, count):
    """By way, the figures of each round; the ways take turns."""
    client = await connect_client(broker.url)
    try:
        # With its last stream a server takes the folder of all of them away, now and then while it
        # makes the next one.
        await client.jetstream().add_stream(StreamConfig(name="anchor", subjects=["anchor"]))
        found = {way: [] for way in WAYS}
        for number in range(rounds):
            ways = list(WAYS)
            for way in ways[number % 3 :] + ways[: number % 3]:
                found[way].append(await stream_round(client, way, count, broker.pid))
        return found
    finally:
        await client.close()


async def measure_entries(broker, *, rounds, count):
    """XADD, and the same with an id by which a repeat is known; why not, where the server is old.

    Each put of the second kind is made twice, and stored once.
    """
    client = redis.asyncio.Redis.from_url(broker.url, max_connections=AT_ONCE + 1)
    try:
        version = (await client.info("server"))["redis_version"]
        if tuple(int(part) for part in version.split(".")[:2]) < IDEMPOTENT_SINCE:
            return None, f"skipped: XADD IDMP needs Redis 8.6, this server is {version}"
        fields = ("payload", bytes(PAYLOAD_BYTES))

        async def plain(_number):
            await client.execute_command("XADD", "plain", "*", *fields)

        async def idempotent(number):
            await client.execute_command("XADD", "idmp", "IDMP", "p", str(number), "*", *fields)

        found = {"one by one": [], "idempotent": []}
        for _ in range(rounds):
            await client.delete("plain", "idmp")
            for way, key, send in (
                ("one by one", "plain", plain),
                ("idempotent", "idmp", idempotent),
            ):
                figures = await timed(send, count, broker.pid)
                if send is idempotent:
                    await send(count - 1)
                figures["missing"] = count - await client.xlen(key)
                found[way].append(figures)
        return found, ""
    finally:
        await client.aclose()


def summarise(found):
    """Medians by way, and of the ratios to one by one in the same round."""
    table = {}
    for way, figures in found.items():
        pairs = zip(figures, found["one by one"], strict=True)
        ratios = [own["per_s"] / one["per_s"] for own, one in pairs]
        table[way] = {
            "puts_per_s": round(statistics.median(item["per_s"] for item in figures)),
            "ratio": round(statistics.median(ratios), 2),
            "ratio_least": round(min(ratios), 2),
            "ratio_most": round(max(ratios), 2),
            "client_us": round(statistics.median(item["client_us"] for item in figures), 1),
            "server_us": round(statistics.median(item["server_us"] for item in figures), 1),
            "missing": sum(abs(item["missing"]) for item in figures),
        }
    return table
