"""Faults of the load: what processes are told, what they do then, and what they answer."""

import asyncio
import collections
import random

import msgspec
import pytest

from hookbench.effects.classes import Execution
from hookbench.errors import DecodeError, SettingError
from hookbench.faults.equal_payloads import legacy_payload
from hookbench.faults.failing_handler import FailedHandler
from hookbench.faults.hot_repository import HotSource
from hookbench.faults.memory import FaultMemory
from hookbench.faults.orders import (
    FailOrder,
    OrderBook,
    OversizeOrder,
    RedirectOrder,
    SlowOrder,
    read_hits,
    replace_json,
)
from hookbench.faults.oversize import OversizeSource
from hookbench.faults.poison import junk
from hookbench.faults.registry import parse_fault
from hookbench.faults.schedule import FaultSchedule
from hookbench.faults.slow_handler import SlowedHandler
from hookbench.load.generator import GeneratorSettings, LoadGenerator
from hookbench.migration.phases import Phase
from hookbench.rehearsal.fleet import Member, fault_file
from hookbench.rehearsal.orders import FleetOrders
from hookbench.task import decode_task, encode_task, new_task
from hookbench.worker.handlers.fail import HandlerFailedError
from tests.fakes import MemoryRecorder
from tests.virtual import FixedClock, VirtualClock

S = 1_000_000_000


def make_task(number=0, handler_class="plain", seed=1):
    return new_task(
        repo_id=f"synthetic/{handler_class}/repo-{number}",
        task_type="sync",
        payload={"number": number, "filling": ""},
        clock=FixedClock(),
        entropy=random.Random(f"{seed}:{number}"),
    )


async def work(_task, _execution):
    return None


class Fleet:
    """Members that watch files, and no process behind them."""

    def __init__(self, folder):
        self.members = [
            Member(
                role=role,
                number=number,
                arguments=[],
                phase_file=folder / f"{role}-{number}.json",
                child=None,
                output=folder / "said",
            )
            for role in ("worker", "producer")
            for number in (0, 1)
        ]


class Queues:
    def __init__(self):
        self.got = []

    async def put(self, broker, payloads):
        self.got.append((broker, list(payloads)))


class Targets:
    def __init__(self, fleet):
        self.clock = VirtualClock()
        self.memory = FaultMemory()
        self.orders = FleetOrders(fleet)
        self.administration = Queues()
        self.phase = Phase.DUAL_READ

    async def resolve(self, target):
        return target


@pytest.fixture
def carry_out(tmp_path):
    """Carries a fault out on processes that do ``step(book)`` every 50 ms; each has a book."""

    async def run(table, step=lambda _name, _book: None, until_s=4.0):
        fleet = Fleet(tmp_path)
        targets = Targets(fleet)
        books = {member.name: OrderBook() for member in fleet.members}
        fault = parse_fault({"at_s": 1.0, **table}, "faults")
        schedule = FaultSchedule((fault,), targets, MemoryRecorder())

        async def live(member):
            book = books[member.name]
            for _ in range(int(until_s * 20)):
                book.look(fault_file(member.phase_file))
                step(member.name, book)
                await targets.clock.sleep(0.05)

        lives = [asyncio.ensure_future(live(member)) for member in fleet.members]
        await schedule.run(targets.clock.now_ns)
        await asyncio.gather(*lives)
        return schedule.records[0], books, targets

    return run


def on_workers(kind, **more):
    return {"kind": kind, "target": "workers", "for_s": 1.0, **more}


def on_producers(kind, **more):
    return {"kind": kind, "target": "producers", "for_s": 1.0, **more}


async def test_an_order_reaches_its_group_and_is_taken_back(carry_out):
    told = collections.Counter()

    def step(name, book):
        for number, order in book.of(SlowOrder):
            assert order == SlowOrder(service_ms=80.0)
            told[name] += 1
            book.hit(number)

    record, books, _targets = await carry_out(
        on_workers("slow_handler", service_ms=80.0), step=step
    )
    assert record.problem is None
    assert set(told) == {"worker-0", "worker-1"}
    assert int(record.noted["obeyed"]) == pytest.approx(sum(told.values()), abs=2)
    # 4 s of 50 ms each: told for one second of them.
    assert all(15 <= count <= 30 for count in told.values())
    assert all(book.of(SlowOrder) == [] for book in books.values())


async def test_one_process_can_be_told_alone(carry_out):
    told = set()

    def step(name, book):
        for number, _order in book.of(FailOrder):
            told.add(name)
            book.hit(number)

    table = on_workers("failing_handler", probability=0.5) | {"target": "worker-1"}
    record, _books, _targets = await carry_out(table, step=step)
    assert (record.problem, told) == (None, {"worker-1"})


