"""The way of one task through producer, broker and worker, and the same by the bare clients.

The reference is ``open_service`` and the whole ``WorkerService`` in their phase, with no measure
on; its handler does nothing, and NATS is acknowledged after it. The bare clients send the commands
that the phase cannot do without, one after another.
"""

import asyncio
import contextlib
import dataclasses

import nats
import redis.asyncio as redis_asyncio
from nats.js.api import StreamConfig

from hookbench.ledger.events import Event
from hookbench.migration.measures import Measures
from hookbench.migration.phases import (
    Phase,
    ReadRoute,
    WriteRoute,
    read_route,
    write_route,
)
from hookbench.migration.service import open_service
from hookbench.queues.connections import Connections
from hookbench.queues.jetstream import StreamSettings
from hookbench.queues.redis_kind import RedisKind
from hookbench.queues.redis_stream import GROUP, PAYLOAD_FIELD
from hookbench.task import Names
from hookbench.worker.handlers.noop import NoopHandler
from hookbench.worker.limits import WorkerLimits
from hookbench.worker.service import WorkerService, WorkerSettings
from tests.evidence.turns import PRODUCER, WORKER, as_role

SLOTS = 8
BLOCK_S = 10.0
"""So long that no read comes back empty between two tasks: that would be one more turn."""
DEADLINE_S = 60.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Way:
    """Through which brokers a task goes."""

    phase: Phase
    redis_kind: RedisKind = RedisKind.LIST

    @property
    def writes_redis(self):
        return write_route(self.phase) is not WriteRoute.NATS

    @property
    def writes_nats(self):
        return write_route(self.phase) is not WriteRoute.REDIS

    @property
    def reads_redis(self):
        return read_route(self.phase) is ReadRoute.REDIS


WAYS = {
    "redis_list": Way(phase=Phase.REDIS_ONLY),
    "redis_stream": Way(phase=Phase.REDIS_ONLY, redis_kind=RedisKind.STREAM),
    "dual_write": Way(phase=Phase.DUAL_WRITE),
    "dual_read": Way(phase=Phase.DUAL_READ),
    "nats_primary": Way(phase=Phase.NATS_PRIMARY),
    "jetstream": Way(phase=Phase.NATS_ONLY),
}
"""The three queues, and the phases between the first and the last."""


class Ends:
    """A recorder that knows when so many deliveries were acknowledged."""

    def __init__(self):
        self.reached = asyncio.Event()
        self.acknowledged = 0
        self.wrong = []
        self._wanted = 0

    def expect(self, count):
        self._wanted = self.acknowledged + count
        self.reached.clear()

    def record(self, event, *_task, **_facts):
        if event is Event.ACK_SENT:
            self.acknowledged += 1
            if self.acknowledged == self._wanted:
                self.reached.set()
        elif event in (Event.ACK_FAILED, Event.FAILED, Event.DEAD, Event.NAK):
            self.wrong.append(event.name)


