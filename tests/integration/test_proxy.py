"""Faults on the wire between the reference code and real brokers.

No test looks at a clock: what is held back is held for an hour, and let go.
"""

import asyncio
import json
import socket
import subprocess
import sys

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hookbench.clock import SystemClock
from hookbench.errors import (
    BrokerUnreachableError,
    FaultError,
    PublishRefusedError,
    PublishUnknownError,
)
from hookbench.faults.wire.client import start_proxy
from hookbench.faults.wire.link import Link
from hookbench.faults.wire.model import LinkSettings, Rule
from hookbench.faults.wire.outbox import HIGH_WATER_BYTES
from hookbench.faults.wire.rules import ActiveRule, parse_rule
from hookbench.queues.jetstream import StreamSettings, ensure_stream
from hookbench.queues.redis_client import connect_redis
from hookbench.queues.redis_list import RedisListQueue
from hookbench.queues.transport import AppTransport, make_nats_publish
from tests.conftest import eventually
from tests.unit.test_frames_wire import VALID

pytestmark = pytest.mark.timeout(60)

HOUR_MS = 3_600_000.0
COMMAND = [sys.executable, "-m", "hookbench", "proxy"]


@pytest.fixture
async def proxy(redis_broker, nats_broker, tmp_path, clock):
    links = [
        LinkSettings(name="redis", protocol="resp", upstream_port=redis_broker.port),
        LinkSettings(name="nats", protocol="nats", upstream_port=nats_broker.port),
    ]
    started = await start_proxy(tmp_path, links, clock=clock)
    yield started
    await started.stop()


@pytest.fixture
async def redis_through(proxy):
    """A client through the proxy that waits half a second for a reply."""
    client = connect_redis(f"{proxy.url('redis')}?socket_timeout=0.5")
    yield client
    await client.aclose()


@pytest.fixture
async def nats_through(proxy, names, monkeypatch, transport):
    """A transport through the proxy that waits half a second for an answer."""
    monkeypatch.setattr("hookbench.queues.transport.PUBLISH_TIMEOUT_S", 0.5)
    await ensure_stream(transport, StreamSettings(storage="memory"))
    async with await AppTransport.connect(proxy.url("nats"), names=names) as opened:
        yield opened
    await transport.jetstream.delete_stream(names.stream)


@pytest.fixture
async def raw(proxy):
    """A bare connection to the redis link."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.ports["redis"])
    yield reader, writer
    writer.close()


async def fired(proxy, number):
    stats = await proxy.stats()
    return next(rule for rule in stats.rules if rule.id == number)


async def link_stats(proxy, name="redis"):
    stats = await proxy.stats()
    return next(link for link in stats.links if link.name == name)


async def stored(transport):
    info = await transport.jetstream.stream_info(transport.names.stream)
    return info.state.messages


@pytest.mark.parametrize("then", ["half_open", "reset"])
async def test_a_lost_reply_to_blmove_leaves_the_task_in_the_work_list(
    proxy, redis_client, redis_through, names, then
):
    """Hazard R1."""
    direct = RedisListQueue(redis_client, names=names)
    queue = RedisListQueue(redis_through, names=names)
    for number in range(4):
        await direct.put(b"task-%d" % number)
    rule = await proxy.add(
        Rule(action="drop", link="redis", direction="reply", command="BLMOVE", nth=3, then=then)
    )
    assert [item.payload for item in await queue.receive(1, 0.2)] == [b"task-0"]
    assert [item.payload for item in await queue.receive(1, 0.2)] == [b"task-1"]
    with pytest.raises(BrokerUnreachableError):
        await queue.receive(1, 0.2)
    # Nobody was told of task-2, and nothing reads the list in which it lies.
    pending, work = await direct.contents()
    assert (pending, sorted(work)) == ([b"task-3"], [b"task-0", b"task-1", b"task-2"])
    assert [item.payload for item in await queue.receive(1, 0.2)] == [b"task-3"]
    found = await fired(proxy, rule)
    [hit] = found.hits
    assert (found.firings, hit.n, hit.what) == (1, 3, "BLMOVE")
    assert hit.key == names.pending_key("sync")
    assert found.first_ns == found.last_ns == hit.time_ns > found.added_ns
    assert (await link_stats(proxy)).half_open == (1 if then == "half_open" else 0)


async def test_a_lost_reply_to_lpush_leaves_the_caller_in_doubt(
    proxy, redis_client, redis_through, names
):
    """Hazard R8, without the library's retry."""
    rule = await proxy.add(
        Rule(action="drop", link="redis", direction="reply", command="LPUSH", then="reset")
    )
    with pytest.raises(PublishUnknownError):
        await RedisListQueue(redis_through, names=names).put(b"task")
    assert await redis_client.lrange(names.pending_key("sync"), 0, -1) == [b"task"]
    assert (await fired(proxy, rule)).firings == 1


