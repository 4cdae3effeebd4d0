"""Commands over one shared connection: in order, and none of them lost or answered for another."""

import asyncio
import contextlib

import hiredis
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from hookbench.brokers.ports import free_port
from hookbench.errors import PublishRefusedError, PublishUnknownError
from hookbench.queues.redis_client import (
    ClosedForGood,
    connect_redis,
)
from hookbench.queues.redis_errors import NeverSentError
from hookbench.queues.redis_list import RedisListQueue
from hookbench.queues.redis_pipelined import PipelinedRedis
from tests.conftest import eventually

ANSWER_TIMEOUT_S = 0.3
SETTING_UP = (b"CLIENT", b"HELLO", b"SELECT", b"PING")


class StubServer:
    """Speaks the protocol and does what a test says: what a real Redis does only by bad luck."""

    def __init__(self):
        self.writes = []
        """Of each read from a socket the commands in it, those of the set-up left out."""
        self.answers = []
        """What is answered next; ``None`` for nothing, without one an increasing number."""
        self.connections = 0
        self.writers = []
        self._count = 0

    async def serve(self, reader, writer):
        self.connections += 1
        self.writers.append(writer)
        parser = hiredis.Reader()
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 20):
                parser.feed(data)
                commands = []
                while (command := parser.gets()) is not False:
                    if command[0].upper() in SETTING_UP:
                        writer.write(b"+OK\r\n")
                    else:
                        commands.append(command)
                if commands:
                    self.writes.append(commands)
                writer.writelines(self._answer() for _command in commands)
        writer.close()

    def _answer(self):
        if self.answers:
            return self.answers.pop(0) or b""
        self._count += 1
        return b":%d\r\n" % self._count


@pytest.fixture
async def stub():
    server = StubServer()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = f"redis://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    yield server
    for writer in server.writers:
        writer.close()
    listening.close()
    await listening.wait_closed()


@pytest.fixture
async def shared(stub):
    """A client of the stub that does not wait for long."""
    pool = ClosedForGood.from_url(stub.url, protocol=2)
    client = PipelinedRedis(pool, answer_timeout_s=ANSWER_TIMEOUT_S)
    yield client
    await client.aclose()


@pytest.fixture
async def client(redis_broker):
    client = connect_redis(redis_broker.url)
    yield client
    await client.aclose()


async def test_what_is_asked_in_one_turn_is_one_write(stub, shared):
    await shared.lpush("key", b"first")  # it is connected now
    found = await asyncio.gather(*(shared.lpush("key", b"%d" % number) for number in range(50)))
    assert found == list(range(2, 52))
    assert [len(write) for write in stub.writes] == [1, 50]
    assert [command[2] for command in stub.writes[1]] == [b"%d" % number for number in range(50)]
    assert stub.connections == 1


async def test_answers_reach_whoever_asked(client, names):
    """An error in the middle is one command's alone."""
    key, text = names.pending_key("sync"), names.pending_key("text")
    await client.set(text, b"no list")
    asked = [client.lpush(text if number == 20 else key, b"x") for number in range(50)]
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(found[20], ResponseError)
    assert "WRONGTYPE" in str(found[20])
    assert found[:20] + found[21:] == list(range(1, 50))


async def test_a_read_that_waits_holds_nobody_up(client, names):
    key = names.pending_key("sync")
    waiting = asyncio.ensure_future(client.blmove(names.work_key("x"), key, 20, "RIGHT", "LEFT"))
    await asyncio.sleep(0.05)
    assert await asyncio.wait_for(client.lpush(key, b"x"), 10) == 1
    await client.lpush(names.work_key("x"), b"end")
    assert await waiting == b"end"


async def test_more_than_a_socket_takes(client, names):
    payloads = [bytes([number]) * 4_000_000 for number in range(20)]
    key = names.pending_key("sync")
    assert await asyncio.gather(*(client.lpush(key, item) for item in payloads)) == [*range(1, 21)]
    assert await client.lrange(key, 0, -1) == payloads[::-1]
    await client.delete(key)


async def test_commands_under_way_are_unknown_when_the_connection_ends(stub, shared, names):
    queue = RedisListQueue(shared, names=names)
    await queue.put(b"{}")
    stub.answers = [None] * 10
    putting = [asyncio.ensure_future(queue.put(b"%d" % number)) for number in range(10)]
    await eventually(lambda: len(stub.writes) == 2, what="the write")
    stub.writers[0].transport.abort()
    found = await asyncio.gather(*putting, return_exceptions=True)
    assert [type(error) for error in found] == [PublishUnknownError] * 10
    assert await queue.put(b"{}") == 2  # over a new connection; nothing was sent again
    assert sum(len(write) for write in stub.writes) == 12
    assert stub.connections == 2


async def test_a_server_that_does_not_answer_is_given_up(stub, shared, names):
    stub.answers = [None, b":7\r\n"]
    queue = RedisListQueue(shared, names=names)
    with pytest.raises(PublishUnknownError, match=r"no answer in 0\.3 s"):
        await queue.put(b"{}")
    assert await queue.put(b"{}") == 7
    assert stub.connections == 2


