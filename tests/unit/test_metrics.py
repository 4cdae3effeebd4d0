"""What is counted, what is served, and how it is held against the ledger."""

import asyncio
import random
import uuid

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from hookbench.clock import NS_PER_MS, SystemClock
from hookbench.effects.classes import Execution
from hookbench.errors import PortTakenError, ScrapeError, SettingError
from hookbench.ids import uuid7
from hookbench.ledger.events import NO_TASK, Broker, Event, LedgerWriter
from hookbench.ledger.read import read_ledger
from hookbench.metrics.agreement import compare_metrics
from hookbench.metrics.families import METRICS, Families, Status
from hookbench.metrics.looking import Looking
from hookbench.metrics.meter import Histogram, Meter, TimedHandler
from hookbench.metrics.process import ProcessMetrics
from hookbench.metrics.queues import DOWN, BrokerLook
from hookbench.metrics.scrape import parse_samples, scrape
from hookbench.metrics.server import Endpoint, MetricsServer, parse_endpoint
from hookbench.migration.metrics import HookMetrics


class Clock(SystemClock):
    """Stands still until it is told."""

    def __init__(self):
        self.now_ns = 10_000_000_000

    def monotonic_ns(self):
        return self.now_ns

    def wall_ns(self):
        return 1_700_000_000_000_000_000 + self.now_ns

    async def sleep(self, seconds):
        self.now_ns += int(seconds * 1e9)
        await asyncio.sleep(0)


def exposed(meter, guide=None, *, role="worker", looks=None):
    registry = CollectorRegistry()
    status = Status(role=role, version="1", phase="dual_read", step=2)
    families = Families(
        meter,
        guide or HookMetrics(),
        status,
        redis_queue="redis_list",
        look=lambda: looks or {},
    )
    registry.register(families)
    return registry


def text_of(*arguments, **options):
    return generate_latest(exposed(*arguments, **options)).decode()


def sample(text, name, **labels):
    return parse_samples(text).get((name, tuple(sorted(labels.items()))))


@pytest.fixture
def fake():
    return Clock()


@pytest.fixture
def ids(fake):
    entropy = random.Random(1)
    return lambda: uuid7(fake, entropy).bytes


def test_a_duration_is_in_the_first_bucket_whose_bound_it_does_not_exceed(fake):
    meter = Meter(None, clock=fake)
    meter.processing = Histogram([0.001, 0.01])
    for duration_ns in (1, NS_PER_MS, NS_PER_MS + 1, 10 * NS_PER_MS, 11 * NS_PER_MS):
        meter.processing.observe(duration_ns)
    text = text_of(meter)
    name = "hookbench_processing_seconds"
    assert [sample(text, f"{name}_bucket", le=le) for le in ("0.001", "0.01", "+Inf")] == [2, 4, 5]
    assert sample(text, f"{name}_count") == 5
    assert sample(text, f"{name}_sum") == pytest.approx(0.023000002)


def test_end_to_end_counts_from_the_milliseconds_of_the_id(fake, ids):
    meter = Meter(None, clock=fake)
    task = ids()
    fake.now_ns += 1500 * NS_PER_MS
    meter.record(Event.DONE, task, broker=Broker.NATS, attempt=1)
    meter.record(Event.DONE, uuid.uuid4().bytes, broker=Broker.NATS)  # tells no time
    text = text_of(meter)
    assert sample(text, "hookbench_end_to_end_seconds_sum") == pytest.approx(1.5)
    assert sample(text, "hookbench_end_to_end_seconds_count") == 1
    assert sample(text, "hookbench_tasks_total", queue="jetstream", outcome="done") == 2


def test_a_put_counts_from_its_call_and_its_lag_from_when_it_was_due(fake, ids):
    meter = Meter(None, clock=fake)
    for event in (Event.ACCEPTED, Event.REFUSED):
        task = ids()
        meter.record(Event.PUT_INVOKED, task, value=fake.now_ns - 30 * NS_PER_MS)
        fake.now_ns += 20 * NS_PER_MS
        meter.record(event, task)
    text = text_of(meter, role="producer")
    assert sample(text, "hookbench_put_seconds_count") == 1
    assert sample(text, "hookbench_put_seconds_sum") == pytest.approx(0.02)
    assert sample(text, "hookbench_schedule_lag_seconds_sum") == pytest.approx(0.06)
    assert meter._begun_ns == {}


async def test_a_handler_is_measured_whether_it_fails_or_not(fake):
    meter = Meter(None, clock=fake)
    seen = []

    async def handler(task, execution):
        seen.append((task, execution, meter.in_work))
        fake.now_ns += NS_PER_MS
        if task == "bad":
            raise OSError(task)

    timed = TimedHandler(handler, meter, fake)
    meter.record(Event.STARTED)
    await timed("good", Execution(attempt=2))
    meter.record(Event.STARTED)
    with pytest.raises(OSError, match="bad"):
        await timed("bad", Execution())
    assert seen == [("good", Execution(attempt=2), 1), ("bad", Execution(), 1)]
    assert (meter.in_work, sum(meter.processing.counts)) == (0, 2)
    assert meter.processing.sum_ns == 2 * NS_PER_MS