async def test_an_order_that_nobody_obeys_did_not_fire(carry_out):
    record, books, _targets = await carry_out(
        on_workers("slow_handler", service_ms=80.0, within_s=0.5)
    )
    assert record.problem == (
        "it did not fire: workers obeyed [0, 0] times within 0.5 s: is there work for each?"
    )
    assert all(book.of(SlowOrder) == [] for book in books.values())


async def test_an_order_that_one_of_two_does_not_obey_did_not_fire(carry_out):
    def step(name, book):
        for number, _order in book.of(OversizeOrder):
            if book.hits(number) < (3 if name == "producer-0" else 2):
                book.hit(number)

    record, _books, _targets = await carry_out(
        on_producers("oversize", count=3, within_s=0.5), step=step
    )
    assert "obeyed [3, 2] times" in record.problem


def test_orders_of_several_faults_are_in_force_together(tmp_path):
    fleet = Fleet(tmp_path)
    orders = FleetOrders(fleet)
    files = {member.name: fault_file(member.phase_file) for member in fleet.members}
    book = OrderBook()
    first = orders.give("workers", SlowOrder(service_ms=1.0))
    second = orders.give("worker-0", SlowOrder(service_ms=2.0))
    book.look(files["worker-0"])
    assert [number for number, _order in book.of(SlowOrder)] == [first, second]
    book.hit(second)
    book.look(files["worker-0"])
    assert (orders.hits(first), orders.hits(second)) == ([0, 0], [1])
    orders.withdraw(first)
    book.look(files["worker-0"])
    assert book.of(SlowOrder) == [(second, SlowOrder(service_ms=2.0))]
    assert not files["producer-0"].exists()
    with pytest.raises(SettingError, match="'worker-7'"):
        orders.give("worker-7", SlowOrder(service_ms=1.0))


def test_a_fault_file_that_a_run_did_not_write_is_named(tmp_path):
    path = tmp_path / "worker-0.fault"
    assert read_hits(path) == {}
    OrderBook().look(path)
    replace_json(path, {"1": {"type": "nap"}})
    with pytest.raises(SettingError, match=r"worker-0\.fault.*'nap'"):
        OrderBook().look(path)