async def test_the_oldest_command_decides_when_it_is_given_up(stub, shared):
    """Those that come after it do not put it off."""
    loop = asyncio.get_running_loop()
    stub.answers = [b":1\r\n", *(None for _ in range(10_000))]
    await shared.llen("key")
    silent = shared.llen("key")
    begun_s = loop.time()
    later = []
    while not silent.done():
        later.append(shared.llen("key"))
        await asyncio.sleep(ANSWER_TIMEOUT_S / 10)
        assert loop.time() - begun_s < 60
    assert isinstance(silent.exception(), RedisTimeoutError)
    found = await asyncio.gather(*later, return_exceptions=True)
    assert {type(error) for error in found} <= {RedisTimeoutError, RedisConnectionError}


async def test_one_that_was_asked_later_has_its_whole_time_and_then_ends(stub, shared):
    stub.answers = [b":1\r\n", None]
    await shared.llen("key")
    await asyncio.sleep(ANSWER_TIMEOUT_S / 2)
    loop = asyncio.get_running_loop()
    begun_s = loop.time()
    with pytest.raises(RedisTimeoutError):
        await asyncio.wait_for(shared.llen("key"), 60)
    assert loop.time() - begun_s >= ANSWER_TIMEOUT_S


async def test_what_waited_for_room_is_sent_when_there_is_some(stub, shared):
    """As the transport says, when the server reads no more and when it goes on."""
    await shared.llen("key")
    shared._shared.pause_writing()
    waiting = shared.llen("key")
    await asyncio.sleep(0.05)
    assert len(stub.writes) == 1
    shared._shared.resume_writing()
    assert await asyncio.wait_for(_of(waiting), 60) == 2


async def test_without_a_server_nothing_was_sent(names):
    client = connect_redis(f"redis://127.0.0.1:{free_port()}")
    queue = RedisListQueue(client, names=names)
    found = await asyncio.gather(*(queue.put(b"{}") for _ in range(5)), return_exceptions=True)
    assert [type(error) for error in found] == [PublishRefusedError] * 5
    await client.aclose()


async def test_a_caller_that_is_cancelled_takes_no_other_answer(shared):
    await shared.llen("key")
    asked = [asyncio.ensure_future(_of(shared.llen("key"))) for _ in range(3)]
    await asyncio.sleep(0)
    asked[1].cancel()
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert found[0] == 2
    assert isinstance(found[1], asyncio.CancelledError)
    assert found[2] == 4


async def test_a_node_that_became_a_replica_is_left(stub, shared):
    """After the answers to what was under way, so that none of them is unknown for it."""
    stub.answers = [b":1\r\n", b"-READONLY You can't write against a read only replica.\r\n"]
    await shared.llen("key")
    found = await asyncio.gather(
        *(shared.lpush("key", b"x") for _ in range(3)), return_exceptions=True
    )
    assert isinstance(found[0], ReadOnlyError)
    assert found[1:] == [1, 2]
    assert await shared.llen("key") == 3
    assert stub.connections == 2


async def test_an_answer_that_makes_no_sense_ends_the_connection(stub, shared):
    stub.answers = [b"what?\r\n"]
    with pytest.raises(RedisConnectionError, match="Protocol error"):
        await shared.llen("key")
    assert await shared.llen("key") == 1
    assert stub.connections == 2


async def test_what_is_under_way_has_an_end_when_the_client_is_closed(stub, shared):
    await shared.llen("key")
    stub.answers = [None, None]
    asked = [shared.llen("key") for _ in range(2)]
    await eventually(lambda: len(stub.writes) == 2, what="the write")
    shared._shared.pause_writing()
    late = shared.llen("key")  # waits for a server that reads no more
    await shared.aclose()
    found = await asyncio.gather(*asked, late, return_exceptions=True)
    assert [type(error) for error in found] == [RedisConnectionError] * 2 + [NeverSentError]
    with pytest.raises(NeverSentError, match="this client was closed"):
        await shared.llen("key")


async def test_a_pipeline_goes_along(client, names):
    key, text = names.pending_key("sync"), names.pending_key("text")
    await client.set(text, b"no list")
    pipeline = client.pipeline(transaction=False)
    pipeline.lpush(key, b"a")
    pipeline.lpush(text, b"b")
    pipeline.llen(key)
    first, error, length = await pipeline.execute(raise_on_error=False)
    assert (first, length) == (1, 1)
    assert isinstance(error, ResponseError)
    pipeline.lpush(text, b"b")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await pipeline.execute()
    pipeline.lpush(key, b"c")  # what was executed is forgotten
    assert await pipeline.execute() == [2]


async def test_a_transaction_is_one_write(client, stub, shared, names):
    key = names.pending_key("sync")
    pipeline = client.pipeline(transaction=True)
    pipeline.lpush(key, b"a")
    pipeline.lrem(key, 1, b"a")
    assert await pipeline.execute() == [1, 1]
    await shared.llen("key")
    stub.answers = [b"+OK\r\n", b"+QUEUED\r\n", b"*1\r\n:1\r\n"]
    pipeline = shared.pipeline(transaction=True)
    pipeline.llen("key")
    assert await pipeline.execute() == [1]
    assert [[command[0] for command in write] for write in stub.writes] == [
        [b"LLEN"],
        [b"MULTI", b"LLEN", b"EXEC"],
    ]


async def test_a_transaction_that_is_refused_names_the_command(client, names):
    pipeline = client.pipeline(transaction=True)
    pipeline.lpush(names.pending_key("sync"), b"a")
    pipeline.execute_command("LPUSH", names.pending_key("sync"))
    with pytest.raises(ResponseError, match="wrong number of arguments"):
        await pipeline.execute()
    assert await client.llen(names.pending_key("sync")) == 0


async def _of(awaitable):
    return await awaitable
