"""``hookbench gate`` on prepared brokers: each hazard is seen, and nothing is touched."""

import asyncio
import contextlib
import json
import random
import time

import msgspec
import pytest
import redis.asyncio as redis_asyncio

from hookbench.clock import NS_PER_S
from hookbench.migration.phases import Phase
from hookbench.queues.authority import DoneRecord
from hookbench.queues.jetstream import (
    ConsumerSettings,
    StreamSettings,
    ensure_consumer,
    ensure_stream,
)
from hookbench.queues.kv_bucket import ensure_bucket
from hookbench.queues.kv_done_store import KvDoneStore
from hookbench.queues.reading import READ_COMMANDS, is_reading_subject
from hookbench.queues.redis_done_store import RedisDoneStore
from hookbench.queues.transport import AppTransport
from hookbench.task import encode_task, new_task
from tests.conftest import eventually
from tests.integration.test_gates import Gate, put
from tests.virtual import FixedClock

pytestmark = pytest.mark.timeout(60)

PROTECTED = "read_both,leases,done_store,epoch_consumer"
CONNECTING = {"CLIENT", "HELLO", "SELECT", "PING"}


SOON_S = 60.0


class Untouched:
    """What both brokers hold, and all that is sent to them meanwhile.

    What other tests have left and is forgotten by itself may go at any moment: it is left out.
    """

    def __init__(self, redis_url, nats_url, names):
        # Who monitors waits for the next command, however long the gate takes to start.
        self.redis = redis_asyncio.Redis.from_url(redis_url, socket_timeout=None)
        self.nats_url = nats_url
        self.names = names
        self.commands = []
        self.asked = []

    async def redis_state(self):
        own = self.names.prefix.encode()
        keys = sorted(
            [
                key
                async for key in self.redis.scan_iter(count=1000)
                if key.startswith(own) or await self.redis.pttl(key) < 0
            ]
        )
        values = [await self.redis.dump(key) for key in keys]
        changes = (await self.redis.info("persistence"))["rdb_changes_since_last_save"]
        scripts = (await self.redis.info("memory"))["number_of_cached_scripts"]
        return dict(zip(keys, values, strict=True)), changes, scripts

    async def nats_state(self, transport):
        found = {}
        for info in await transport.jetstream.streams_info():
            name = info.config.name
            if self.names.stream not in name and 0 < (info.config.max_age or 0) <= SOON_S:
                continue
            consumers = await transport.jetstream.consumers_info(name)
            found[name] = (
                info.config,
                info.state,
                sorted(
                    (
                        consumer.name,
                        str(consumer.created),
                        consumer.config,
                        consumer.delivered,
                        consumer.ack_floor,
                        consumer.num_pending,
                        consumer.num_ack_pending,
                        consumer.num_redelivered,
                    )
                    for consumer in consumers
                ),
            )
        return found

    async def _listen(self, monitor):
        while True:
            self.commands.append((await monitor.next_command())["command"].split()[0].upper())

    @contextlib.asynccontextmanager
    async def watched(self):
        async def advised(message):
            self.asked.append((message.subject, json.loads(message.data)))

        async with await AppTransport.connect(self.nats_url, names=self.names) as transport:
            before = await self.redis_state(), await self.nats_state(transport)
            await transport.client.subscribe("$JS.EVENT.ADVISORY.>", cb=advised)
            await transport.client.flush()
            async with self.redis.monitor() as monitor:
                listening = asyncio.ensure_future(self._listen(monitor))
                yield
                await self.redis.echo("the end")
                await eventually(lambda: self.commands[-1:] == ["ECHO"])
                listening.cancel()
            await transport.client.flush()
            advised_of = [subject for subject, _said in self.asked]
            calls = {said["subject"] for subject, said in self.asked if subject.endswith(".API")}
            after = await self.redis_state(), await self.nats_state(transport)
        assert after == before
        assert set(self.commands) - {"ECHO"} <= READ_COMMANDS | CONNECTING
        assert "SCAN" in self.commands
        assert "KEYS" not in self.commands
        assert [subject for subject in advised_of if not subject.endswith(".API")] == []
        assert [subject for subject in calls if not is_reading_subject(subject)] == []

    async def close(self):
        await self.redis.aclose()


