"""What the proxy costs: the same traffic directly, through it, and through it with rules at work.

The three sides take turns in each round, so that a slow moment of the machine meets them all; what
is reported is the median of the rounds. Both brokers are in durability class ``memory``. The
clients of the ceilings send bytes that were made before, so that they are not what is measured;
``publish_async`` is nats-py as it is.
"""

import asyncio
import statistics
import time

from hookbench.clock import SystemClock
from hookbench.faults.wire.client import start_proxy
from hookbench.faults.wire.model import LinkSettings, Rule
from hookbench.queues.jetstream import StreamSettings, ensure_stream
from hookbench.queues.transport import AppTransport
from hookbench.task import Names

SIDES = ("direct", "proxy", "rules")
ROUND_TRIPS = 1_000
PUBLISHES = 500
LPUSHES = 20_000
LPUSHES_AT_ONCE = 500
WINDOW = 10_000
WINDOW_AT_ONCE = 500
ASYNC_PUBLISHES = 5_000
PAYLOAD_BYTES = 256
DEADLINE_S = 60.0
FILLING = b"x" * PAYLOAD_BYTES
NEVER = 1_000_000_000

# Rules that look at every frame of both directions, match many, and never fire.
RULES = (
    Rule(action="drop", link="redis", direction="request", command="LPUSH", nth=NEVER),
    Rule(action="drop", link="redis", direction="reply", command="LPUSH", nth=NEVER),
    Rule(
        action="drop", link="nats", direction="request", command="PUB", subject="*.sync", nth=NEVER
    ),
    Rule(action="drop", link="nats", direction="reply", command="PubAck", nth=NEVER),
)