def test_a_broker_that_does_not_answer_has_no_figures(fake):
    there = BrokerLook(up=True, tasks={("jetstream", "sync", "pending"): 3})
    text = text_of(Meter(None, clock=fake), looks={"redis": DOWN, "nats": there})
    assert sample(text, "hookbench_broker_up", broker="redis") == 0
    assert sample(text, "hookbench_broker_up", broker="nats") == 1
    depths = {key[1] for key in parse_samples(text) if key[0] == "hookbench_queue_tasks"}
    assert depths == {(("queue", "jetstream"), ("state", "pending"), ("task_type", "sync"))}


def test_the_phase_is_the_one_that_was_announced(fake):
    status = Status(role="worker", version="1")
    heard = []
    metrics = ProcessMetrics(Meter(None, clock=fake), HookMetrics(), status, None, fake)
    announce = metrics.listening(heard.append)
    announce({"event": "progress", "done": 1})
    announce({"event": "phase", "phase": "nats_only", "index": 4, "measures": "all"})
    assert (status.phase, status.step, status.measures) == ("nats_only", 4, "all")
    assert len(heard) == 2


def play(record, guide, ids, role):
    """A few events as a process of that role has them, each outcome on both brokers."""
    for broker in (Broker.REDIS, Broker.NATS):
        counts = guide.queued_redis, guide.consumed_redis
        queued, consumed = (
            counts
            if broker is Broker.REDIS
            else (
                guide.queued_nats,
                guide.consumed_nats,
            )
        )
        for attempt in (1, 1, 2, 7):
            task = ids()
            if role == "producer":
                record(Event.PUT_INVOKED, task)
                record(Event.PUT_UNKNOWN, task, broker=broker)
                record(Event.PUT_OK, task, broker=broker, value=1)
                queued.inc()
                record(Event.ACCEPTED, task)
                continue
            record(Event.RECEIVED, task, broker=broker, attempt=attempt)
            consumed.inc()
            record(Event.STARTED, task, broker=broker, attempt=attempt)
            record(Event.DONE, task, broker=broker, attempt=attempt)
            record(Event.ACK_SENT, task, broker=broker)
        if role == "worker":
            record(Event.RECEIVED, NO_TASK, broker=broker)
            consumed.inc()
            record(Event.DEAD, NO_TASK, broker=broker)


class Forgetful(Meter):
    """A planted bug: one event of a kind is passed on and not counted."""

    left_out = None

    def record(self, event, task=NO_TASK, **more):
        if event is self.left_out and self._next is not None:
            self.left_out = None
            self._next(event, task, **more)
        else:
            super().record(event, task, **more)


def run_of(tmp_path, fake, ids, role, *, kind=Meter, closed=True):
    """A process's scrape, and the ledger beside it."""
    folder = tmp_path / "ledger"
    folder.mkdir()
    writer = LedgerWriter(folder, role=role, writer=3, clock=fake, capacity=512)
    meter, guide = kind(writer, clock=fake), HookMetrics()
    play(meter.record, guide, ids, role)
    for _ in range(meter.count(Event.STARTED)):
        meter.processing.observe(1)
    if closed:
        writer.close()
    return {f"{role}.00003": text_of(meter, guide, role=role)}, read_ledger(folder)


@pytest.mark.parametrize("role", ["producer", "worker"])
def test_metrics_agree_with_the_ledger(tmp_path, fake, ids, role):
    check = compare_metrics(*run_of(tmp_path, fake, ids, role))
    assert check.differences == []
    assert check.compared == [f"{role}.00003"]
    if role == "worker":
        assert check.totals["hookbench_tasks_total nats done"] == 4
        assert check.totals["hookbench_redelivered_total redis"] == 2
        assert check.totals["hookbench_deliveries_total redis 0"] == 1
        assert check.totals["hookbench_tasks_total redis dead"] == 1
    else:
        assert check.totals["hookbench_sends_total accepted"] == 8
        assert check.totals["hook_task_queued_total nats"] == 4


@pytest.mark.parametrize(
    ("role", "event", "told"),
    [
        ("worker", Event.DONE, "hookbench_tasks_total redis done is 3 in the metrics and 4"),
        ("worker", Event.DEAD, "hookbench_tasks_total redis dead is 0 in the metrics and 1"),
        ("worker", Event.RECEIVED, "hookbench_deliveries_total redis 1 is 1 in the metrics and 2"),
        ("producer", Event.ACCEPTED, "hookbench_sends_total accepted is 7 in the metrics and 8"),
        ("producer", Event.PUT_OK, "hookbench_puts_total redis ok is 3 in the metrics and 4"),
    ],
)
def test_one_count_that_is_left_out_is_found(tmp_path, fake, ids, role, event, told):
    kind = type("Planted", (Forgetful,), {"left_out": event})
    check = compare_metrics(*run_of(tmp_path, fake, ids, role, kind=kind))
    assert any(told in line for line in check.differences), check.differences
    assert told.split()[0] in check.line or check.differences[0] in check.line


