"""The scenarios of the bugs on the side of NATS: each is valid without a bug."""

from hookbench.errors import BrokerUnreachableError
from hookbench.migration.measures import Measures
from hookbench.migration.phases import Phase
from hookbench.queues.epochs import current_consumer
from tests.fake_done_store import FakeDoneStore
from tests.mutations.scene import LEASE_S, environment

CONFIRMED = Measures(ack_after=True, confirmed_acks=True)
EPOCHS = Measures(ack_after=True, epoch_consumer=True)


async def nats_confirmed(scene):
    """Three tasks, one of each class, through NATS; their acknowledgements are confirmed."""
    scene.enter(Phase.NATS_PRIMARY)
    with environment(lease_s=LEASE_S):
        await scene.put(*scene.tasks())
        async with scene.worker(1, measures=CONFIRMED):
            await scene.quiet(leases=True)


async def consumer_deleted(scene):
    """Three tasks are done, the consumer of their epoch is deleted, and two more are put."""
    scene.enter(Phase.NATS_PRIMARY)
    first, later = scene.tasks(), [scene.task(), scene.task()]
    store = FakeDoneStore()
    with environment():
        await scene.put(*first)
        async with scene.worker(1, done=store, measures=EPOCHS):
            await scene.quiet(leases=True)
        store.done |= {task.id for task in first}
        async with await scene.transport() as transport:
            durable = await current_consumer(transport)
            await transport.jetstream.delete_consumer(scene.names.stream, durable)
        await scene.put(*later)
        async with scene.worker(2, done=store, measures=EPOCHS):
            await scene.quiet(leases=True)


class _AwayOnce(FakeDoneStore):
    """Does not answer to its first question about several tasks."""

    away = True

    async def are_done(self, task_ids):
        if self.away:
            self.away = False
            raise BrokerUnreachableError("the done-store does not answer")
        return await super().are_done(task_ids)


async def store_away_once(scene):
    """A consumer is deleted, and whoever knows what has ended does not answer at first."""
    scene.enter(Phase.NATS_PRIMARY)
    first, later = scene.tasks(), [scene.task(), scene.task()]
    with environment():
        await scene.put(*first)
        async with scene.worker(1, done=FakeDoneStore(), measures=EPOCHS):
            await scene.quiet(leases=True)
        async with await scene.transport() as transport:
            durable = await current_consumer(transport)
            await transport.jetstream.delete_consumer(scene.names.stream, durable)
        await scene.put(*later)
        store = _AwayOnce()
        store.done |= {task.id for task in first}
        async with scene.worker(2, done=store, measures=EPOCHS):
            await scene.quiet(leases=True)


async def stream_lost(scene):
    """Three tasks are done, the stream is lost, and two more are put into the new one."""
    scene.enter(Phase.NATS_PRIMARY)
    first, later = scene.tasks(), [scene.task(), scene.task()]
    store = FakeDoneStore()
    with environment():
        await scene.put(*first)
        async with scene.worker(1, done=store, measures=EPOCHS):
            await scene.quiet(leases=True)
        store.done |= {task.id for task in first}
        # An epoch of which the three are known: the one before was begun before they were done.
        async with await scene.transport() as transport:
            durable = await current_consumer(transport)
            await transport.jetstream.delete_consumer(scene.names.stream, durable)
        async with scene.worker(2, done=store, measures=EPOCHS):
            await scene.quiet(leases=True)
        async with await scene.transport() as transport:
            await transport.jetstream.delete_stream(scene.names.stream)
        await scene.put(*later)
        async with scene.worker(3, done=store, measures=EPOCHS):
            await scene.quiet(leases=True)
