"""Both brokers over TLS: what they show is checked, and so is the name in it.

The redis-server of the wheel is built without TLS, so a front of the test's own ends it, as a proxy
in front of Redis does: what the client sees is the same.
"""

import asyncio
import contextlib
import ssl

import pytest

from hookbench.brokers.durability import Durability
from hookbench.brokers.embedded import start_nats
from hookbench.brokers.probe import probe_nats, probe_redis
from hookbench.brokers.resolve import resolve_nats
from hookbench.errors import BrokerUnreachableError, SettingError
from hookbench.queues.access import nats_access, redis_access
from hookbench.queues.jetstream import StreamSettings, ensure_stream
from hookbench.queues.redis_client import connect_redis
from hookbench.queues.redis_list import RedisListQueue
from hookbench.queues.transport import AppTransport

HOST = "127.0.0.1"


def server_context(certificate, ca=None):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=ca)
    context.load_cert_chain(certificate)
    if ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


@contextlib.asynccontextmanager
async def front(port, context):
    """Ends TLS and hands everything on; its port."""
    tasks = set()

    async def copy(reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader, writer):
        there, back = await asyncio.open_connection(HOST, port)
        for pair in ((reader, back), (there, writer)):
            task = asyncio.ensure_future(copy(*pair))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(serve, HOST, 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("pipelined", [True, False])
@pytest.mark.parametrize("form", ["rediss://{}/0", "rediss+replica://{}"])
async def test_redis_over_tls(redis_broker, authority, names, form, pipelined):
    async with front(redis_broker.port, server_context(authority.certificate(HOST))) as port:
        url = f"{form.format(f'{HOST}:{port}')}?tls_ca={authority.file}"
        assert (await probe_redis(url)).kind == "redis"
        client = connect_redis(url, block_timeout_secs=1.0, pipelined=pipelined)
        queue = RedisListQueue(client, names=names)
        await asyncio.gather(*(queue.put(b"task %d" % number) for number in range(5)))
        taken = []
        while len(taken) < 5:
            taken += await queue.receive(5, 0.2)
        await asyncio.gather(*(delivery.ack() for delivery in taken))
        assert (await queue.depth()).in_flight == 0
        await queue.close()
        await client.aclose()


@pytest.mark.parametrize("wrong", ["authority", "host"])
async def test_redis_with_a_certificate_of_somebody_else_is_refused(
    redis_broker, authority, stranger, names, wrong
):
    certificate = authority.certificate("other.example" if wrong == "host" else HOST)
    ca = authority if wrong == "host" else stranger
    async with front(redis_broker.port, server_context(certificate)) as port:
        url = f"rediss://{HOST}:{port}/0?tls_ca={ca.file}"
        with pytest.raises(BrokerUnreachableError, match=r"(?i)certificate verify failed"):
            await probe_redis(url)
        client = connect_redis(url)
        with pytest.raises(Exception, match=r"(?i)certificate verify failed"):
            await RedisListQueue(client, names=names).put(b"task")
        await client.aclose()


async def test_redis_that_wants_a_certificate_is_shown_one(redis_broker, authority):
    context = server_context(authority.certificate(HOST), authority.file)
    own = authority.certificate("worker.example")
    async with front(redis_broker.port, context) as port:
        url = f"rediss://{HOST}:{port}/0?tls_ca={authority.file}"
        assert (await probe_redis(f"{url}&tls_cert={own}")).version
        with pytest.raises(BrokerUnreachableError):
            await probe_redis(url)


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory, authority):
    """A nats-server with TLS; with a host it is of that name."""
    with contextlib.ExitStack() as stack:

        def start(host=HOST, *, verify=False):
            lines = [
                "tls {", f'  cert_file: "{authority.certificate(host)}"',
                f'  key_file: "{authority.certificate(host)}"',
                f'  ca_file: "{authority.file}"', f"  verify: {str(verify).lower()}", "}",
            ]  # fmt: skip
            broker = start_nats(
                resolve_nats(env={"PATH": ""}),
                tmp_path_factory.mktemp("tls"),
                Durability.LAZY,
                more=lines,
            )
            stack.callback(broker.stop)
            return broker.port

        yield start


async def test_nats_over_tls(encrypted, authority, stranger, names):
    port = encrypted()
    url = f"tls://{HOST}:{port}?tls_ca={authority.file}"
    assert (await probe_nats(url)).kind == "nats"
    async with await AppTransport.connect(url, names=names) as transport:
        await ensure_stream(transport, StreamSettings(storage="memory"))
        acks = await asyncio.gather(
            *(transport.publish(names.subject("sync"), b"task") for _ in range(20))
        )
        assert sorted(ack.sequence for ack in acks) == list(range(1, 21))
    for ca in (f"?tls_ca={stranger.file}", ""):
        with pytest.raises(BrokerUnreachableError, match=r"no TLS with this server.*tls_ca"):
            await AppTransport.connect(f"tls://{HOST}:{port}{ca}")


async def test_nats_of_another_name_is_refused(encrypted, authority):
    url = f"tls://{HOST}:{encrypted('other.example')}?tls_ca={authority.file}"
    with pytest.raises(BrokerUnreachableError, match="the host in the URL"):
        await AppTransport.connect(url)


async def test_nats_that_wants_a_certificate_is_shown_one(encrypted, authority):
    url = f"tls://{HOST}:{encrypted(verify=True)}?tls_ca={authority.file}"
    own = authority.certificate("worker.example")
    async with await AppTransport.connect(f"{url}&tls_cert={own}&tls_key={own}") as transport:
        assert transport.max_payload_bytes > 0
    with pytest.raises(BrokerUnreachableError):
        await AppTransport.connect(url)


async def test_no_password_is_sent_to_a_server_without_tls(nats_broker, authority):
    """nats-py alone would go on in plain text."""
    url = f"tls://me:secret@{HOST}:{nats_broker.port}?tls_ca={authority.file}"
    with pytest.raises(BrokerUnreachableError, match="has no TLS, and nothing is sent") as raised:
        await AppTransport.connect(url)
    assert "secret" not in str(raised.value)


def test_files_that_are_none_are_named(tmp_path, authority):
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    for query, named in (
        (f"tls_ca={broken}", "tls_ca .*no certificates"),
        (f"tls_ca={tmp_path}/none.pem", "tls_ca .*No such file"),
        (f"tls_ca={tmp_path}", "tls_ca .*is no file"),
        (f"tls_cert={broken}", "tls_cert .*cannot be used"),
        (f"tls_key={authority.file}", "tls_key needs tls_cert"),
    ):
        for scheme in ("rediss", "tls"):
            read = redis_access if scheme == "rediss" else nats_access
            with pytest.raises(SettingError, match=named):
                read(f"{scheme}://h:1?{query}")
