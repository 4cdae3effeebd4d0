"""Whether a JetStream syncs its disk, read from real servers."""

import logging

import msgspec
import pytest

from hookbench.brokers.ports import free_port
from hookbench.brokers.process import spawn
from hookbench.brokers.resolve import resolve_nats
from hookbench.brokers.sync_check import check_synced
from hookbench.errors import BrokerUnsuitableError
from hookbench.migration.measures import Measures
from hookbench.migration.phases import Phase
from hookbench.migration.service import open_service
from hookbench.queues.connections import Connections
from hookbench.queues.jetstream import StreamSettings
from hookbench.task import Names
from tests.conftest import eventually

SYNCED = Measures(synced_only=True)


@pytest.fixture
async def server_with(tmp_path):
    """Starts a server with a line of its JetStream block; NATS URL and monitoring URL."""
    servers = []

    async def start(line):
        folder = tmp_path / str(len(servers))
        folder.mkdir()
        configuration = folder / "nats.conf"
        configuration.write_text(
            f'listen: "127.0.0.1:-1"\nhttp: "127.0.0.1:-1"\nports_file_dir: "{folder}"\n'
            f'jetstream {{ store_dir: "{folder}/js"\n{line}\n}}\n'
        )
        binary = resolve_nats(env={"PATH": ""}).binary
        server = spawn("nats", [binary, "-c", str(configuration)])
        servers.append(server)

        def ports():
            try:
                return msgspec.json.decode(*(file.read_bytes() for file in folder.glob("*.ports")))
            except (TypeError, msgspec.DecodeError):  # no file yet, or half of one
                return None

        found = await eventually(ports, timeout_s=30.0)
        return found["nats"][0], found["monitoring"][0]

    yield start
    for server in servers:
        server.stop()


@pytest.mark.parametrize(
    ("line", "interval_s"), [("sync_interval: 1s", 1.0), ("sync_interval: always", 0.0)]
)
async def test_what_syncs_within_seconds_is_taken(server_with, line, interval_s):
    _url, monitor = await server_with(line)
    assert (await check_synced(monitor)).interval_s == interval_s


async def test_as_shipped_it_is_refused_by_the_producer(server_with, clock):
    url, monitor = await server_with("")
    with pytest.raises(BrokerUnsuitableError, match="every 120 s"):
        await check_synced(monitor)
    connections = Connections(
        redis_url=None, nats_url=url, names=Names(), clock=clock, nats_monitor_url=monitor
    )
    try:
        with pytest.raises(BrokerUnsuitableError, match="sync_interval"):
            await open_service(Phase.NATS_ONLY, connections, Names(), measures=SYNCED)
        await open_service(Phase.NATS_ONLY, connections, Names())
    finally:
        await connections.close()


async def test_one_node_of_several_is_enough_to_refuse(server_with):
    _url, good = await server_with("sync_interval: 1s")
    _url, bad = await server_with("")
    with pytest.raises(BrokerUnsuitableError):
        await check_synced(f"{good},{bad}")


async def test_what_cannot_be_read_is_said_and_taken(nats_broker, names, clock, caplog):
    report = await check_synced(f"http://127.0.0.1:{free_port()}")
    assert report.interval_s is None
    assert "not readable" in report.text
    connections = Connections(
        redis_url=None, nats_url=nats_broker.url, names=names, clock=clock, stream=StreamSettings()
    )
    try:
        with caplog.at_level(logging.WARNING):
            await open_service(Phase.NATS_ONLY, connections, names, measures=SYNCED)
        assert "sync interval unknown" in caplog.text
        await (await connections.nats()).jetstream.delete_stream(names.stream)
    finally:
        await connections.close()


async def test_what_the_operator_says_counts_where_nothing_can_be_read():
    with pytest.raises(BrokerUnsuitableError, match="as the operator says"):
        await check_synced(None, 120.0)
    assert (await check_synced(None, 0.0)).interval_s == 0.0
