"""The price: what refutes its claim, its counters, and the document made of it."""

import asyncio
import copy
import re

import pytest

from hookbench.ledger.events import Event, LedgerWriter
from hookbench.migration.measures import HARDENED, Measures
from hookbench.queues.redis_client import connect_redis
from hookbench.queues.transport import AppTransport
from tests.evidence import price_table
from tests.evidence.price import refuted
from tests.evidence.price_rig import Round, check_ledger
from tests.evidence.price_variants import BUDGETS, GUIDE, LEFT_OUT, RECONCILED, Variant
from tests.evidence.record import ROOT
from tests.evidence.turns import PRODUCER, WORKER, Meter, Tally, as_role

KEPT = Variant(situation="nats_only", measures="done_store")
RECONCILES = Variant(situation="dual_write", measures="done_store,reconcile")


def tally_of(variant):
    """What the budget allows, and a byte less."""
    total, guide = BUDGETS[variant], BUDGETS[variant.guide]
    names = ("redis_turns", "nats_out", "nats_in")
    counts = {name: getattr(total, name) for name in names}
    size = total.wire_bytes - 1
    if variant.measures != GUIDE:
        counts = {name: value + getattr(guide, name) for name, value in counts.items()}
        size += guide.wire_bytes - 1
    return Tally(**counts, nats_in_bytes=size)


def round_of(variant):
    counts = {PRODUCER: Tally(), WORKER: tally_of(variant)}
    reconciled = Tally(**RECONCILED) if variant == RECONCILES else None
    once = copy.deepcopy(counts)
    if variant.situation != "nats_only":
        mine, guide = (BUDGETS[item].at_once("redis_turns") for item in (variant, variant.guide))
        once[WORKER].redis_turns = mine if variant.measures == GUIDE else mine + guide
    return Round(
        put_per_s=1.0, done_per_s=1.0, put_ms={}, done_ms=[], executed={}, reconciled=reconciled,
        counts={"in_turn": counts, "at_once": once},
    )  # fmt: skip


@pytest.fixture
def found():
    return {variant: [round_of(variant) for _ in range(3)] for variant in BUDGETS}


def worst(found, variant, change):
    for item in found[variant]:
        change(item)
    return refuted(found)


def add(way, name, value):
    def change(item):
        tally = item.counts[way][PRODUCER]
        setattr(tally, name, getattr(tally, name) + value)

    return change


def test_what_keeps_its_budget_is_not_refuted(found):
    assert refuted(found) == []
    assert worst(found, KEPT, add("in_turn", "nats_out", 0.2)) == []


@pytest.mark.parametrize("variant", [KEPT, KEPT.guide], ids=lambda item: item.measures)
@pytest.mark.parametrize("name", ["redis_turns", "nats_out", "nats_in"])
@pytest.mark.parametrize(("way", "more"), [("in_turn", 1), ("in_turn", -1), ("at_once", 1)])
def test_another_count_is_refuted(found, variant, name, way, more):
    (text, *_others) = worst(found, variant, add(way, name, more))
    assert re.match(rf"nats_only: {variant.measures}: -?\d\.\d\d {name} a task", text)


def test_fewer_at_once_are_allowed_and_one_bad_round_is_noise(found):
    assert worst(found, KEPT, add("at_once", "nats_out", -1)) == []
    add("in_turn", "nats_out", 9)(found[KEPT][0])
    assert refuted(found) == []


def test_claims_that_share_no_turn_are_refuted(found):
    variant = Variant(situation="redis_only", measures="done_store")
    assert worst(found, variant, add("at_once", "redis_turns", 0.2)) == []
    assert worst(found, variant, add("at_once", "redis_turns", 1.8)) == [
        "redis_only: done_store: 2.25 redis_turns a task at once, more than 0.25"
    ]


def test_more_bytes_are_refuted(found):
    assert worst(found, KEPT, add("in_turn", "redis_out_bytes", 1)) == []
    assert worst(found, KEPT, add("in_turn", "redis_out_bytes", 1)) == [
        "nats_only: done_store: 801 bytes a task in turn, more than 800"
    ]


def test_one_task_in_one_round_is_enough(found):
    found[KEPT][1].wrong.append("of 3 tasks for 3, 2 were done once")
    assert refuted(found) == ["nats_only: done_store, round 2: of 3 tasks for 3, 2 were done once"]


@pytest.mark.parametrize("name", list(RECONCILED))
def test_a_dear_round_of_reconcile_is_refuted(found, name):
    def change(item):
        setattr(item.reconciled, name, 4.0)

    (text,) = worst(found, RECONCILES, change)
    assert f"4.00 {name} a task" in text