async def test_a_lost_pub_ack_is_a_ghost_publish(proxy, nats_through, names):
    """Hazard P4: the caller is in doubt, and the stream has it."""
    subject = names.subject("sync")
    rule = await proxy.add(
        Rule(action="drop", link="nats", direction="reply", command="PubAck", nth=7)
    )
    publish = make_nats_publish(nats_through)
    assert [await publish(subject, b"%d" % number) for number in range(6)] == [1, 2, 3, 4, 5, 6]
    with pytest.raises(PublishUnknownError):
        await publish(subject, b"ghost")
    ghost = await nats_through.jetstream.get_msg(names.stream, seq=7)
    assert ghost.data == b"ghost"
    assert await publish(subject, b"next") == 8
    [hit] = (await fired(proxy, rule)).hits
    assert (hit.n, hit.what, hit.key) == (7, "PubAck", subject)


async def test_a_dropped_publish_is_in_doubt_and_not_stored(proxy, nats_through, names):
    rule = await proxy.add(Rule(action="drop", link="nats", direction="request", command="PUB"))
    with pytest.raises(PublishUnknownError):
        await nats_through.publish(names.subject("sync"), b"gone")
    # The connection lost one frame and nothing else.
    assert (await nats_through.publish(names.subject("sync"), b"next")).sequence == 1
    assert (await fired(proxy, rule)).firings == 1


async def test_a_doubled_publish_is_stored_twice_unless_it_has_an_id(proxy, nats_through, names):
    subject = names.subject("sync")
    for verb in ("PUB", "HPUB"):
        await proxy.add(Rule(action="duplicate", link="nats", direction="request", command=verb))
    acks = await proxy.add(
        Rule(action="pass", link="nats", direction="reply", command="PubAck", count=0)
    )
    assert (await nats_through.publish(subject, b"plain")).sequence == 1
    await eventually(lambda: both_acks(proxy, acks, 2), what="the ack of the copy")
    assert await stored(nats_through) == 2
    assert (await nats_through.publish(subject, b"with id", msg_id="a")).sequence == 3
    await eventually(lambda: both_acks(proxy, acks, 4), what="the ack of the copy")
    assert await stored(nats_through) == 3


async def both_acks(proxy, rule, count):
    return (await fired(proxy, rule)).firings == count


async def test_a_doubled_lpush_is_stored_twice_and_the_client_stays_in_step(
    proxy, redis_client, redis_through, names
):
    key = names.pending_key("sync")
    await proxy.add(Rule(action="duplicate", link="redis", direction="request", command="LPUSH"))
    assert await redis_through.lpush(key, b"task") == 1
    assert await redis_through.llen(key) == 2
    assert await redis_client.lrange(key, 0, -1) == [b"task", b"task"]


async def test_a_delayed_request_comes_after_a_later_one(proxy, redis_client, raw, names):
    key = names.pending_key("sync")
    rule = await proxy.add(
        Rule(action="delay", link="redis", direction="request", command="LPUSH", delay_ms=HOUR_MS)
    )
    reader, writer = raw
    writer.write(f"PING\r\nLPUSH {key} late\r\nLPUSH {key} behind\r\n".encode())
    assert await reader.readline() == b"+PONG\r\n"  # what was before it is not held back
    await eventually(lambda: both_acks(proxy, rule, 1), what="the delay")
    await redis_client.lpush(key, b"early")
    await proxy.remove(rule)
    assert [await reader.readline(), await reader.readline()] == [b":2\r\n", b":3\r\n"]
    assert await redis_client.lrange(key, 0, -1) == [b"behind", b"late", b"early"]