class Site(Gate):
    """A prepared site: brokers, processes that announce themselves, and the gate."""

    async def answer(self, *more, source=1, target=2, moment="before"):
        """The whole answer; both brokers are compared before and after."""
        watch = Untouched(self.redis_url, self.nats_url, self.names)
        try:
            async with watch.watched():
                text = await asyncio.to_thread(self._ask, source, target, moment, more)
        finally:
            await watch.close()
        return text

    def _ask(self, source, target, moment, more):
        options = (f"--announced={self.folder}", f"--moment={moment}", "--settle=0", "--json")
        done = self.call(*options, *more, source=str(source), target=str(target))
        assert done.returncode in (0, 1, 3), done.stdout + done.stderr
        said = json.loads(done.stdout)
        assert {"go": 0, "no-go": 1, "unknown": 3}[said["answer"]] == done.returncode
        return said


def hazards_of(said, answer="no-go"):
    return {
        reason["hazard"]
        for check in said["checks"]
        if check["answer"] == answer
        for reason in check["reasons"]
    }


@pytest.fixture
async def site(redis_broker, nats_broker, names, tmp_path, transport):
    await ensure_stream(transport, StreamSettings(storage="memory"))
    return Site(redis_broker.url, nats_broker.url, names, tmp_path)


class Hand:
    """Puts a site into a state."""

    def __init__(self, site, transport, clock, make_task):
        self.site, self.transport, self.clock, self.make_task = site, transport, clock, make_task
        self.names = site.names
        self.redis = redis_asyncio.Redis.from_url(site.redis_url)
        self.store = RedisDoneStore(self.redis, names=self.names, retention_s=3600.0)

    def announce(self, phase, measures=PROTECTED):
        self.site.announce("producer-0", phase=phase)
        self.site.announce("worker-0", phase=phase, measures=measures)

    async def put(self, phase, *tasks):
        await put(self.site, phase, self.clock, *(tasks or (self.make_task(),)))

    async def push(self, key, task):
        await self.redis.lpush(key, encode_task(task))

    async def finish(self, task, *, keep=False):
        """Done by a Redis worker."""
        await self.store.put_record(DoneRecord(task_id=task.id, token=1, done=True))
        if not keep:
            await self.redis.delete(self.names.pending_key("sync"))

    async def consumer(self, **settings):
        await ensure_consumer(self.transport, ConsumerSettings(**settings))

    async def publish(self, task):
        subject = self.names.subject(task.task_type)
        return (await self.transport.publish(subject, encode_task(task))).sequence

    async def pull(self, count):
        found = []
        while len(found) < count:
            subject = self.names.subject("sync")
            found += await self.transport.pull(subject, count - len(found), 5.0)
        return found


@pytest.fixture
async def hand(site, transport, clock, make_task):
    opened = Hand(site, transport, clock, make_task)
    yield opened
    await opened.redis.aclose()


async def both(hand):
    """A task on both brokers, and workers that are protected against the hazards of the way."""
    hand.announce("dual_write")
    await hand.put(Phase.DUAL_WRITE)


async def old_producer(hand):
    hand.site.announce("producer-1", phase="redis_only")


async def mixed_workers(hand):
    hand.site.announce("worker-1", phase="dual_write", version="2", measures=PROTECTED)


async def bare_workers(hand):
    hand.announce("dual_write", measures="none")


async def orphan(hand):
    hand.announce("dual_write", measures="read_both,done_store,epoch_consumer")
    task = hand.make_task()
    await hand.publish(task)
    await hand.push(f"{hand.names.work_key('sync')}:worker-7", task)


async def alone_in_redis(hand):
    hand.announce("dual_write", measures="leases,done_store,epoch_consumer")
    await hand.put(Phase.REDIS_ONLY)


async def done_and_still_ahead(hand):
    hand.announce("dual_write", measures="read_both,leases")
    task = hand.make_task()
    await hand.put(Phase.DUAL_WRITE, task)
    await hand.finish(task, keep=True)