async def test_a_slow_handler_works_later_and_does_work():
    clock, book, worked = VirtualClock(), OrderBook(), []

    async def inner(task, _execution):
        worked.append((task, clock.now_ns))

    handler = SlowedHandler(inner, book, clock)
    task, begin_ns = make_task(), clock.now_ns
    await handler(task, Execution())
    book.obey({4: SlowOrder(service_ms=250.0)})
    await handler(task, Execution())
    assert worked == [(task, begin_ns), (task, begin_ns + S // 4)]
    assert book.hits(4) == 1


async def failures(order, tasks, attempts=(1,)):
    book = OrderBook()
    book.obey({1: order})
    handler = FailedHandler(work, book)
    failed = set()
    for task in tasks:
        for attempt in attempts:
            try:
                await handler(task, Execution(attempt=attempt))
            except HandlerFailedError:
                failed.add((task.payload["number"], attempt))
    assert book.hits(1) == len(failed)
    return failed


async def test_the_same_executions_fail_for_the_same_seed():
    tasks = [make_task(number) for number in range(400)]
    order = FailOrder(probability=0.25, seed=3)
    failed = await failures(order, tasks, attempts=(1, 2))
    assert 140 <= len(failed) <= 260
    assert failed == await failures(order, reversed(tasks), attempts=(2, 1))
    assert failed != await failures(FailOrder(probability=0.25, seed=4), tasks, attempts=(1, 2))
    # A task that failed once may well be done the second time.
    assert {number for number, _attempt in failed} > {n for n, a in failed if (n, 3 - a) in failed}


async def test_all_of_one_class_fail_and_no_other():
    tasks = [make_task(number, name) for number, name in enumerate(("plain", "idempotent") * 3)]
    order = FailOrder(probability=1.0, seed=0, handler_class="idempotent")
    assert await failures(order, tasks) == {(1, 1), (3, 1), (5, 1)}


def test_a_share_of_the_tasks_goes_to_one_repository_and_stays_else_as_it_is():
    book = OrderBook()
    source = HotSource(make_task, book)
    assert source(7) == make_task(7)
    book.obey({1: RedirectOrder(share=0.5, seed=1, repository="synthetic/plain/hot")})
    tasks = [source(number) for number in range(200)]
    hot = [task for task in tasks if task.repo_id == "synthetic/plain/hot"]
    assert 70 <= len(hot) == book.hits(1) <= 130
    assert [task.id for task in tasks] == [make_task(number).id for number in range(200)]


def test_so_many_tasks_are_too_large_and_no_more():
    book = OrderBook()
    source = OversizeSource(make_task, book)
    book.obey({1: OversizeOrder(count=2, payload_bytes=2_000_000)})
    sizes = [len(encode_task(source(number))) for number in range(4)]
    assert [size > 2_000_000 for size in sizes] == [True, True, False, False]
    assert book.hits(1) == 2


def test_what_stands_between_source_and_sending_changes_no_other_task():
    settings = GeneratorSettings(phase=Phase.REDIS_ONLY, redis_url="redis://127.0.0.1:1", seed=5)
    book = OrderBook()
    book.obey({1: OversizeOrder(count=1, payload_bytes=2_000_000)})
    plain = LoadGenerator(settings, clock=FixedClock())
    wrapped = LoadGenerator(
        settings, clock=FixedClock(), wrap=lambda tasks: OversizeSource(tasks, book)
    )
    before, after = ([generator._tasks(n) for n in range(5)] for generator in (plain, wrapped))
    assert before[1:] == after[1:]
    assert before[0].id == after[0].id
    assert len(encode_task(after[0])) > 2_000_000


def test_junk_is_of_every_kind_none_of_it_a_task_and_the_same_for_a_seed():
    payloads = junk(300, seed=1)
    assert payloads == junk(300, seed=1) != junk(300, seed=2)
    for payload in payloads:
        with pytest.raises(DecodeError):
            decode_task(payload)
    starts = {payload[:1] for payload in payloads}
    assert {b"", b"\xff", b"{", b"["} <= starts
    assert max(map(len, payloads)) == 5_000


def test_a_task_without_an_id_is_none_and_with_one_it_would_be():
    payload = legacy_payload(1_700_000_000 * S)
    with pytest.raises(DecodeError, match="`id`"):
        decode_task(payload)
    whole = msgspec.json.decode(payload) | {"id": str(make_task().id)}
    assert decode_task(msgspec.json.encode(whole)).repo_id == "synthetic/plain/legacy"


@pytest.mark.parametrize(
    ("target", "phase", "broker"),
    [
        ("queue", Phase.DUAL_WRITE, "redis"),
        ("queue", Phase.DUAL_READ, "nats"),
        ("redis", Phase.DUAL_READ, "redis"),
        ("nats", Phase.REDIS_ONLY, "nats"),
    ],
)
@pytest.mark.parametrize("kind", ["poison", "equal_payloads"])
async def test_payloads_go_to_the_queue_that_is_read(tmp_path, kind, target, phase, broker):
    targets = Targets(Fleet(tmp_path))
    targets.phase = phase
    fault = parse_fault({"kind": kind, "target": target, "at_s": 1.0, "count": 3}, "faults")
    await fault.inject(targets)
    ((where, payloads),) = targets.administration.got
    assert (where, len(payloads)) == (broker, 3)
    assert (len(set(payloads)) == 1) == (kind == "equal_payloads")
    assert targets.memory.notes(fault) == {"put": f"3 to {broker}"}


@pytest.mark.parametrize(
    ("table", "told"),
    [
        (on_workers("slow_handler", service_ms=0.0), r"service_ms 0\.0"),
        (on_workers("slow_handler", service_ms=1.0, for_s=0.0), "use more than 0"),
        (on_workers("slow_handler", service_ms=1.0, target="producers"), "use workers, worker-0"),
        (on_workers("slow_handler", service_ms=1.0, target="worker-x"), "use workers, worker-0"),
        (on_workers("failing_handler", probability=0.0), r"probability 0\.0"),
        (on_workers("failing_handler", probability=1.5), r"probability 1\.5"),
        (on_workers("failing_handler", handler_class="odd"), "'odd': use one of"),
        (on_producers("oversize", count=0), "count 0"),
        (on_producers("oversize", payload_bytes=1000), "which is allowed"),
        (on_producers("oversize", target="workers"), "use producers, producer-0"),
        (on_producers("hot_repository", share=2.0), r"share 2\.0"),
        (on_producers("hot_repository", repository="hot"), "use synthetic/CLASS/NAME"),
        (on_producers("hot_repository", repository="synthetic/odd/x"), "'odd': use one of"),
        ({"kind": "poison", "target": "workers"}, "use queue"),
        ({"kind": "poison", "target": "queue", "count": 0}, "count 0"),
        ({"kind": "equal_payloads", "target": "queue", "for_s": 1.0}, "leave it out"),
    ],
)
def test_what_makes_no_sense_is_refused_before_the_run(table, told):
    with pytest.raises(SettingError, match=told):
        parse_fault({"at_s": 1.0, **table}, "faults")
