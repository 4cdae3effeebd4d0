"""Bugs of the measures on the side of NATS: confirmations, epochs and their watermark."""

import asyncio

import msgspec

from hookbench.errors import BrokerUnreachableError
from hookbench.queues import epochs, watermark
from hookbench.queues.nats_message import NatsMessage
from tests.mutations import on_nats
from tests.mutations.planting import Mutation


def confirmed_without_a_word(_original, trace):
    async def send_ack(self):
        trace.hit(self)
        future = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future

    return send_ack


def watermark_one_too_high(original, trace):
    async def find_watermark(transport, task_type, ended, **options):
        mark = await original(transport, task_type, ended, **options)
        if mark.ended:
            await _hit(transport, mark.sequence, trace)
            return msgspec.structs.replace(mark, sequence=mark.sequence + 1)
        return mark

    return find_watermark


def watermark_one_too_low(original, trace):
    async def find_watermark(transport, task_type, ended, **options):
        mark = await original(transport, task_type, ended, **options)
        if mark.ended:
            await _hit(transport, mark.sequence - 1, trace)
            return msgspec.structs.replace(mark, sequence=mark.sequence - 1)
        return mark

    return find_watermark


def deleted_consumer_is_made_anew(original, trace):
    async def read_epoch(transport, task_type):
        epoch, revision = await original(transport, task_type)
        if epoch is not None and epoch.made:
            name = epochs.epoch_consumer_name(transport, task_type, epoch.number)
            info = await epochs._find(transport, name)
            if info is None:
                state = (await transport.jetstream.stream_info(transport.names.stream)).state
                for sequence in range(epoch.start_sequence, state.last_seq - 1):
                    await _hit(transport, sequence, trace)
                return msgspec.structs.replace(epoch, made=False), revision
        return epoch, revision

    return read_epoch


async def _hit(transport, sequence, trace):
    trace.hit((await transport.jetstream.get_msg(transport.names.stream, sequence)).data)


def another_stream_is_taken_for_the_same(original, trace):
    async def _is_there(transport, anchor):
        if anchor.sequence and not await original(transport, anchor):
            state = (await transport.jetstream.stream_info(transport.names.stream)).state
            for sequence in range(1, state.last_seq + 1):
                await _hit(transport, sequence, trace)
        return True

    return _is_there


def unjudged_is_behind(original, trace):
    async def _judge(self, stored, ended):
        try:
            return await original(self, stored, ended)
        except BrokerUnreachableError:
            ids = {item.sequence: watermark.id_of_payload(item.payload) for item in stored}
            known = await ended(ids.values())
            for sequence, task in ids.items():
                if task not in known:
                    await _hit(self._transport, sequence, trace)
            last = stored[-1]
            self.anchor = watermark.Anchor(last.sequence, watermark._digest(last.payload))
            raise

    return _judge


MUTATIONS = (
    Mutation(
        name="watermark-one-too-high",
        owner=epochs,
        attribute="find_watermark",
        plant=watermark_one_too_high,
        what="a new epoch starts behind the first task that is not done",
        scenario=on_nats.consumer_deleted,
        invariant=1,
        row="nats_primary",
        cause=("lost", "accepted", "-", "-"),
    ),
    Mutation(
        name="watermark-one-too-low",
        owner=epochs,
        attribute="find_watermark",
        plant=watermark_one_too_low,
        what="a new epoch starts with the last task that is done",
        scenario=on_nats.consumer_deleted,
        invariant=4,
        row="nats_primary",
        cause=("duplicate", "ack_sent", "-", "-"),
    ),
    Mutation(
        name="deleted-consumer-is-made-anew",
        owner=epochs,
        attribute="read_epoch",
        plant=deleted_consumer_is_made_anew,
        what="the consumer of an epoch is made again where it began, and no new epoch begins",
        scenario=on_nats.consumer_deleted,
        invariant=4,
        row="nats_primary",
        cause=("duplicate", "ack_sent", "-", "-"),
    ),
    Mutation(
        name="confirmed-without-a-word",
        owner=NatsMessage,
        attribute="send_ack",
        plant=confirmed_without_a_word,
        what="an acknowledgement counts as confirmed, and was never sent",
        scenario=on_nats.nats_confirmed,
        invariant=4,
        row="nats_primary",
        cause=("duplicate", "ack_sent", "-", "-"),
    ),
    Mutation(
        name="another-stream-is-taken-for-the-same",
        owner=watermark,
        attribute="_is_there",
        plant=another_stream_is_taken_for_the_same,
        what="the search for the watermark goes on where it ended in a stream that was lost since",
        scenario=on_nats.stream_lost,
        invariant=1,
        row="nats_primary",
        cause=("lost", "accepted", "-", "-"),
    ),
    Mutation(
        name="unjudged-is-behind",
        owner=watermark._Search,
        attribute="_judge",
        plant=unjudged_is_behind,
        what="the search goes on behind the tasks of which nobody said whether they have ended",
        scenario=on_nats.store_away_once,
        invariant=1,
        row="nats_primary",
        cause=("lost", "accepted", "-", "-"),
    ),
)