@pytest.mark.parametrize(
    ("events", "told"),
    [
        ((Event.ACCEPTED, Event.STARTED, Event.DONE), 0),
        ((Event.ACCEPTED, Event.STARTED), 1),
        ((Event.ACCEPTED, Event.STARTED, Event.DONE, Event.DONE), 1),
        ((Event.ACCEPTED, Event.STARTED, Event.STARTED, Event.DONE), 1),
        ((Event.STARTED, Event.DONE), 1),
    ],
)
def test_a_task_is_accepted_started_and_done_once(tmp_path, make_task, clock, events, told):
    good, other = make_task().id.bytes, make_task().id.bytes
    ledger = LedgerWriter(tmp_path, role="worker", writer=1, clock=clock)
    for event in (Event.ACCEPTED, Event.STARTED, Event.DONE):
        ledger.record(event, good)
    for event in events:
        ledger.record(event, other)
    ledger.close()
    assert len(check_ledger(tmp_path, 2)) == told
    assert len(check_ledger(tmp_path, 3)) == 3, "one that is in no ledger"


async def test_a_pipeline_is_one_turn_and_bytes_are_those_of_the_server(redis_broker, names):
    key = names.pending_key("sync")
    with Meter({redis_broker.port: "redis"}).counting() as meter:

        async def traffic():
            client = connect_redis(redis_broker.url, max_connections=1, pipelined=False)
            before = await client.client_info()
            start = meter.read(WORKER)
            pipeline = client.pipeline(transaction=False)
            for number in range(10):
                pipeline.lpush(key, b"%d" % number)
            await pipeline.execute()
            await client.lrange(key, 0, -1)
            await client.delete(key)
            found = meter.read(WORKER).less(start)
            after = await client.client_info()
            asked = meter.read(WORKER).less(start).less(found)
            await client.aclose()
            return found, asked, int(after["tot-net-in"]) - int(before["tot-net-in"])

        loop = asyncio.get_running_loop()
        found, asked, server = await loop.create_task(traffic(), context=as_role(WORKER))
        assert (found.redis_turns, asked.redis_turns) == (3, 1)
        assert found.redis_out_bytes + asked.redis_out_bytes == server
        # :1 to :10, an array of ten strings of one byte, and :1
        assert found.redis_in_bytes == 9 * 4 + 5 + 5 + 10 * 7 + 4
        assert meter.read(PRODUCER) == Tally(), "the other role has sent nothing"


async def test_what_goes_over_a_shared_connection_is_counted(redis_broker, names):
    key = names.pending_key("sync")
    with Meter({redis_broker.port: "redis"}).counting() as meter:

        async def traffic():
            client = connect_redis(redis_broker.url)
            await client.llen(key)  # it is connected
            start = meter.read(WORKER)
            await asyncio.gather(*(client.lpush(key, b"%d" % number) for number in range(10)))
            await client.lrem(key, 1, b"0")
            found = meter.read(WORKER).less(start)
            await client.delete(key)
            await client.aclose()
            return found

        loop = asyncio.get_running_loop()
        found = await loop.create_task(traffic(), context=as_role(WORKER))
        assert found.redis_turns == 2
        size = len(key)
        pushed = 10 * len(f"*3\r\n$5\r\nLPUSH\r\n${size}\r\n{key}\r\n$1\r\n0\r\n")
        removed = len(f"*4\r\n$4\r\nLREM\r\n${size}\r\n{key}\r\n$1\r\n1\r\n$1\r\n0\r\n")
        assert found.redis_out_bytes == pushed + removed
        assert found.redis_in_bytes == 9 * 4 + 5 + 4


async def test_messages_are_counted_for_who_opened_the_connection(nats_broker, names):
    with Meter({nats_broker.port: "nats"}).counting() as meter:

        async def traffic():
            async with await AppTransport.connect(nats_broker.url, names=names) as transport:
                client = transport.client
                asked = asyncio.Event()

                async def heard(_message):
                    asked.set()

                await client.subscribe("price", cb=heard)
                await client.publish("price", b"x" * 1000)
                await asked.wait()

        await asyncio.get_running_loop().create_task(traffic(), context=as_role(PRODUCER))
        found = meter.read(PRODUCER)
        assert (found.nats_out, found.nats_in) == (1, 1)
        assert 1000 < found.nats_out_bytes < 2000
        assert 1000 < found.nats_in_bytes < 3000
        assert meter.read(WORKER) == Tally()


def test_every_measure_has_its_price():
    """One that is added later is measured, or it is said why not."""
    measured = {
        name
        for variant in BUDGETS
        for name in Measures.__struct_fields__
        if variant.measures != "all" and getattr(variant.chosen, name)
    }
    assert measured | set(LEFT_OUT) >= set(Measures.__struct_fields__)
    everything = {item for item in BUDGETS if item.measures == "all"}
    assert {item.chosen for item in everything} == {HARDENED}
    assert {item.guide for item in BUDGETS} <= set(BUDGETS)


def test_the_document_is_what_the_file_says():
    """But for the layout, which prettier makes."""
    if not price_table.EVIDENCE.exists():
        pytest.fail("no evidence of the price: run its proof")
    stored = (ROOT / "docs" / "price.md").read_text()
    assert plain(stored) == plain(price_table.document())


def plain(text):
    return [re.sub(r"[ -]+", " ", line).strip() for line in text.splitlines() if line]