@pytest.mark.parametrize(
    "rule",
    [
        Rule(action="trickle", link="redis", direction="reply", command="GET", bytes_per_s=50.0),
        Rule(action="bandwidth", link="redis", direction="reply", bytes_per_s=50.0),
        Rule(action="bandwidth", link="redis", bytes_per_s=50.0),
        Rule(action="latency", link="redis", direction="reply", delay_ms=HOUR_MS, jitter_ms=10.0),
    ],
    ids=lambda rule: f"{rule.action}-{rule.direction}",
)
async def test_what_slows_a_link_holds_bytes_back_until_it_is_removed(
    proxy, redis_client, raw, names, rule
):
    value = bytes(range(256)) * 400  # 34 minutes at 50 bytes a second
    await redis_client.lpush(names.pending_key("sync"), b"x")
    await redis_client.eval("return redis.call('SET', KEYS[1], ARGV[1])", 1, names.prefix, value)
    number = await proxy.add(rule)
    reader, writer = raw
    writer.write(f"GET {names.prefix}\r\n".encode())
    await eventually(lambda: at_least(proxy, number, 1), what="the firing")
    before = b""
    if rule.action != "latency":
        before = await asyncio.wait_for(reader.read(10), 10)  # it drips
        assert before
    await proxy.remove(number)
    whole = b"$%d\r\n%s\r\n" % (len(value), value)
    assert before + await reader.readexactly(len(whole) - len(before)) == whole
    found = await fired(proxy, number)
    assert found.removed_ns > found.first_ns > 0
    await redis_client.delete(names.prefix, names.pending_key("sync"))


async def at_least(proxy, rule, count):
    return (await fired(proxy, rule)).firings >= count


@pytest.mark.parametrize("action", ["reset", "cut"])
async def test_a_closed_connection_is_an_error_and_the_next_one_works(
    proxy, redis_client, redis_through, names, action
):
    await proxy.add(Rule(action=action, link="redis", direction="request", command="LPUSH", nth=2))
    queue = RedisListQueue(redis_through, names=names)
    await queue.put(b"first")
    with pytest.raises(PublishUnknownError):
        await queue.put(b"second")
    assert await queue.put(b"third") == 2
    assert await redis_client.lrange(names.pending_key("sync"), 0, -1) == [b"third", b"first"]


@pytest.mark.parametrize(("action", "last"), [("reset", ConnectionResetError), ("cut", b"")])
async def test_a_reset_is_seen_as_one_and_a_cut_is_an_end(proxy, raw, action, last):
    await proxy.add(Rule(action=action, link="redis", direction="reply", command="ECHO"))
    reader, writer = raw
    writer.write(b"PING\r\nECHO x\r\n")
    assert await reader.readline() == b"+PONG\r\n"
    if last == b"":
        assert await reader.read() == last
    else:
        with pytest.raises(last):
            await reader.read()


async def test_a_half_open_connection_is_silent_until_it_is_healed(proxy, redis_client, raw, names):
    key = names.pending_key("sync")
    rule = await proxy.add(Rule(action="half_open", link="redis", direction="request", nth=2))
    reader, writer = raw
    writer.write(b"PING\r\n")
    assert await reader.readline() == b"+PONG\r\n"
    writer.write(f"LPUSH {key} lost\r\nLPUSH {key} lost too\r\n".encode())
    await eventually(lambda: at_least(proxy, rule, 1), what="the firing")
    assert (await link_stats(proxy)).half_open == 1
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.3)
    assert await redis_client.llen(key) == 0
    assert await proxy.heal() == 1
    assert await asyncio.wait_for(reader.read(), 10) == b""
    await eventually(lambda: nothing_open(proxy), what="the end of the connection")
    assert (await fired(proxy, rule)).firings == 1  # what was removed is still accounted for


async def nothing_open(proxy):
    found = await link_stats(proxy)
    return (found.open, found.half_open) == (0, 0)


async def test_clients_recover_from_a_partition(proxy, redis_through, nats_through, names):
    queue = RedisListQueue(redis_through, names=names)
    subject = names.subject("sync")
    await queue.put(b"before")
    await nats_through.publish(subject, b"before")
    rules = [await proxy.add(Rule(action="partition", link=link)) for link in proxy.ports]
    with pytest.raises(PublishUnknownError):
        await queue.put(b"lost")
    with pytest.raises(PublishUnknownError):  # a new connection is accepted, and silent
        await queue.put(b"lost")
    with pytest.raises(PublishUnknownError):
        await nats_through.publish(subject, b"lost")
    assert await proxy.heal() == 2
    assert await queue.put(b"after") == 2
    ack = await eventually(lambda: try_to_publish(nats_through, subject), what="a publish")
    assert ack.sequence == 2
    for rule in rules:
        found = await fired(proxy, rule)
        assert found.firings == found.matches > 0
        assert found.hits[0].connection > 0