def quantiles(seconds):
    """p50 and p99 in microseconds."""
    ordered = sorted(seconds)
    return {
        "p50_us": ordered[len(ordered) // 2] * 1e6,
        "p99_us": ordered[len(ordered) * 99 // 100] * 1e6,
    }


async def each(count, act):
    seconds = []
    for _ in range(count):
        started = time.perf_counter()
        await act()
        seconds.append(time.perf_counter() - started)
    return seconds


async def read_lines(reader, writer, count):
    """Until so many lines came, wherever they are cut; a PING of nats-server is none of them."""
    rest = b""
    while count > 0:
        data = await reader.read(262_144)
        if not data:
            raise ConnectionError(f"closed with {count} lines to come")
        whole, newline, rest = (rest + data).rpartition(b"\n")
        pings = (whole + newline).count(b"PING\r\n")
        writer.write(b"PONG\r\n" * pings)
        count -= whole.count(b"\n") + len(newline) - pings
    if count or rest:
        raise ConnectionError(f"{-count} lines too many, and {rest!r}")


class Side:
    """One way to both brokers."""

    def __init__(self, redis_port, nats_port, names):
        self.ports = (redis_port, nats_port)
        self.names = names

    async def open(self):
        redis_port, nats_port = self.ports
        self.redis = await asyncio.open_connection("127.0.0.1", redis_port)
        self.nats = await asyncio.open_connection("127.0.0.1", nats_port)
        reader, writer = self.nats
        await reader.readline()
        writer.write(b'CONNECT {"verbose":false,"headers":true}\r\n')
        writer.write(f"SUB _INBOX.{nats_port}.* 1\r\nPING\r\n".encode())
        if await reader.readline() != b"PONG\r\n":
            raise ConnectionError("nats-server did not take the subscription")
        self.transport = await AppTransport.connect(
            f"nats://127.0.0.1:{nats_port}", names=self.names
        )
        await ensure_stream(self.transport, StreamSettings(storage="memory"))

    async def close(self):
        for _reader, writer in (self.redis, self.nats):
            writer.close()
        await self.transport.close()

    async def ping(self):
        """Round trips of a PING."""
        reader, writer = self.redis

        async def act():
            writer.write(b"*1\r\n$4\r\nPING\r\n")
            await reader.readline()

        return quantiles(await each(ROUND_TRIPS, act))

    async def publish(self):
        """Awaited publishes."""
        subject = self.names.subject("sync")
        return quantiles(await each(PUBLISHES, lambda: self.transport.publish(subject, FILLING)))

    async def lpush(self):
        """A pipeline of LPUSH, and its key removed."""
        reader, writer = self.redis
        key = self.names.pending_key("sync").encode()
        one = b"*3\r\n$5\r\nLPUSH\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n"
        batch = one % (len(key), key, len(FILLING), FILLING) * LPUSHES_AT_ONCE
        started = time.perf_counter()
        for _ in range(LPUSHES // LPUSHES_AT_ONCE):
            writer.write(batch)
            await read_lines(reader, writer, LPUSHES_AT_ONCE)
        seconds = time.perf_counter() - started
        writer.write(b"*2\r\n$6\r\nUNLINK\r\n$%d\r\n%s\r\n" % (len(key), key))
        await reader.readline()
        return {
            "per_s": LPUSHES / seconds,
            "mb_per_s": len(batch) / LPUSHES_AT_ONCE * LPUSHES / seconds / 1e6,
        }

    async def window(self):
        """Publishes to the stream with a window, in bytes made before."""
        reader, writer = self.nats
        subject = self.names.subject("sync").encode()
        batch = b"".join(
            b"PUB %s _INBOX.%d.%d %d\r\n%s\r\n"
            % (subject, self.ports[1], number, len(FILLING), FILLING)
            for number in range(WINDOW_AT_ONCE)
        )
        started = time.perf_counter()
        for _ in range(WINDOW // WINDOW_AT_ONCE):
            writer.write(batch)
            await read_lines(reader, writer, 2 * WINDOW_AT_ONCE)  # a header and a payload each
        return {"per_s": WINDOW / (time.perf_counter() - started)}

    async def publish_async(self):
        """nats-py's windowed publish."""
        jetstream, subject = self.transport.jetstream, self.names.subject("sync")
        started = time.perf_counter()
        acks = [await jetstream.publish_async(subject, FILLING) for _ in range(ASYNC_PUBLISHES)]
        await asyncio.gather(*acks)
        return {"per_s": ASYNC_PUBLISHES / (time.perf_counter() - started)}

    async def clean(self):
        """Nothing piles up from round to round."""
        await self.transport.jetstream.purge_stream(self.names.stream)


MEASURES = ("ping", "publish", "lpush", "window", "publish_async")


async def measure(redis_port, nats_port, folder, *, rounds, run):
    """``table[measure][side][figure]``, medians, and the count of what the rules matched."""
    clock = SystemClock()
    links = [
        LinkSettings(name="redis", protocol="resp", upstream_port=redis_port),
        LinkSettings(name="nats", protocol="nats", upstream_port=nats_port),
    ]
    names = Names.for_run(run)
    proxies, sides = [], {"direct": Side(redis_port, nats_port, names)}
    try:
        for side in SIDES[1:]:
            (folder / side).mkdir()
            proxy = await start_proxy(folder / side, links, clock=clock)
            proxies.append(proxy)
            sides[side] = Side(proxy.ports["redis"], proxy.ports["nats"], names)
        for rule in RULES:
            await proxies[-1].add(rule)
        for side in sides.values():
            await side.open()
        found = {measure: {side: [] for side in SIDES} for measure in MEASURES}
        for number in range(rounds + 1):
            order = SIDES[number % 3 :] + SIDES[: number % 3]
            for name in MEASURES:
                for side in order:
                    async with asyncio.timeout(DEADLINE_S):
                        figures = await getattr(sides[side], name)()
                    if number:  # the first round warms up
                        found[name][side].append(figures)
            await sides["direct"].clean()
        stats = [await proxy.stats() for proxy in proxies]
        for side in sides.values():
            await side.close()
    finally:
        for proxy in proxies:
            await proxy.stop()
    return {name: {side: medians(found[name][side]) for side in SIDES} for name in MEASURES}, stats


def medians(rounds):
    return {key: statistics.median(item[key] for item in rounds) for key in rounds[0]}
