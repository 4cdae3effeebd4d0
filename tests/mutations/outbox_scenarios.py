"""Scenarios of a producer with an outbox: each is valid without a bug."""

import contextlib

from hookbench.errors import PublishUnknownError
from hookbench.ledger.boot import boot_id
from hookbench.ledger.model import Bounds
from hookbench.migration.measures import Measures
from hookbench.migration.outbox import Outbox
from hookbench.migration.outbox_file import OutboxFile
from hookbench.migration.phases import Phase
from hookbench.migration.service import open_service
from hookbench.queues.jetstream import StreamSettings, ensure_stream
from hookbench.task import decode_task
from tests.conftest import eventually


class Producer:
    """A producer with an outbox, and what its scenario does to it."""

    def __init__(self, scene, opened, outbox, service):
        self.scene, self.opened, self.outbox, self.service = scene, opened, outbox, service
        self.closed = False

    async def send(self, *tasks):
        for task in tasks:
            assert await self.scene.send(self.service, task) == "ok"

    async def landed(self):
        """Wait until every put that was made at once has its outcome."""
        sweepers = self.outbox._sweepers.values()
        await eventually(lambda: not any(item._flying for item in sweepers), what="the outcomes")

    async def die(self):
        """Nothing more is put, and what was only in memory is gone."""
        self.closed = True
        for sweeper in self.outbox._sweepers.values():
            await sweeper.abandon()
        self.outbox.file._marks.clear()
        await self.outbox.file.close()


@contextlib.asynccontextmanager
async def _producer(scene, phase, redis_url=None):
    opened = scene.connections(redis_url)
    path = scene.folder / "outbox.sqlite"
    file = OutboxFile(path, boot_id=boot_id(), clock=scene.clock, disk=scene.ground.disk)
    outbox = Outbox(file, clock=scene.clock)
    try:
        service = await open_service(
            phase,
            opened,
            scene.names,
            measures=Measures(outbox=True),
            recorder=scene.producer,
            outbox=outbox,
        )
        producer = Producer(scene, opened, outbox, service)
        yield producer
        if not producer.closed:
            await outbox.drain()
    finally:
        if not producer.closed:
            await outbox.close()
        await opened.close()
        with scene.ground.disk.open(path) as spool:
            scene.spooled = [str(decode_task(task).id) for task in spool.tasks()]


async def _without_stream(scene, producer):
    transport = await producer.opened.nats()
    await transport.jetstream.delete_stream(scene.names.stream)
    return transport


async def _work(scene):
    async with scene.worker(1):
        await scene.quiet()


async def outbox_taken_over(scene):
    """Tasks are accepted while there is no stream; the producer dies, another one sweeps them."""
    scene.enter(Phase.NATS_PRIMARY)
    async with _producer(scene, Phase.NATS_PRIMARY) as producer:
        await _without_stream(scene, producer)
        await producer.send(*scene.tasks())
        await producer.die()
    async with _producer(scene, Phase.NATS_PRIMARY):
        pass
    await _work(scene)


async def outbox_one_repository_taken_over(scene):
    """The same with four tasks of one repository, which are swept in their order."""
    scene.bounds = Bounds(max_inversions=0)
    scene.enter(Phase.NATS_PRIMARY)
    async with _producer(scene, Phase.NATS_PRIMARY) as producer:
        await _without_stream(scene, producer)
        await producer.send(*[scene.task() for _ in range(4)])
        await producer.die()
    async with _producer(scene, Phase.NATS_PRIMARY):
        pass
    await _work(scene)


async def outbox_stream_away(scene):
    """Tasks are accepted while there is no stream, and swept when it is there again."""
    scene.enter(Phase.NATS_PRIMARY)
    async with _producer(scene, Phase.NATS_PRIMARY) as producer:
        transport = await _without_stream(scene, producer)
        await producer.send(*scene.tasks())
        await producer.landed()
        await ensure_stream(transport, StreamSettings(storage="memory"))
    await _work(scene)


async def outbox_redis_refuses(scene):
    """In phase 1 NATS takes the tasks at once, and Redis later: its key holds no list at first."""
    scene.enter(Phase.DUAL_WRITE)
    async with _producer(scene, Phase.DUAL_WRITE) as producer:
        redis, key = producer.opened.redis(), scene.names.pending_key("sync")
        await redis.set(key, b"no list")
        await producer.send(*scene.tasks())
        await scene.sees(lambda sample: sample.stream == 3, "the tasks in the stream")
        await producer.landed()
        await producer.outbox.file.left()  # writes down what is acknowledged
        await redis.delete(key)
    await _work(scene)


async def outbox_answer_lost(scene):
    """The stream stores a task, and the answer to its producer is lost: it is published again."""
    scene.enter(Phase.NATS_PRIMARY)
    async with _producer(scene, Phase.NATS_PRIMARY) as producer:
        publish, lost = producer.service._nats_publish, []

        async def without_answer(subject, payload):
            sequence = await publish(subject, payload)
            if not lost:
                lost.append(sequence)
                raise PublishUnknownError("the answer is lost")
            return sequence

        producer.service._nats_publish = without_answer
        await producer.send(scene.task())
    await _work(scene)


async def outbox_reply_lost(scene):
    """The reply to an LPUSH is lost: the outbox looks for the task before it pushes it again."""
    scene.enter(Phase.REDIS_ONLY)
    async with (
        scene.wire(drop_replies=1) as wire,
        _producer(scene, Phase.REDIS_ONLY, wire.url) as producer,
    ):
        await producer.send(scene.task())
    await _work(scene)