async def test_after_a_partition_only_what_lost_bytes_is_closed(proxy):
    idle, silent = [
        await asyncio.open_connection("127.0.0.1", proxy.ports["redis"]) for _ in range(2)
    ]
    for reader, writer in (idle, silent):
        writer.write(b"PING\r\n")
        assert await reader.readline() == b"+PONG\r\n"
    rule = await proxy.add(Rule(action="partition", link="redis"))
    fresh = await asyncio.open_connection("127.0.0.1", proxy.ports["redis"])
    silent[1].write(b"PING\r\n")
    await eventually(lambda: at_least(proxy, rule, 2), what="both firings")
    await proxy.remove(rule)
    for reader, _writer in (silent, fresh):
        assert await asyncio.wait_for(reader.read(), 10) == b""
    idle[1].write(b"PING\r\n")
    assert await idle[0].readline() == b"+PONG\r\n"
    for _reader, writer in (idle, silent, fresh):
        writer.close()


@pytest.mark.parametrize("direction", ["request", "reply"])
async def test_a_partition_of_one_direction_lets_the_other_pass(proxy, redis_through, direction):
    counted, ping = "hits:" + direction, b"INCR hits:" + direction.encode() + b"\r\n"
    await redis_through.delete(counted)
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.ports["redis"])
    writer.write(ping)
    assert await reader.readline() == b":1\r\n"
    rule = await proxy.add(Rule(action="partition", link="redis", direction=direction))
    writer.write(ping)
    await eventually(lambda: at_least(proxy, rule, 1), what="the firing")
    fresh = await asyncio.open_connection("127.0.0.1", proxy.ports["redis"])
    fresh[1].write(ping)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(fresh[0].read(1), 0.3)
    await proxy.remove(rule)
    for stream in (reader, fresh[0]):
        assert await asyncio.wait_for(stream.read(), 10) == b""
    # What was sent on the connection that stood was carried out, if requests passed.
    assert int(await redis_through.get(counted)) == (2 if direction == "reply" else 1)
    for stream in (writer, fresh[1]):
        stream.close()


async def try_to_publish(transport, subject):
    try:
        return await transport.publish(subject, b"after")
    except (PublishRefusedError, PublishUnknownError):
        return None


async def test_a_partition_can_refuse_and_keeps_its_port(proxy, redis_through, names):
    port = proxy.ports["redis"]
    rule = await proxy.add(Rule(action="partition", link="redis", refuse=True))
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    with pytest.raises(OSError, match="in use"):
        socket.create_server(("127.0.0.1", port))
    with pytest.raises(PublishRefusedError):
        await RedisListQueue(redis_through, names=names).put(b"never sent")
    await proxy.remove(rule)
    assert await RedisListQueue(redis_through, names=names).put(b"task") == 1


async def test_replies_in_a_pipeline_and_in_a_transaction_are_told_apart(
    proxy, redis_through, names
):
    key = names.pending_key("sync")
    rules = {
        name: await proxy.add(
            Rule(action="pass", link="redis", direction="reply", command=name, count=0)
        )
        for name in ("LMOVE", "XLEN", "EXEC")
    }
    for transaction in (False, True):
        pipeline = redis_through.pipeline(transaction=transaction)
        for _ in range(50):
            pipeline.lmove(key, names.work_key("sync"), "RIGHT", "LEFT")
            pipeline.xlen(names.stream_key("sync"))
        assert len(await pipeline.execute()) == 100
    counts = {name: (await fired(proxy, rule)).matches for name, rule in rules.items()}
    assert counts == {"LMOVE": 100, "XLEN": 100, "EXEC": 1}


