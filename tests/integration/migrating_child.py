"""The process of a procedure: carries it out, or dies where it is told to.

Started a few hundred times, so it imports nothing that it does not need.
"""

import asyncio
import dataclasses
import functools
import json
import sys
from pathlib import Path

import msgspec
from nats.js.api import DeliverPolicy

from hookbench.clock import SystemClock
from hookbench.errors import HeldBackError
from hookbench.migration.announcements import read_announced
from hookbench.migration.checks import GateBounds, Moment
from hookbench.migration.gates import decide, records_to
from hookbench.migration.phases import PhaseFile, parse_phase
from hookbench.migration.reconcile import Patience, Procedure
from hookbench.migration.records import Unmoved
from hookbench.queues.jetstream import StreamSettings
from hookbench.queues.moving import Mover, newest_consumers
from hookbench.queues.redis_client import connect_redis
from hookbench.queues.transport import AppTransport
from hookbench.queues.watermark import id_of_payload
from hookbench.rehearsal.done_stores import BothStores
from hookbench.rehearsal.survey import BrokerSurvey
from hookbench.task import Names
from tests.integration.dying import plant

STREAM = StreamSettings(storage="memory")
ASSUMED = "ack_after,done_store,epoch_consumer,leases,read_both"
"""What the worker of these tests does by its handler: it asks the store below first."""
HELD_BACK = 4


class SetOfDone:
    """A done-store of a test: a set in Redis, which outlives every process of the test."""

    def __init__(self, client, names):
        self.client = client
        self.key = f"{names.prefix}:test:done"

    async def add(self, task_id):
        await self.client.execute_command("SADD", self.key, task_id.bytes)

    async def are_done(self, ids):
        wanted = list(ids)
        if not wanted:
            return set()
        flags = await self.client.execute_command(
            "SMISMEMBER", self.key, *[item.bytes for item in wanted]
        )
        return {item for item, flag in zip(wanted, flags, strict=True) if flag}


class FileFleet:
    """Tells the scene's processes their phase, and reads what they announce."""

    def __init__(self, folder, *, records):
        self.folder = folder
        self.records = records

    async def enter(self, role, phase):
        PhaseFile(self.folder / f"{role}.json").write(1, phase)

    async def not_in(self, role, phase):
        return [
            item.name
            for item in read_announced([self.folder / "said"])
            if item.role == role and item.phase is not phase
        ]

    def announcements(self):
        return [
            msgspec.structs.replace(
                item, measures=ASSUMED, authority=item.authority if self.records else "nats"
            )
            for item in read_announced([self.folder / "said"])
        ]


async def acknowledged_before_the_push(self, messages, task_type, in_redis):
    for message in messages:
        await message.ack()
    for message in messages:
        if id_of_payload(message.payload) not in in_redis:
            await self._push_once(id_of_payload(message.payload), message.payload, task_type)
    return len(messages)


async def removed_before_the_publish(self):
    entries = [item async for item in self._lists.entries(1000)]
    known = set(await self._sequences())
    for entry in entries:
        await self._remove(entry)
        if id_of_payload(entry.payload) not in known:
            await self._publish(entry, id_of_payload(entry.payload))
    return len(entries)


async def noted_before_it_is_done(self):
    for step in self.steps:
        if step.value not in self._progress.done:
            self._progress.done.append(step.value)
            self._save()
            await self._do(step)
    return self._progress


async def consumers_are_lost(self, *, timeout_s, again=False, drain=Mover.drain_to_redis):
    """Somebody deletes them just before, and makes them anew from then on."""
    jetstream, stream = self._transport.jetstream, self._names.stream
    for info in (await newest_consumers(self._transport)).values():
        await jetstream.delete_consumer(stream, info.name)
        if again:
            policy = DeliverPolicy.NEW
            config = dataclasses.replace(info.config, deliver_policy=policy, opt_start_seq=None)
            await jetstream.add_consumer(stream, config)
    return await drain(self, timeout_s=timeout_s)


async def nothing_is_copied(self, target):  # noqa: ARG001
    return 0


BUGS = {
    "consumers_are_lost": (Mover, "drain_to_redis", consumers_are_lost),
    "consumers_are_made_anew": (
        Mover,
        "drain_to_redis",
        functools.partialmethod(consumers_are_lost, again=True),
    ),
    "nothing_is_copied": (BothStores, "move_records", nothing_is_copied),
    "acknowledged_before_the_push": (Mover, "_take_over", acknowledged_before_the_push),
    "removed_before_the_publish": (Mover, "redis_to_nats", removed_before_the_publish),
    "noted_before_it_is_done": (Procedure, "run", noted_before_it_is_done),
}
"""Planted into the process of the procedure, by name."""


async def nothing_to_move(_target, *, whole):
    """The store of these tests outlives every phase."""
    return Unmoved(ages_s={}, whole=whole)


async def carry_out(order):
    if order["bug"]:
        owner, attribute, planted = BUGS[order["bug"]]
        setattr(owner, attribute, planted)
    if order["death"]:
        place, when, number = order["death"]
        plant(place, when, number)
    names = msgspec.convert(order["names"], Names)
    folder = Path(order["folder"])
    clock = SystemClock()
    client = connect_redis(order["redis_url"])
    transport = await AppTransport.connect(order["nats_url"], names=names)
    stores = SetOfDone(client, names)
    if order["records"]:
        stores = BothStores(client, transport, stream=STREAM, clock=clock)
    survey = BrokerSurvey(
        order["redis_url"],
        order["nats_url"],
        names,
        clock=clock,
        stream=STREAM,
        are_done=stores.are_done,
        unmoved=stores.unmoved if order["records"] else nothing_to_move,
    )
    fleet = FileFleet(folder, records=order["records"])
    bounds = GateBounds(settle_s=1.0)
    wait_s = order["wait_s"]

    async def ask(move, earlier):
        snapshot = await survey.look(
            fleet.announcements(),
            earlier_sequence=earlier,
            records_to=records_to(move),
            whole=move.moment is Moment.AFTER or move.target < move.source,
        )
        return decide(snapshot, move, bounds)

    procedure = Procedure(
        parse_phase(order["source"]),
        parse_phase(order["target"]),
        fleet=fleet,
        movers=Mover(
            client,
            transport,
            clock=clock,
            are_done=stores.are_done,
            move_records=stores.move_records if order["records"] else None,
            settle_s=1.0,
        ),
        ask=ask,
        progress=folder / "progress.json",
        clock=clock,
        patience=Patience(
            gate_s=wait_s, ask_every_s=0.2, announce_s=wait_s, drain_s=wait_s, work_s=1.5
        ),
        tell=lambda text: sys.stdout.write(f"{text}\n"),
    )
    try:
        await procedure.run()
    finally:
        await survey.close()
        await transport.close()
        await client.aclose()


if __name__ == "__main__":
    try:
        asyncio.run(carry_out(json.loads(sys.argv[1])))
    except HeldBackError as error:
        sys.stdout.write(f"{error}\n")
        sys.exit(HELD_BACK)