async def two_hours_old(hand):
    clock = FixedClock(wall_ns=time.time_ns() - 7200 * NS_PER_S)
    task = new_task(
        repo_id="old", task_type="sync", payload={}, clock=clock, entropy=random.Random(1)
    )
    await hand.put(Phase.DUAL_WRITE, task)


async def nothing_takes_fsck(hand):
    await hand.put(Phase.DUAL_WRITE, hand.make_task(task_type="fsck"))


async def oversize(hand):
    await hand.push(hand.names.pending_key("sync"), hand.make_task(payload={"a": "x" * 1_100_000}))


async def nothing_more(_hand):
    return None


ENTRY = {
    "P1": (old_producer, (), {"P1"}),
    "P12": (mixed_workers, (), {"P12"}),
    "P6": (bare_workers, (), {"P6"}),
    "R3": (orphan, (), {"R3"}),
    "P2": (alone_in_redis, (), {"P2", "P1", "P6"}),
    "P5": (done_and_still_ahead, ("--done-store",), {"P5", "B1"}),
    "P7": (two_hours_old, (), {"P7"}),
    "N8": (nothing_more, ("--max-age=60",), {"N8"}),
    "T1": (nothing_takes_fsck, (), {"T1"}),
    "S1": (oversize, (), {"S1"}),
}


async def test_a_ready_queue_is_go(hand):
    await both(hand)
    for options in (("--no-done-store",), ("--done-store",), ()):
        said = await hand.site.answer(*options)
        assert said["answer"] == "go", said
        assert hazards_of(said) == set()


@pytest.mark.parametrize("hazard", list(ENTRY))
async def test_before_nats_is_read_each_hazard_is_seen(hand, hazard):
    prepare, options, hazards = ENTRY[hazard]
    await both(hand)
    await prepare(hand)
    said = await hand.site.answer(*options)
    assert said["answer"] == "no-go", said
    assert hazards_of(said) == hazards
    assert all(
        reason["harm"] and reason["remedy"]
        for check in said["checks"]
        for reason in check["reasons"]
    )


@pytest.mark.parametrize("kept", [False, True])
async def test_what_has_no_record_may_be_done_or_lost(hand, kept):
    """Of two tasks that a Redis worker did before it kept records, or the second of them after."""
    hand.announce("dual_write")
    tasks = [hand.make_task() for _ in range(2)]
    await hand.put(Phase.DUAL_WRITE, *tasks)
    for task in tasks if kept else tasks[1:]:
        await hand.finish(task)
    said = await hand.site.answer()
    (check,) = [item for item in said["checks"] if item["name"] == "tasks without a record"]
    assert said["answer"] == check["answer"] == ("go" if kept else "unknown")
    assert check["ids"] == ([] if kept else [str(tasks[0].id)])
    if not kept:
        assert hazards_of(said, answer="unknown") == {"P5"}
        assert "reconcile" in check["reasons"][0]["remedy"]


@pytest.mark.parametrize("measures", ["none", PROTECTED])
async def test_who_does_not_know_what_is_done_is_told_how_to(hand, measures):
    hand.announce("dual_write", measures=measures)
    task = hand.make_task()
    await hand.put(Phase.DUAL_WRITE, task)
    await hand.redis.delete(hand.names.pending_key("sync"))
    said = await hand.site.answer("--no-done-store")
    assert said["answer"] == "unknown"
    (check,) = [item for item in said["checks"] if item["answer"] == "unknown"]
    (reason,) = check["reasons"]
    assert check["name"] == "watermark"
    assert ("--measures all" if measures == "none" else "--done-store") in reason["remedy"]


async def test_who_heard_nobody_is_told_how_to_listen(hand):
    await hand.put(Phase.DUAL_WRITE)
    said = await hand.site.answer()
    remedies = {item["name"]: [why["remedy"] for why in item["reasons"]] for item in said["checks"]}
    assert "--producers with the place" in remedies["no old producer"][0]
    assert "--workers with the place" in remedies["homogeneous fleet"][0]