async def test_pushed_messages_pass_and_the_statistics_say_so(proxy, redis_client, raw, names):
    rule = await proxy.add(Rule(action="drop", link="redis", direction="reply", count=0, nth=2))
    reader, writer = raw
    writer.write(b"PING\r\n" + f"SUBSCRIBE {names.prefix}\r\n".encode())
    assert await reader.readline() == b"+PONG\r\n"
    assert (await reader.readuntil(b":1\r\n")).startswith(b"*3\r\n$9\r\nsubscribe")
    await redis_client.eval("return redis.call('PUBLISH', KEYS[1], 'hello')", 1, names.prefix)
    assert (await reader.readuntil(b"hello\r\n")).startswith(b"*3\r\n$7\r\nmessage")
    assert (await fired(proxy, rule)).firings == 0
    [trouble] = (await link_stats(proxy)).troubles
    assert "SUBSCRIBE" in trouble.text
    assert trouble.connection == 1


async def test_a_broker_that_is_down_is_a_reset_and_counted(tmp_path, clock):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    links = [LinkSettings(name="redis", protocol="resp", upstream_port=port)]
    proxy = await start_proxy(tmp_path, links, clock=clock)

    async def read():
        reader, _writer = await asyncio.open_connection("127.0.0.1", proxy.ports["redis"])
        await reader.read()

    try:
        with pytest.raises(ConnectionResetError):  # of the read, or of a connect that was slower
            await read()
        found = await link_stats(proxy)
        assert (found.upstream_failures, found.accepted) == (1, 1)
    finally:
        await proxy.stop()


async def test_a_bad_rule_is_an_error_that_helps(proxy):
    with pytest.raises(FaultError, match="did you mean 'BLMOVE'"):
        await proxy.add(Rule(action="drop", link="redis", direction="reply", command="BLMOV"))
    first = await proxy.add(Rule(action="latency", link="redis", delay_ms=1.0))
    with pytest.raises(FaultError, match=f"has 'latency' already, as rule {first}"):
        await proxy.add(Rule(action="latency", link="redis", delay_ms=1.0, direction="reply"))
    await proxy.remove(first)
    with pytest.raises(FaultError, match=f"no rule {first}; at work are none"):
        await proxy.remove(first)


async def test_the_control_socket_answers_whatever_it_is_sent(proxy):
    reader, writer = proxy._reader, proxy._writer
    for line, text in [
        (b"junk", "malformed"),
        (b"[]", "send an object"),
        (b'{"verb": "stat"}', "did you mean 'stats'"),
        (b'{"verb": "add"}', "rule None"),
        (b'{"verb": "remove", "id": "x"}', "no rule 'x'"),
    ]:
        writer.write(line + b"\n")
        answer = json.loads(await reader.readline())
        assert (answer["ok"], text in answer["error"]) == (False, True), answer
    assert len((await proxy.stats()).links) == 2


async def test_an_answer_that_nobody_waited_for_is_not_taken_for_the_next(proxy):
    asked = asyncio.ensure_future(proxy.heal())
    await asyncio.sleep(0)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert len((await proxy.stats()).links) == 2


async def test_a_broker_is_not_read_faster_than_it_may_be_forwarded(proxy, redis_client, names):
    value = b"x" * (8 * HIGH_WATER_BYTES)
    await redis_client.eval("return redis.call('SET', KEYS[1], ARGV[1])", 1, names.prefix, value)
    rule = await proxy.add(
        Rule(action="latency", link="redis", direction="reply", delay_ms=HOUR_MS)
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.ports["redis"])
    writer.write(f"GET {names.prefix}\r\n".encode())
    await eventually(lambda: received(proxy, HIGH_WATER_BYTES), what="the held bytes")
    await asyncio.sleep(0.2)
    assert not await received(proxy, 2 * HIGH_WATER_BYTES)
    await proxy.remove(rule)
    assert len(await reader.readexactly(len(value))) == len(value)
    writer.close()
    await redis_client.delete(names.prefix)


async def received(proxy, size):
    return (await link_stats(proxy)).reply_bytes > size


async def test_what_speaks_resp3_passes_unparsed(proxy, raw):
    rule = await proxy.add(Rule(action="drop", link="redis", direction="reply", command="ECHO"))
    reader, writer = raw
    writer.write(b"HELLO 3\r\nECHO seen\r\n")
    assert (await reader.readuntil(b"seen\r\n")).startswith(b"%")
    found = await link_stats(proxy)
    assert (found.transparent, (await fired(proxy, rule)).firings) == (1, 0)
    assert "no RESP2 reply" in found.troubles[0].text


