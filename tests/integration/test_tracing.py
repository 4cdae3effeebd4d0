"""The context of a trace travels with its task over both brokers."""

import asyncio
import gzip
import importlib
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec
import pytest

from hookbench import __version__
from hookbench import tracing as tracing_module
from hookbench.errors import DecodeError, SettingError
from hookbench.ledger.events import Broker
from hookbench.migration.measures import parse_measures
from hookbench.migration.phases import Phase, write_route
from hookbench.migration.service import open_service
from hookbench.queues.connections import Connections
from hookbench.queues.jetstream import StreamSettings
from hookbench.queues.redis_list import RedisListQueue
from hookbench.task import decode_task, encode_task
from hookbench.trace_context import TRACEPARENT, trace_headers
from hookbench.tracing import Tracing, open_tracing
from hookbench.worker.service import WorkerService, WorkerSettings
from tests.conftest import eventually
from tests.integration.conftest import Process

CONTEXT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_the_context_is_in_the_payload_where_every_reader_leaves_it(make_task):
    task = make_task()
    plain = encode_task(task)
    assert trace_headers(plain) == {}
    traced = msgspec.structs.replace(task, payload=task.payload | {TRACEPARENT: CONTEXT})
    assert trace_headers(encode_task(traced)) == {TRACEPARENT: CONTEXT}
    assert decode_task(encode_task(traced)).payload[TRACEPARENT] == CONTEXT
    beside = plain[:-1] + f',"{TRACEPARENT}":"{CONTEXT}"}}'.encode()
    with pytest.raises(DecodeError, match="traceparent"):
        decode_task(beside)


def test_a_payload_with_a_key_of_that_name_has_no_header(make_task):
    assert trace_headers(encode_task(make_task(payload={TRACEPARENT: 7}))) == {}
    assert trace_headers(b"no task") == {}