@pytest.mark.parametrize(("policy", "answer"), [("allkeys-lru", "no-go"), ("noeviction", "go")])
async def test_a_redis_that_evicts(hand, policy, answer):
    await both(hand)
    await hand.redis.config_set("maxmemory-policy", policy)
    try:
        said = await hand.site.answer()
    finally:
        await hand.redis.config_set("maxmemory-policy", "noeviction")
    assert said["answer"] == answer
    assert hazards_of(said) == ({"R6"} if answer == "no-go" else set())


@pytest.mark.parametrize("redelivered", [101, 100])
async def test_deliveries_beyond_the_first(hand, redelivered):
    hand.announce("dual_read")
    await hand.consumer(max_ack_pending=1000, max_deliver=5)
    for _ in range(101):
        await hand.publish(hand.make_task())
    for message in await hand.pull(101):
        await message.nak()
    again = await hand.pull(101)
    for message in again[redelivered:]:
        await message.ack()
    await hand.transport.client.flush()
    said = await hand.site.answer(source=2, target=3)
    assert hazards_of(said) == ({"N3"} if redelivered > 100 else set()), said


@pytest.mark.parametrize("bound", [5, 6])
async def test_a_consumer_that_is_full(hand, bound):
    hand.announce("dual_read")
    await hand.consumer(max_ack_pending=bound)
    for _ in range(5):
        await hand.publish(hand.make_task())
    await hand.pull(5)
    said = await hand.site.answer(source=2, target=3)
    assert said["answer"] == ("no-go" if bound == 5 else "go"), said
    assert hazards_of(said) == ({"N5"} if bound == 5 else set())


@pytest.mark.parametrize(("interval", "answer"), [("120", "no-go"), ("1", "go")])
async def test_a_stream_that_is_synced_too_seldom(hand, interval, answer):
    hand.announce("dual_read")
    said = await hand.site.answer(f"--nats-sync-interval={interval}", source=2, target=3)
    assert said["answer"] == answer
    assert hazards_of(said) == ({"N10"} if answer == "no-go" else set())


@pytest.mark.parametrize("left", [True, False])
async def test_before_redis_goes_it_is_empty(hand, left):
    hand.announce("nats_primary", measures="none")
    if left:
        await hand.push(hand.names.pending_key("gc"), hand.make_task(task_type="gc"))
    said = await hand.site.answer(source=3, target=4, moment="between")
    assert said["answer"] == ("no-go" if left else "go"), said
    assert hazards_of(said) == ({"C1"} if left else set())


@pytest.mark.parametrize("moved", [True, False])
async def test_before_redis_goes_its_records_are_on_nats(hand, moved):
    hand.announce("nats_primary", measures="done_store")
    await ensure_bucket(hand.transport, retention_s=3600.0, storage="memory")
    record = DoneRecord(task_id=hand.make_task().id, token=1, done=True)
    await hand.store.put_record(record)
    if moved:
        await KvDoneStore(hand.transport, clock=hand.clock).put_record(record)
    said = await hand.site.answer("--done-store", source=3, target=4, moment="between")
    assert said["answer"] == ("go" if moved else "no-go"), said
    assert hazards_of(said) == (set() if moved else {"C1"})


@pytest.mark.parametrize("finished", [True, False])
async def test_before_a_rollback_redis_has_no_finished_task(hand, finished):
    hand.announce("dual_read", measures="none")
    task = hand.make_task()
    await hand.put(Phase.DUAL_WRITE, task)
    if finished:
        await hand.finish(task, keep=True)
    said = await hand.site.answer("--done-store", source=2, target=1)
    assert said["answer"] == ("no-go" if finished else "go"), said
    assert hazards_of(said) == ({"B2"} if finished else set())


@pytest.mark.parametrize("pending", [True, False])
async def test_after_a_rollback_nothing_is_left_on_nats(hand, pending):
    hand.announce("redis_only", measures="none")
    await hand.consumer()
    if pending:
        await hand.publish(hand.make_task())
    said = await hand.site.answer(source=3, target=0, moment="after")
    assert said["answer"] == ("no-go" if pending else "go"), said
    assert hazards_of(said) == ({"B3"} if pending else set())