async def test_a_proxy_that_died_is_an_error_that_says_so(redis_broker, tmp_path, clock):
    links = [LinkSettings(name="redis", protocol="resp", upstream_port=redis_broker.port)]
    proxy = await start_proxy(tmp_path, links, clock=clock)
    (tmp_path / "proxy.log").write_text("its last words")
    psutil.Process(proxy.pid).kill()
    for ask in (proxy.stats, proxy.heal, proxy.stop):
        with pytest.raises(FaultError, match=r"was killed by SIGKILL.*its last words"):
            await ask()


async def test_a_proxy_that_cannot_start_says_why(redis_broker, tmp_path, clock):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        links = [
            LinkSettings(
                name="redis",
                protocol="resp",
                upstream_port=redis_broker.port,
                listen_port=taken.getsockname()[1],
            )
        ]
        with pytest.raises(FaultError, match=r"ended with 2.*in use.*give another"):
            await start_proxy(tmp_path, links, clock=clock)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"--listen": "0.0.0.0:0"}, "loopback only"),
        ({"--upstream": "example.org:6379"}, "loopback only"),
        ({"--upstream": "127.0.0.1:0"}, "no port"),
        ({"--listen": "127.0.0.1:70000"}, "no port"),
        ({"--protocol": "redis"}, "use resp, nats or tcp"),
        ({"--control": "x" * 120}, "use a path of at most"),
        ({"--control": "/nowhere/control"}, "control socket /nowhere/control"),
    ],
)
def test_options_that_cannot_be_used_are_named(tmp_path, changes, text):
    options = {
        "--listen": "127.0.0.1:0",
        "--upstream": "127.0.0.1:6379",
        "--protocol": "resp",
        "--control": str(tmp_path / "c"),
        **changes,
    }
    arguments = [part for pair in options.items() for part in pair]
    done = subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert text in done.stderr


PASS = {
    "none": [],
    "request": [Rule(action="pass", direction="request", count=0)],
    "reply": [Rule(action="pass", direction="reply", count=0)],
    "both": [
        Rule(action="pass", direction="request", count=0),
        Rule(action="pass", direction="reply", count=0),
        Rule(action="latency", delay_ms=0.0, jitter_ms=0.5),
        Rule(action="bandwidth", bytes_per_s=5e7),
    ],
}
junk = st.binary(min_size=1, max_size=100_000)


@st.composite
def traffic(draw):
    """A protocol, and what goes each way: frames, and in some examples junk behind them."""
    protocol = draw(st.sampled_from(["resp", "nats"]))
    ways = []
    for direction in ("request", "reply"):
        frames = st.lists(VALID[f"{protocol} {direction}"], max_size=20)
        ways.append(b"".join([*draw(frames), *draw(st.lists(junk, max_size=1))]))
    return protocol, *ways


def pieces(data, sizes):
    """The bytes in pieces of the given sizes, repeated."""
    at, number = 0, 0
    while at < len(data):
        size = sizes[number % len(sizes)] * (1 + len(data) // 2000)
        yield data[at : at + size]
        at, number = at + size, number + 1


async def send_in_pieces(writer, data, sizes):
    for piece in pieces(data, sizes):
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0)
    writer.write_eof()


async def forward(protocol, request, reply, sizes, rules):
    """What came out at both ends of a link, and its statistics. Both sides send at once."""
    arrived = asyncio.get_running_loop().create_future()

    async def serve(reader, writer):
        _none, data = await asyncio.gather(send_in_pieces(writer, reply, sizes), reader.read())
        arrived.set_result(data)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    clock = SystemClock()
    upstream_port = server.sockets[0].getsockname()[1]
    link = Link(LinkSettings(name="a", protocol=protocol, upstream_port=upstream_port), clock)
    try:
        port = await link.listen()
        for number, rule in enumerate(rules):
            await link.add(ActiveRule(number, rule, clock))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        _none, answer = await asyncio.gather(send_in_pieces(writer, request, sizes), reader.read())
        writer.close()
        return await arrived, answer, link.counted()
    finally:
        link.close()
        server.close()


