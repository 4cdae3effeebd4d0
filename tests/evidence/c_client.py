"""The C client's asynchronous publishes beside those of one Python process, on one broker."""

import asyncio
import itertools
import shutil
import subprocess
import time
from pathlib import Path

import nats
from nats.js.api import StreamConfig

from hookbench.queues.batch_publishers import FastIngest
from hookbench.queues.reconnecting import connect_client
from hookbench.queues.stream_publisher import StreamPublisher

SOURCE = Path(__file__).with_name("c_publish.c")
WINDOW = 4_000
PAYLOAD_BYTES = 256
COUNT = 100_000
MISSING = "a C compiler and libnats (Debian: gcc, libnats-dev)"
DEADLINE_S = 120.0


def compiled(folder):
    """The C program; ``None`` without a compiler or the library."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    program = folder / "c_publish"
    command = [compiler, "-O2", "-o", str(program), str(SOURCE), "-lnats"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return program if done.returncode == 0 else None


async def with_c(program, url, stream):
    """Seconds of the C client."""
    process = await asyncio.create_subprocess_exec(
        *(str(program), url, stream, str(COUNT), str(WINDOW), str(PAYLOAD_BYTES)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), DEADLINE_S)
    if process.returncode != 0:
        raise RuntimeError(f"c_publish: {err.decode()}")
    return float(out)


async def with_publisher(client, kind, stream):
    """Of a publisher of the project, ``WINDOW`` callers that each wait for their answer."""
    publisher, payload = kind(client), bytes(PAYLOAD_BYTES)
    left = iter(range(COUNT))

    async def caller():
        for _number in left:
            await publisher.publish(stream, payload, timeout=30.0)

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(WINDOW)))
    return time.perf_counter() - began


async def with_nats_py(client, stream):
    """Of ``publish_async``, which waits where ``WINDOW`` are under way."""
    jetstream = client.jetstream(publish_async_max_pending=WINDOW)
    payload = bytes(PAYLOAD_BYTES)
    began = time.perf_counter()
    for _ in range(COUNT):
        await jetstream.publish_async(stream, payload, wait_stall=30.0)
    await jetstream.publish_async_completed()
    return time.perf_counter() - began


async def measure(program, url, *, rounds):
    """Publishes per second by way, round by round; and how many acknowledged ones are missing."""
    own, bare = await connect_client(url), await nats.connect(url)
    ways = {
        "C client": lambda stream: with_c(program, url, stream),
        "reference": lambda stream: with_publisher(own, StreamPublisher, stream),
        "fast ingest": lambda stream: with_publisher(own, FastIngest, stream),
        "nats-py publish_async": lambda stream: with_nats_py(bare, stream),
    }
    rates, missing = {way: [] for way in ways}, 0
    try:
        for number, (way, publish) in itertools.product(range(rounds), ways.items()):
            stream = f"c-{number}-{way.replace(' ', '-')}"
            config = StreamConfig(name=stream, subjects=[stream], allow_batched=True)
            await bare.jetstream().add_stream(config)
            rates[way].append(COUNT / await publish(stream))
            missing += COUNT - (await bare.jetstream().stream_info(stream)).state.messages
            await bare.jetstream().delete_stream(stream)
    finally:
        await own.close()
        await bare.close()
    return rates, missing
