"""Bugs of the queues and of the consumer over them."""

from hookbench.migration import consumer
from hookbench.queues import connections
from hookbench.queues.nats_message import NatsMessage
from hookbench.queues.redis_list import RedisListDelivery, RedisListQueue
from hookbench.queues.standing_pull import StandingPull
from tests.mutations import scenarios
from tests.mutations.planting import Mutation


def redis_ack_is_dropped(_original, trace):
    async def remove(_self, payload):
        trace.hit(payload)
        return 1

    return remove


def nats_ack_is_dropped(_original, trace):
    async def ack(self):
        trace.hit(self)

    return ack


def ack_of_the_delivery_before(original, trace):
    before = []

    async def ack(self):
        trace.hit(self)
        if before:
            trace.spare(before[-1])
            await original(before[-1])
        before.append(self)

    return ack


def nak_that_acknowledges(_original, trace):
    async def nak(self, _delay_s=0.0):
        trace.hit(self)
        await self.ack()

    return nak


def attempt_is_not_counted(_original, trace):
    async def nak(self, _delay_s=0.0):
        trace.hit(self)
        await self._queue.requeue(self.payload, self.payload)

    return nak


def requeue_without_a_look(_original, trace):
    async def requeue(self, payload, replacement):
        held = await self._client.lrem(self._work, self._lrem_count, payload)
        if held == 0:
            trace.hit(payload)
        await self._client.lpush(self._pending, replacement)
        return held

    return requeue


def last_of_a_batch_is_forgotten(original, trace):
    async def _move(self, limit):
        payloads = await original(self, limit)
        for payload in payloads[-1:]:
            trace.hit(payload)
        return payloads[:-1]

    return _move


def pushed_at_the_wrong_end(_original, trace):
    async def put(self, payload):
        for overtaken in await self._client.lrange(self._pending, 0, -1):
            trace.hit(overtaken)
        return await self._client.rpush(self._pending, payload)

    return put


def newest_of_a_pull_first(original, trace):
    async def take(self, batch, wait_s):
        messages = await original(self, batch, wait_s)
        for overtaken in messages[:-1]:
            trace.hit(overtaken.data)
        return messages[::-1]

    return take


def buffered_deliveries_are_kept(original, trace):
    async def close(self):
        for message in self._arrived:
            trace.hit(message.data)
        self._arrived.clear()
        return await original(self)

    return close


def only_new_tasks_are_delivered(original, trace):
    async def ensure_consumer(transport, settings):
        info = await transport.jetstream.stream_info(transport.names.stream)
        for sequence in range(info.state.first_seq, info.state.last_seq + 1):
            message = await transport.jetstream.get_msg(transport.names.stream, sequence)
            trace.hit(message.data)
        await original(transport, settings)
        return await _start_anew(transport)

    return ensure_consumer


async def _start_anew(transport):
    names, jetstream = transport.names, transport.jetstream
    info = await jetstream.consumer_info(names.stream, names.consumer)
    await jetstream.delete_consumer(names.stream, names.consumer)
    return await jetstream.add_consumer(names.stream, info.config.evolve(deliver_policy="new"))


def task_taken_for_junk(original, trace):
    def decode_delivery(delivery, recorder):
        try:
            delivery.payload.decode("ascii")
        except UnicodeDecodeError as error:
            trace.hit(delivery)
            return original(_Unreadable(delivery, error), recorder)
        return original(delivery, recorder)

    return decode_delivery


class _Unreadable:
    """A delivery whose payload cannot be decoded, and otherwise itself."""

    def __init__(self, delivery, error):
        self.payload = delivery.payload + str(error).encode()
        for name in ("broker", "sequence", "attempt", "ack", "nak", "term", "in_progress"):
            setattr(self, name, getattr(delivery, name))


