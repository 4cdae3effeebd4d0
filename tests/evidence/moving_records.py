"""What a copy of the done-records costs, and what a completion pays for the log that it reads.

``python -m tests.evidence.moving_records [RECORDS ...]`` prints it. For each number of records a
comparison of all of them, which is what each copy and each check did before there was a log, and
in the same round those of what changed since: medians of the rounds, and of their ratios. Then
claims and completions per second with the log and without it, in turn, by one process and alone
as well as in batches. Both brokers are in durability class ``memory``.
"""

import asyncio
import statistics
import sys
import tempfile
import time
import uuid
from pathlib import Path

from hookbench.brokers.durability import Durability
from hookbench.brokers.embedded import start_nats, start_redis
from hookbench.brokers.resolve import resolve_nats, resolve_redis
from hookbench.clock import SystemClock
from hookbench.migration.records import catch_up, find_unmoved, move_records
from hookbench.queues import redis_done_store
from hookbench.queues.kv_bucket import ensure_bucket
from hookbench.queues.kv_done_store import KvDoneStore
from hookbench.queues.redis_client import connect_redis
from hookbench.queues.redis_done_store import RedisDoneStore
from hookbench.queues.transport import AppTransport
from hookbench.task import Names

RECORDS = (10_000, 100_000)
ROUNDS = 5
LATE = 1_000
"""Tasks that end between two copies: those of a second or two."""
LOAD_PER_S = 1_000
PRICED = 20_000
BATCH = 250
ALONE = 2_000
RETENTION_S = 3600.0
LEASE_S = 60.0


def say(text):
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


async def finish(store, tasks):
    """Claim and complete, in batches as a busy worker has them."""
    for start in range(0, len(tasks), BATCH):
        part = tasks[start : start + BATCH]
        claims = await asyncio.gather(*(store.claim(task, "a", LEASE_S) for task in part))
        await asyncio.gather(*map(store.complete, claims))


async def timed(work):
    started_ns = time.perf_counter_ns()
    answer = await work
    return (time.perf_counter_ns() - started_ns) / 1e9, answer


async def moving(redis_url, nats_url, count):
    """Seconds of copies and checks, by all records and by what changed."""
    names = Names.for_run(uuid.uuid4().hex[:12])
    client = connect_redis(redis_url)
    transport = await AppTransport.connect(nats_url, names=names)
    try:
        await ensure_bucket(transport, retention_s=RETENTION_S, storage="memory")
        source = RedisDoneStore(client, names=names, retention_s=RETENTION_S)
        target = KvDoneStore(transport, clock=SystemClock())
        await finish(source, [uuid.uuid4() for _ in range(count)])
        first_s, moved = await timed(move_records(source, target))
        assert (moved.whole, moved.copied, moved.complete) == (True, count, True)
        rows = []
        for _ in range(ROUNDS):
            await finish(source, [uuid.uuid4() for _ in range(LATE)])
            check_s, found = await timed(find_unmoved(source, target))
            assert (found.whole, len(found.ages_s)) == (False, LATE)
            copy_s, moved = await timed(move_records(source, target))
            assert (moved.whole, moved.read, moved.copied) == (False, LATE, LATE)
            await finish(source, [uuid.uuid4() for _ in range(LATE)])
            all_copy_s, moved = await timed(move_records(source, target, whole=True))
            assert (moved.whole, moved.copied) == (True, LATE)
            all_check_s, found = await timed(find_unmoved(source, target, whole=True))
            assert (found.whole, found.ages_s) == (True, {})
            rows.append((all_copy_s, copy_s, all_check_s, check_s))
        say(f"{count:,} records, the first copy {first_s:.2f} s")
        for what, old, new in (("copy", 0, 1), ("check", 2, 3)):
            ratio = statistics.median(row[old] / row[new] for row in rows)
            before, after = (statistics.median(row[part] for row in rows) for part in (old, new))
            say(f"  {what} with {LATE} new: all {before:.2f} s, changed {after:.3f} s, {ratio:.1f}")
        await catching_up(source, target)
        await transport.jetstream.delete_stream(f"KV_{names.done_bucket}")
        await source.remove_all()
    finally:
        await transport.close()
        await client.aclose()


async def catching_up(source, target):
    """What is left by a copy beside workers of this process, when they end tasks at a rate."""
    stop = asyncio.Event()
    ended = 0

    async def work():
        nonlocal ended
        started_ns = time.perf_counter_ns()
        while not stop.is_set():
            due = int((time.perf_counter_ns() - started_ns) / 1e9 * LOAD_PER_S)
            count = min(due - ended, BATCH)
            await finish(source, [uuid.uuid4() for _ in range(count)])
            ended += count
            await asyncio.sleep(0.01)

    worker = asyncio.ensure_future(work())
    await asyncio.sleep(1.0)
    for copy in (catch_up, lambda *stores: move_records(*stores, whole=True)):
        before = ended
        copied_s, _moved = await timed(copy(source, target))
        left = (await find_unmoved(source, target)).ages_s
        say(
            f"  under {(ended - before) / copied_s:,.0f} completions/s: {copied_s:.2f} s,"
            f" then {len(left)} are missing, the oldest of {max(left.values(), default=0):.2f} s"
        )
    stop.set()
    await worker


async def price(url):
    """Tasks claimed and completed per second; the script with and without its last part."""
    with_log = redis_done_store.ASK
    without = with_log.replace("if #changed > 0 then", "if false then")
    assert without != with_log
    client = connect_redis(url)
    try:
        for what, count, batch in (("in batches", PRICED, BATCH), ("alone", ALONE, 1)):
            ratios, rates, used = [], {with_log: [], without: []}, {}
            for _ in range(2 * ROUNDS + 1):
                for script in (without, with_log):
                    redis_done_store.ASK = script
                    names = Names.for_run(uuid.uuid4().hex[:12])
                    store = RedisDoneStore(client, names=names, retention_s=RETENTION_S)
                    tasks = [uuid.uuid4() for _ in range(count)]
                    before = (await client.info("memory"))["used_memory"]
                    started_ns = time.perf_counter_ns()
                    for start in range(0, count, batch):
                        await finish(store, tasks[start : start + batch])
                    rates[script].append(count * 1e9 / (time.perf_counter_ns() - started_ns))
                    used[script] = (await client.info("memory"))["used_memory"] - before
                    await store.remove_all()
                ratios.append(rates[with_log][-1] / rates[without][-1])
            medians = [statistics.median(rates[script]) for script in (without, with_log)]
            sizes = [used[script] / count for script in (without, with_log)]
            say(
                f"claim and completion {what}: {medians[0]:,.0f}/s without a log,"
                f" {medians[1]:,.0f}/s with it, {statistics.median(ratios):.3f};"
                f" {sizes[0]:.0f} and {sizes[1]:.0f} bytes of Redis per task"
            )
    finally:
        redis_done_store.ASK = with_log
        await client.aclose()


async def main():
    counts = [int(text) for text in sys.argv[1:]] or list(RECORDS)
    with tempfile.TemporaryDirectory() as folder:
        redis = start_redis(resolve_redis(), Path(folder) / "redis", Durability.MEMORY)
        nats = start_nats(resolve_nats(), Path(folder) / "nats", Durability.MEMORY)
        try:
            for count in counts:
                await moving(redis.url, nats.url, count)
            await price(redis.url)
        finally:
            nats.stop()
            redis.stop()


if __name__ == "__main__":
    asyncio.run(main())