@settings(max_examples=60, deadline=None)
@given(
    traffic(),
    st.lists(st.integers(1, 400), min_size=1, max_size=5),
    st.sampled_from(sorted(PASS)),
)
def test_bytes_arrive_as_they_were_sent(example, sizes, rules):
    """Frames or junk, whichever way they are split, with rules that only look, or without."""
    protocol, request, reply = example
    got = asyncio.run(
        asyncio.wait_for(forward(protocol, request, reply, sizes, PASS[rules]), timeout=20)
    )
    assert got[0] == request
    assert got[1] == reply
    assert (got[2].request_bytes, got[2].reply_bytes) == (len(request), len(reply))
    assert got[2].discarded_bytes == 0


@pytest.mark.parametrize("rules", sorted(PASS))
def test_a_connection_that_is_not_understood_goes_on_and_the_statistics_say_so(rules):
    request = b"PING\r\n\x16\x03\x01 hello" + bytes(1000)
    got = asyncio.run(
        asyncio.wait_for(forward("resp", request, b"+OK\r\n", [7], PASS[rules]), timeout=20)
    )
    assert got[:2] == (request, b"+OK\r\n")
    assert (got[2].transparent, got[2].request_frames) == (1, 1)
    [trouble] = got[2].troubles
    assert "request: " in trouble.text
    assert "unparsed" in trouble.text


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["resp", "nats"]),
    st.data(),
    st.integers(1, 6),
    st.integers(0, 3),
    st.sampled_from([("drop", 0), ("duplicate", 2)]),
    st.lists(st.integers(1, 60), min_size=1, max_size=5),
)
def test_exactly_the_frames_of_a_rule_are_changed(protocol, data, nth, count, act, sizes):
    """Requests, whichever way they are split; all other bytes arrive as they were sent."""
    frames = data.draw(st.lists(VALID[f"{protocol} request"], min_size=1, max_size=12))
    action, copies = act
    rule = Rule(action=action, direction="request", nth=nth, count=count)
    last = nth + count if count else len(frames) + 1
    expected = [
        frame * (copies if nth <= number < last else 1)
        for number, frame in enumerate(frames, start=1)
    ]
    got = asyncio.run(
        asyncio.wait_for(forward(protocol, b"".join(frames), b"", sizes, [rule]), timeout=20)
    )
    assert got[0] == b"".join(expected)
    assert got[2].discarded_bytes == len(b"".join(frames)) - sum(
        len(frame) for number, frame in enumerate(frames, 1) if copies or not nth <= number < last
    )


@settings(max_examples=40, deadline=None)
@given(st.data(), st.integers(1, 6), st.lists(st.integers(1, 60), min_size=1, max_size=5))
def test_exactly_one_reply_of_nats_is_dropped(data, nth, sizes):
    frames = data.draw(st.lists(VALID["nats reply"], min_size=1, max_size=12))
    rule = Rule(action="drop", direction="reply", nth=nth)
    got = asyncio.run(
        asyncio.wait_for(forward("nats", b"", b"".join(frames), sizes, [rule]), timeout=20)
    )
    assert got[1] == b"".join(frames[: nth - 1] + frames[nth:])


async def test_a_rule_added_in_the_middle_of_a_frame_leaves_that_frame_alone(
    proxy, redis_client, raw, names
):
    key = names.pending_key("sync")
    reader, writer = raw
    whole = f"*3\r\n$5\r\nLPUSH\r\n${len(key)}\r\n{key}\r\n$3\r\nabc\r\n".encode()
    writer.write(b"PING\r\n" + whole[:20])
    assert await reader.readline() == b"+PONG\r\n"
    rule = await proxy.add(Rule(action="drop", link="redis", direction="request", count=0))
    writer.write(whole[20:] + b"PING\r\n")
    assert await reader.readline() == b":1\r\n"
    assert await redis_client.lrange(key, 0, -1) == [b"abc"]
    await eventually(lambda: at_least(proxy, rule, 1), what="the drop of the PING")
    assert [hit.what for hit in (await fired(proxy, rule)).hits] == ["PING"]


def test_a_rule_that_was_overruled_fires_at_its_next_match():
    """Two of one firing each: both fire, though their first match was the same frame."""
    fields = {"action": "duplicate", "link": "a", "direction": "request", "command": "PING"}
    rules = [parse_rule({**fields, "nth": 2}, {"a": "resp"}) for _ in range(2)]
    request = b"*1\r\n$4\r\nPING\r\n" * 4
    got = asyncio.run(asyncio.wait_for(forward("resp", request, b"", [7], rules), timeout=20))
    assert got[0] == b"*1\r\n$4\r\nPING\r\n" * 6