@pytest.mark.parametrize("alone", [True, False])
async def test_after_the_way_back_nats_has_nothing_alone(hand, alone):
    hand.announce("redis_only", measures="none")
    task = hand.make_task()
    await (hand.publish(task) if alone else hand.put(Phase.DUAL_WRITE, task))
    said = await hand.site.answer("--done-store", source=1, target=0, moment="after")
    assert said["answer"] == ("no-go" if alone else "go"), said
    assert hazards_of(said) == ({"P3"} if alone else set())


async def test_the_start_sequence_is_behind_what_is_done(hand):
    hand.announce("dual_write")
    tasks = [hand.make_task() for _ in range(6)]
    await hand.put(Phase.DUAL_WRITE, *tasks)
    for task in tasks[:3]:
        await hand.redis.lrem(hand.names.pending_key("sync"), 1, encode_task(task))
    without = await hand.site.answer("--no-done-store")
    assert without["start"] == {"sequence": 4, "by_type": {"sync": 4}, "skipped": 3, "proved": 0}
    for task in (*tasks[:2], tasks[4]):
        await hand.finish(task, keep=True)
    said = await hand.site.answer("--done-store")
    assert said["start"] == {"sequence": 3, "by_type": {"sync": 3}, "skipped": 2, "proved": 2}
    assert (await hand.site.answer())["start"] == said["start"]  # the workers say that they keep it
    text = await asyncio.to_thread(
        hand.site.ask, f"--announced={hand.site.folder}", "--done-store", "--settle=0", code=3
    )
    assert "unknown  tasks without a record     1 tasks" in text  # the third
    assert "start    sequence 3 (sync 3); 2 tasks before it" in text
    assert "read 3 of 3 entries of Redis lists, 6 of 6 of the stream" in text


async def test_of_a_large_queue_a_sample_is_enough_to_see_what_is_wrong(hand):
    hand.announce("dual_write", measures="read_both,leases,done_store,epoch_consumer")
    await hand.put(Phase.DUAL_WRITE, *(hand.make_task() for _ in range(400)))
    said = await hand.site.answer("--sample=50", "--done-store")
    assert said["answer"] == "go", said
    assert said["sampled"] is True
    assert said["start"] is None
    assert said["looked"]["redis_read"] == 50
    # Up to the last of the sampled tasks, which may be any; see test_reading.py for how many.
    assert 50 <= said["looked"]["stream_read"] <= 400
    assert said["looked"]["redis_held"] == said["looked"]["stream_held"] == 400
    hand.announce("dual_write", measures="leases,done_store,epoch_consumer")
    await hand.put(Phase.REDIS_ONLY, *(hand.make_task() for _ in range(400)))
    said = await hand.site.answer("--sample=50", "--done-store")
    checks = {check["name"]: check for check in said["checks"]}
    assert checks["backlog and orphans"]["answer"] == "no-go"
    assert checks["ids reconciled"]["answer"] == "unknown"
    assert "ask without --sample" in checks["ids reconciled"]["evidence"]
    assert {"P2", "P1"} <= hazards_of(said, answer="unknown")


@pytest.mark.parametrize(("way", "moment"), [((2, 1), "before"), ((3, 4), "between")])
async def test_where_every_task_counts_a_sample_is_refused(site, way, moment):
    source, target = map(str, way)
    options = (f"--moment={moment}", "--sample=50")
    assert site.ask(*options, code=2, source=source, target=target) == ""


async def test_a_site_without_a_stream_gets_none(hand):
    """A gate is asked before the first process that would make it."""
    await hand.transport.jetstream.delete_stream(hand.names.stream)
    hand.announce("redis_only", measures="none")
    said = await hand.site.answer("--done-store", source=0, target=1)
    assert said["answer"] == "go", said


def test_the_answer_is_of_known_shape():
    from hookbench.live.gate import LiveAnswer  # noqa: PLC0415 - only its shape

    shape = msgspec.json.schema(LiveAnswer)
    assert {"checks", "start", "looked", "sampled"} <= shape["$defs"]["LiveAnswer"][
        "properties"
    ].keys()