@pytest.fixture
def traced(names):
    """Tracing whose spans stay in memory."""
    sdk = pytest.importorskip("opentelemetry.sdk.trace", reason="hookbench[otel] is not installed")
    export = importlib.import_module("opentelemetry.sdk.trace.export")
    memory = importlib.import_module("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    exporter, provider = memory.InMemorySpanExporter(), sdk.TracerProvider()
    provider.add_span_processor(export.SimpleSpanProcessor(exporter))
    return Tracing(provider, names=names, version="1"), exporter


@pytest.mark.parametrize(
    ("phase", "system"), [(Phase.REDIS_ONLY, "redis"), (Phase.NATS_ONLY, "nats")]
)
async def test_an_execution_is_a_child_of_its_put(
    traced, redis_broker, nats_broker, names, clock, make_task, phase, system
):
    tracing, exporter = traced
    urls = {"redis_url": redis_broker.url, "nats_url": nats_broker.url}
    stream = StreamSettings(storage="memory")
    connections = Connections(**urls, names=names, clock=clock, stream=stream)
    tasks = [make_task() for _ in range(3)]
    attempts = []

    async def handler(task, execution):
        attempts.append((task.id, execution.attempt))
        if len(attempts) == 1:
            raise OSError("at first")
        if len(attempts) == 4:
            worker.request_stop()

    worker = WorkerService(
        WorkerSettings(
            **urls,
            phase=phase,
            names=names,
            stream=stream,
            block_timeout_secs=0.2,
            measures=parse_measures("ack_after"),
        ),
        handler,
        clock=clock,
        around=tracing.processing,
    )
    try:
        service = await open_service(phase, connections, names, traced=True)
        for task in tasks:
            await tracing.send(service, task)
        await asyncio.wait_for(worker.run(), 30)
    finally:
        await connections.close()
    spans = exporter.get_finished_spans()
    sent = {
        span.attributes["messaging.message.id"]: span
        for span in spans
        if span.kind.name == "PRODUCER"
    }
    processed = [span for span in spans if span.kind.name == "CONSUMER"]
    assert set(sent) == {str(task.id) for task in tasks}
    assert len(processed) == 4
    assert len({span.context.trace_id for span in sent.values()}) == 3
    for span in processed:
        put = sent[span.attributes["messaging.message.id"]]
        assert span.context.trace_id == put.context.trace_id
        assert span.parent.span_id == put.context.span_id
        traced_as = f"00-{put.context.trace_id:032x}-{put.context.span_id:016x}-01"
        (task,) = [task for task in tasks if str(task.id) == put.attributes["messaging.message.id"]]
        whole = msgspec.structs.replace(task, payload=task.payload | {TRACEPARENT: traced_as})
        assert span.attributes["messaging.message.body.size"] == len(encode_task(whole))
        group = names.consumer_of("sync") if system == "nats" else None
        assert span.attributes.get("messaging.consumer.group.name") == group
        assert put.attributes["hookbench.route"] == write_route(phase)
        for each in (span, put):
            assert each.attributes["hookbench.repository"] == task.repo_id
            assert each.attributes["messaging.destination.name"] == names.subject("sync")
        assert span.attributes["messaging.system"] == system
        assert span.attributes["messaging.operation.type"] == "process"
        assert span.name == f"process {names.subject('sync')}"
    (failed,) = [span for span in processed if not span.status.is_ok]
    assert "at first" in failed.status.description
    again = [span for span in processed if span.attributes["hookbench.attempt"] == 2]
    assert [span.parent.span_id for span in again] == [failed.parent.span_id]


async def test_both_brokers_hold_the_same_bytes_and_nats_the_header(
    traced, redis_broker, nats_broker, redis_client, transport, names, clock, make_task
):
    tracing, exporter = traced
    connections = Connections(
        redis_url=redis_broker.url,
        nats_url=nats_broker.url,
        names=names,
        clock=clock,
        stream=StreamSettings(storage="memory"),
    )
    try:
        service = await open_service(Phase.DUAL_WRITE, connections, names, traced=True)
        receipt = await tracing.send(service, make_task())
    finally:
        await connections.close()
    (delivery,) = await RedisListQueue(redis_client, names=names).receive(1, 1.0)
    message = await transport.jetstream.get_msg(names.stream, receipt.sequence)
    assert message.data == delivery.payload
    assert delivery.broker is Broker.REDIS
    (span,) = exporter.get_finished_spans()
    ids = f"{span.context.trace_id:032x}-{span.context.span_id:016x}"
    carried = message.headers[TRACEPARENT]
    assert carried.startswith(f"00-{ids}-")
    assert decode_task(message.data).payload[TRACEPARENT] == carried


async def test_a_task_that_is_part_of_a_trace_stays_in_it(
    traced, redis_broker, redis_client, names, clock, make_task
):
    tracing, exporter = traced
    connections = Connections(redis_url=redis_broker.url, nats_url=None, names=names, clock=clock)
    try:
        service = await open_service(Phase.REDIS_ONLY, connections, names, traced=True)
        await tracing.send(service, make_task(payload={TRACEPARENT: CONTEXT}))
    finally:
        await connections.close()
    _version, trace_id, parent_id, _flags = CONTEXT.split("-")
    (span,) = exporter.get_finished_spans()
    assert f"{span.context.trace_id:032x}" == trace_id
    assert f"{span.parent.span_id:016x}" == parent_id
    (delivery,) = await RedisListQueue(redis_client, names=names).receive(1, 1.0)
    carried = decode_task(delivery.payload).payload[TRACEPARENT]
    assert carried == f"00-{trace_id}-{span.context.span_id:016x}-01"


class Stuck:
    """A provider whose endpoint takes what it is sent and never answers."""

    def __init__(self):
        self.asked, self.end = threading.Event(), threading.Event()

    def get_tracer(self, *_named):
        return None

    def shutdown(self):
        self.asked.set()
        self.end.wait()


def test_what_is_left_is_sent_at_the_end_and_not_waited_for_long(traced, names, monkeypatch):
    del traced  # it knows whether OpenTelemetry is there
    monkeypatch.setattr(tracing_module, "LAST_SEND_S", 0.2)
    provider = Stuck()
    closing = threading.Thread(
        target=Tracing(provider, names=names, version="1").close, daemon=True
    )
    closing.start()
    closing.join(10.0)
    still_closing = closing.is_alive()
    provider.end.set()
    assert provider.asked.is_set()
    assert not still_closing


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/v1/traces", "127.0.0.1:4318"])
def test_an_endpoint_that_is_no_url_is_named(names, url):
    with pytest.raises(SettingError, match=f"--traces '{url}': use a URL"):
        open_tracing(url, role="worker", names=names, version="1")


def test_without_opentelemetry_what_to_install_is_said(names, monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(SettingError, match=r"install hookbench\[otel\]"):
        open_tracing("http://127.0.0.1:1/", role="worker", names=names, version="1")


class Collector:
    """An OTLP endpoint: what arrives is decoded by OpenTelemetry's own description of it."""

    def __init__(self, requests):
        self.spans = []
        """Each with the name of the service that sent it."""
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                data = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    data = gzip.decompress(data)
                collector.take(self.path, requests.ExportTraceServiceRequest.FromString(data))
                answer = requests.ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_arguments):
                """Nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1/traces"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def take(self, path, request):
        assert path == "/v1/traces"
        for resource in request.resource_spans:
            told = {item.key: item.value.string_value for item in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += [(told["service.name"], span) for span in scope.spans]
            assert told["service.version"] == __version__

    def of(self, service):
        return [span for name, span in self.spans if name == service]

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def collector():
    requests = pytest.importorskip(
        "opentelemetry.proto.collector.trace.v1.trace_service_pb2",
        reason="hookbench[otel] is not installed",
    )
    opened = Collector(requests)
    yield opened
    opened.close()


def text_attributes(span):
    return {item.key: item.value.string_value for item in span.attributes}


async def test_a_collector_gets_each_task_as_one_trace(collector, fleet, transport):
    """By the commands, over both brokers' own connections and OTLP as it is on the wire."""
    worker = fleet.worker("--phase=nats_only", f"--traces={collector.url}")
    words = ["produce", *fleet.arguments(), "--phase=nats_only", "--count=20", "--rate=200"]
    producer = Process([*words, f"--traces={collector.url}", "--json"], fleet.folder, "producer")
    fleet.processes.append(producer)
    assert producer.popen.wait(timeout=30) == 0, producer.errors.read_text()
    sent = {span.span_id: span for span in collector.of("hookbench-producer")}
    assert len(sent) == 20  # sent before the process has ended
    first = await transport.jetstream.get_msg(fleet.names.stream, 1)
    assert first.headers[TRACEPARENT].split("-")[2] in {span_id.hex() for span_id in sent}
    await eventually(lambda: worker.latest("done") == 20, timeout_s=20)
    assert worker.stop() == 0
    processed = collector.of("hookbench-worker")
    assert len(processed) == 20
    for span in processed:
        put = sent.pop(span.parent_span_id)  # each put has one execution
        assert span.trace_id == put.trace_id
        assert put.name == f"send {fleet.names.subject('sync')}"
        mine, its = text_attributes(span), text_attributes(put)
        assert mine["messaging.message.id"] == its["messaging.message.id"]
        assert mine["messaging.system"] == "nats"
        assert put.start_time_unix_nano <= span.start_time_unix_nano < span.end_time_unix_nano


async def test_no_task_waits_for_a_collector_that_is_away(collector, fleet):
    collector.close()
    words = ["produce", *fleet.arguments(), "--phase=redis_only", "--count=20", "--rate=200"]
    producer = Process([*words, f"--traces={collector.url}", "--json"], fleet.folder, "producer")
    fleet.processes.append(producer)
    assert producer.popen.wait(timeout=30) == 0, producer.errors.read_text()
    assert producer.latest("accepted") == 20