def test_what_cannot_be_compared_is_said(tmp_path, fake, ids):
    scraped, ledger = run_of(tmp_path, fake, ids, "worker", closed=False)
    check = compare_metrics(scraped, ledger)
    assert check.differences == []
    assert check.not_compared == {"worker.00003": "it was killed, and its counts are gone"}
    assert "not compared: worker.00003" in check.line


def test_a_process_without_a_scrape_or_with_a_broken_one_is_a_difference(tmp_path, fake, ids):
    _scraped, ledger = run_of(tmp_path, fake, ids, "worker")
    assert compare_metrics({}, ledger).differences == [
        "worker.00003: it ended well, and was not scraped"
    ]
    broken = compare_metrics({"worker.00003": "hookbench_tasks_total{ 1\n"}, ledger).differences
    assert len(broken) == 1
    assert "cannot be read" in broken[0]
    (other,) = compare_metrics({"worker.00009": "", "worker.00003": ""}, ledger).differences[-1:]
    assert other == "worker.00009: it has metrics, and no records"


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("127.0.0.1:9400", Endpoint("127.0.0.1", 9400)),
        ("9400", Endpoint("127.0.0.1", 9400)),
        ("[::1]:0", Endpoint("::1", 0)),
        ("metrics.example:80", Endpoint("metrics.example", 80)),
    ],
)
def test_an_endpoint_is_host_and_port(text, endpoint):
    assert parse_endpoint(text) == endpoint


@pytest.mark.parametrize(
    "text", ["", ":9400", "localhost", "localhost:", "127.0.0.1:65536", "a:-1"]
)
def test_what_is_no_endpoint_is_refused(text):
    with pytest.raises(SettingError, match="--metrics"):
        parse_endpoint(text)


async def test_a_server_says_its_port_and_ends_a_wait_for_it(fake):
    server = MetricsServer(Endpoint("127.0.0.1", 0), exposed(Meter(None, clock=fake)))
    try:
        metrics = ProcessMetrics(
            Meter(None, clock=fake), HookMetrics(), Status(role="worker", version="1"), server, fake
        )
        before_ns = fake.now_ns
        await metrics.linger(5.0)  # nobody asks
        assert fake.now_ns - before_ns >= 5e9
        waiting = asyncio.ensure_future(metrics.linger(1e9))
        await asyncio.sleep(0)
        text = await asyncio.to_thread(scrape, server.endpoint.url)
        await asyncio.wait_for(waiting, 10)
        assert sample(text, "hookbench_phase", phase="dual_read") == 1
        with pytest.raises(PortTakenError, match=str(server.endpoint.port)):
            MetricsServer(server.endpoint, CollectorRegistry())
    finally:
        server.close()
    with pytest.raises(ScrapeError, match="no answer"):
        scrape(server.endpoint.url)


def test_an_address_of_another_machine_is_refused():
    with pytest.raises(SettingError, match=r"203\.0\.113\.1"):
        MetricsServer(Endpoint("203.0.113.1", 0), CollectorRegistry())


class Reader:
    """Answers, or does not."""

    brokers = ("redis", "nats")

    def __init__(self):
        self.looks = 0
        self.hangs = False
        self.closed = False

    async def look(self):
        self.looks += 1
        if self.hangs:
            await asyncio.sleep(60)
        return {name: BrokerLook(up=True, lag={(name,): self.looks}) for name in self.brokers}

    async def close(self):
        self.closed = True


def test_brokers_are_looked_at_when_asked_and_once_a_second_at_most(fake):
    reader = Reader()
    looking = Looking(lambda: reader, clock=fake)
    looking.close()  # nobody has asked: nothing runs
    first = looking()
    fake.now_ns += 999 * NS_PER_MS
    assert looking() is first
    fake.now_ns += 2 * NS_PER_MS
    assert looking()["redis"].lag == {("redis",): 2}
    looking.close()
    assert (reader.looks, reader.closed) == (2, True)


def test_a_look_that_does_not_end_is_no_answer(fake):
    reader = Reader()
    looking = Looking(lambda: reader, clock=fake, every_s=0.0, patience_s=0.2)
    assert looking()["nats"].up
    reader.hangs = True
    assert looking() == {"redis": DOWN, "nats": DOWN}
    reader.hangs = False
    assert looking()["nats"].up
    looking.close()


@pytest.mark.parametrize("role", ["producer", "worker"])
def test_every_metric_of_a_role_is_described_and_no_other(fake, role):
    found = {family.name for family in exposed(Meter(None, clock=fake), role=role).collect()}
    described = {
        item.name.removesuffix("_total").removesuffix("_info")
        for item in METRICS
        if role in item.roles
    }
    assert found == described