MUTATIONS = (
    Mutation(
        name="redis-ack-is-dropped",
        owner=RedisListQueue,
        attribute="remove",
        plant=redis_ack_is_dropped,
        what="LREM is not sent: the work list keeps the finished task",
        scenario=scenarios.redis_tasks,
        invariant=5,
        row="redis_only",
        hazard="P8",
    ),
    Mutation(
        name="nats-ack-is-dropped",
        owner=NatsMessage,
        attribute="ack",
        plant=nats_ack_is_dropped,
        what="the acknowledgement is not sent: the finished task is delivered again",
        scenario=scenarios.nats_tasks,
        invariant=4,
        row="nats_primary",
        cause=("duplicate", "ack_sent", "-", "-"),
    ),
    Mutation(
        name="ack-of-the-delivery-before",
        owner=RedisListDelivery,
        attribute="ack",
        plant=ack_of_the_delivery_before,
        what="each acknowledgement goes to the delivery before",
        scenario=scenarios.redis_tasks,
        invariant=5,
        row="redis_only",
        hazard="P8",
    ),
    Mutation(
        name="redis-nak-that-acknowledges",
        owner=RedisListDelivery,
        attribute="nak",
        plant=nak_that_acknowledges,
        what="giving a task back removes it",
        scenario=scenarios.redis_failing_once,
        invariant=1,
        row="redis_only",
        cause=("lost", "nak", "-", "-"),
    ),
    Mutation(
        name="nats-nak-that-acknowledges",
        owner=NatsMessage,
        attribute="nak",
        plant=nak_that_acknowledges,
        what="a nak is sent as an acknowledgement",
        scenario=scenarios.nats_failing_once,
        invariant=1,
        row="nats_primary",
        cause=("lost", "nak", "-", "-"),
    ),
    Mutation(
        name="attempt-is-not-counted",
        owner=RedisListDelivery,
        attribute="nak",
        plant=attempt_is_not_counted,
        what="a retry does not raise the task's count: it is retried beyond its budget",
        scenario=scenarios.redis_failing,
        invariant=6,
        row="redis_only",
    ),
    Mutation(
        name="requeue-without-a-look",
        owner=RedisListQueue,
        attribute="requeue",
        plant=requeue_without_a_look,
        what="a retry is pushed although the work list did not hold the task any more (R5)",
        scenario=scenarios.reaped,
        invariant=4,
        row="redis_only",
        cause=("duplicate", "ack_sent", "-", "-"),
    ),
    Mutation(
        name="last-of-a-batch-is-forgotten",
        owner=RedisListQueue,
        attribute="_move",
        plant=last_of_a_batch_is_forgotten,
        what="the last task of a read that takes several is moved and not handed out",
        scenario=scenarios.redis_batch,
        invariant=5,
        row="redis_only",
        hazard="R3",
    ),
    Mutation(
        name="pushed-at-the-wrong-end",
        owner=RedisListQueue,
        attribute="put",
        plant=pushed_at_the_wrong_end,
        what="RPUSH in place of LPUSH: the newest task comes out first",
        scenario=scenarios.redis_backlog_of_one_repository,
        invariant=7,
        row="redis_only",
        hazard="P11",
    ),
    Mutation(
        name="newest-of-a-pull-first",
        owner=StandingPull,
        attribute="take",
        plant=newest_of_a_pull_first,
        what="what has arrived together is handed out from its end",
        scenario=scenarios.nats_backlog_of_one_repository,
        invariant=7,
        row="nats_primary",
        hazard="P11",
    ),
    Mutation(
        name="buffered-deliveries-are-kept",
        owner=StandingPull,
        attribute="close",
        plant=buffered_deliveries_are_kept,
        what="a stop does not give back what was fetched and not handed out",
        scenario=scenarios.buffered_at_stop,
        invariant=5,
        row="nats_primary",
    ),
    Mutation(
        name="only-new-tasks-are-delivered",
        owner=connections,
        attribute="ensure_consumer",
        plant=only_new_tasks_are_delivered,
        what="the consumer starts behind the tasks that are in the stream already",
        scenario=scenarios.backlog_before_the_consumer,
        invariant=1,
        row="nats_primary",
        cause=("lost", "accepted", "-", "-"),
    ),
    Mutation(
        name="task-taken-for-junk",
        owner=consumer,
        attribute="decode_delivery",
        plant=task_taken_for_junk,
        what="a task with other letters than ASCII is taken for junk",
        scenario=scenarios.redis_odd_payload,
        invariant=1,
        row="redis_only",
        cause=("lost", "accepted", "-", "-"),
    ),
)
