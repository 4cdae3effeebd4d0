"""The context of a trace travels with its task over both brokers."""

import asyncio
import importlib

import msgspec
import pytest

from hookbench.errors import DecodeError
from hookbench.ledger.events import Broker
from hookbench.migration.measures import parse_measures
from hookbench.migration.phases import Phase
from hookbench.migration.service import open_service
from hookbench.queues.connections import Connections
from hookbench.queues.jetstream import StreamSettings
from hookbench.queues.redis_list import RedisListQueue
from hookbench.task import decode_task, encode_task
from hookbench.trace_context import TRACEPARENT, trace_headers
from hookbench.tracing import Tracing
from hookbench.worker.service import WorkerService, WorkerSettings

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