class Reference:
    """Producer and worker of a way; their connections are opened in their roles, to be counted."""

    def __init__(self, way, redis_url, nats_url, names, clock):
        self.way = way
        self.names = names
        self.ends = Ends()
        self._clock = clock
        self._where = {"redis_url": redis_url, "nats_url": nats_url, "names": names}
        self._roles = {role: as_role(role) for role in (PRODUCER, WORKER)}

    def _as(self, role, coroutine):
        return asyncio.get_running_loop().create_task(coroutine, context=self._roles[role])

    @contextlib.asynccontextmanager
    async def open(self):
        connections = Connections(
            **self._where,
            clock=self._clock,
            stream=StreamSettings(storage="memory"),
            redis_kind=self.way.redis_kind,
        )
        self._service = await self._as(
            PRODUCER, open_service(self.way.phase, connections, self.names)
        )
        worker, running = await self._begin_worker()
        try:
            yield self
        finally:
            worker.request_stop()
            # The read that waits is not cut off; it ends with a task.
            async with asyncio.timeout(DEADLINE_S):
                if not running.done():
                    await self._as(PRODUCER, self._service.send(self.last_task))
                await running
                await connections.close()

    async def _begin_worker(self):
        begun = asyncio.Event()
        worker = WorkerService(
            WorkerSettings(
                **self._where,
                phase=self.way.phase,
                block_timeout_secs=BLOCK_S,
                stream=StreamSettings(storage="memory"),
                limits=WorkerLimits(concurrency=SLOTS),
                measures=Measures(ack_after=True),
                redis_kind=self.way.redis_kind,
            ),
            NoopHandler(),
            clock=self._clock,
            recorder=self.ends,
            announce=lambda event: begun.set() if event["event"] == "phase" else None,
        )
        running = self._as(WORKER, worker.run())
        waiting = asyncio.ensure_future(begun.wait())
        await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if running.done():
            await running
            raise RuntimeError("the worker ended at its start")
        return worker, running

    async def in_turn(self, tasks):
        """Each task is put, and the next one when it is acknowledged."""
        await self._as(PRODUCER, self._in_turn(tasks))

    async def _in_turn(self, tasks):
        async with asyncio.timeout(DEADLINE_S):
            for task in tasks:
                self.ends.expect(1)
                await self._service.send(task)
                await self.ends.reached.wait()


class Bare:
    """The clients as their own documentation opens them, on keys and a stream of their own."""

    def __init__(self, way, redis_url, nats_url, run):
        self.way = way
        self.names = Names.for_run(run)
        self._urls = redis_url, nats_url
        self._streams = way.redis_kind is RedisKind.STREAM
        self._key = self.names.pending_key("sync")
        self._work = self.names.work_key("sync")
        self._stream_key = self.names.stream_key("sync")
        self._subject = self.names.subject("sync")

    @contextlib.asynccontextmanager
    async def open(self):
        redis_url, nats_url = self._urls
        async with contextlib.AsyncExitStack() as stack:
            self._redis = redis_asyncio.Redis.from_url(redis_url)
            stack.push_async_callback(self._redis.aclose)
            client = await nats.connect(nats_url)
            stack.push_async_callback(client.close)
            self._jetstream = client.jetstream()
            if self._streams:
                await self._redis.xgroup_create(self._stream_key, GROUP, id="0", mkstream=True)
            if self.way.writes_nats:
                await self._jetstream.add_stream(
                    StreamConfig(name=self.names.stream, subjects=[self._subject], storage="memory")
                )
                self._puller = await self._jetstream.pull_subscribe(self._subject, durable="bare")
            yield self

    async def in_turn(self, payloads):
        """What came out, task by task."""
        return [await self._one(data) for data in payloads]

    async def _one(self, data):
        if self._streams:
            return await self._over_stream(data)
        if self.way.writes_nats:
            await self._jetstream.publish(self._subject, data)
        if self.way.writes_redis:
            await self._redis.lpush(self._key, data)
        if self.way.reads_redis:
            taken = await self._redis.blmove(self._key, self._work, 5, "RIGHT", "LEFT")
            await self._redis.lrem(self._work, 0, taken)
            return taken
        (message,) = await self._puller.fetch(1, timeout=5)
        await message.ack()
        return message.data

    async def _over_stream(self, data):
        await self._redis.xadd(self._stream_key, {PAYLOAD_FIELD: data})
        ((_key, ((entry, fields),)),) = await self._redis.xreadgroup(
            GROUP, "bare", {self._stream_key: ">"}, count=1, block=5_000
        )
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.xack(self._stream_key, GROUP, entry)
        pipeline.xdel(self._stream_key, entry)
        await pipeline.execute()
        return fields[PAYLOAD_FIELD]


async def remove_names(redis_url, nats_url, names):
    """Whatever has these names on both brokers."""
    async with redis_asyncio.Redis.from_url(redis_url) as client:
        found = [key async for key in client.scan_iter(match=f"{names.prefix}*", count=1_000)]
        if found:
            await client.delete(*found)
    client = await nats.connect(nats_url)
    jetstream = client.jetstream()
    for info in await jetstream.streams_info():
        if info.config.name in names.streams:
            await jetstream.delete_stream(info.config.name)
    await client.close()
