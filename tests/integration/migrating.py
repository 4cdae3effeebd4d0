"""A small migration under traffic: a producer, a worker, and a procedure in a process of its own.

Run as a module it is that process: it carries the procedure out, or dies where it is told to.
"""

import asyncio
import contextlib
import dataclasses
import functools
import json
import sys
from pathlib import Path

import msgspec
from nats.js.api import DeliverPolicy

from hookbench.clock import SystemClock
from hookbench.errors import HeldBackError
from hookbench.ledger.account import make_account
from hookbench.ledger.events import Event, LedgerWriter
from hookbench.ledger.read import read_ledger
from hookbench.load.generator import GeneratorSettings, LoadGenerator
from hookbench.migration.announcements import read_announced
from hookbench.migration.checks import GateBounds, Moment
from hookbench.migration.gates import decide, records_to
from hookbench.migration.measures import Measures
from hookbench.migration.phases import PhaseFile, parse_phase
from hookbench.migration.reconcile import Patience, Procedure
from hookbench.migration.records import Unmoved
from hookbench.migration.service import open_service
from hookbench.queues.connections import Connections
from hookbench.queues.jetstream import ConsumerSettings, StreamSettings
from hookbench.queues.moving import Mover, newest_consumers
from hookbench.queues.redis_client import connect_redis
from hookbench.queues.transport import AppTransport
from hookbench.queues.watermark import id_of_payload
from hookbench.rehearsal.done_stores import BothStores
from hookbench.rehearsal.observer import Observer
from hookbench.rehearsal.survey import BrokerSurvey
from hookbench.results.steps import plan_steps
from hookbench.task import Names
from hookbench.worker.service import WorkerService, WorkerSettings
from tests.conftest import eventually
from tests.integration.dying import plant

ROOT = Path(__file__).parents[2]
STREAM = StreamSettings(storage="memory")
CONSUMER = ConsumerSettings(ack_wait_s=2.0, max_deliver=-1)
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


class Scene:
    """The processes and brokers of one move; everything is left to the reference code."""

    def __init__(self, redis_url, nats_url, names, folder):
        self.redis_url, self.nats_url, self.names, self.folder = redis_url, nats_url, names, folder
        self.clock = SystemClock()
        self.client = connect_redis(redis_url)
        self.store = SetOfDone(self.client, names)
        self.ledgers = []
        self.claims = {}
        self.wait_s = 15.0
        """Of the procedure, for gates, announcements and drains."""
        self.rest_s = 60.0
        self.records = False
        """Whether workers claim, so that the records of a done-store have to be moved."""
        self.bug = None
        """Planted into the procedure, see ``BUGS``."""
        self.work_s = 0.02
        """How long a task takes."""
        self.executed = []
        self.tasks = []
        (folder / "ledger").mkdir()
        (folder / "said").mkdir()

    def ledger(self, role, writer):
        found = LedgerWriter(self.folder / "ledger", role=role, writer=writer, clock=self.clock)
        self.ledgers.append(found)
        return found

    def announce(self, name):
        path = self.folder / "said" / f"{name}.jsonl"

        def say(event):
            with path.open("a") as file:
                file.write(json.dumps(event) + "\n")

        return say

    async def put(self, phase, tasks, *, writer):
        """Put tasks by a producer of a phase that is gone afterwards."""
        ledger = self.ledger("producer", writer)
        connections = self.connections()
        try:
            service = await open_service(phase, connections, self.names, recorder=ledger)
            for task in tasks:
                await service.send(task)
        finally:
            await connections.close()
            ledger.close()

    def connections(self):
        return Connections(
            redis_url=self.redis_url,
            nats_url=self.nats_url,
            names=self.names,
            clock=self.clock,
            stream=STREAM,
        )

    async def handle(self, task, _execution):
        """Once for each task, whatever its copies; the second of two waits for the first."""
        if self.records:
            await self.clock.sleep(self.work_s)
            self.executed.append(task.id)
            return
        async with self.claims.setdefault(task.id, asyncio.Lock()):
            if not await self.store.are_done([task.id]):
                await self.clock.sleep(self.work_s)
                self.executed.append(task.id)
                await self.store.add(task.id)

    def start(self, phase, *, rate_per_s=30.0):
        """A worker and a producer under load, in a phase of theirs."""
        for role in ("producer", "worker"):
            PhaseFile(self.folder / f"{role}.json").write(0, phase)
        self.worker = WorkerService(
            WorkerSettings(
                redis_url=self.redis_url,
                nats_url=self.nats_url,
                phase_file=self.folder / "worker.json",
                names=self.names,
                block_timeout_secs=0.2,
                measures=Measures(ack_after=True, read_both=True, done_store=self.records),
                redis_age_s=1.0,
                stream=STREAM,
                consumer=CONSUMER,
            ),
            self.handle,
            clock=self.clock,
            ledger=self.ledger("worker", 1),
            announce=self.announce("worker-0"),
        )
        self.producer = LoadGenerator(
            GeneratorSettings(
                redis_url=self.redis_url,
                nats_url=self.nats_url,
                phase_file=self.folder / "producer.json",
                names=self.names,
                stream=STREAM,
                rate_per_s=rate_per_s,
                count=100_000,
                seed=3,
            ),
            clock=self.clock,
            ledger=self.ledger("producer", 2),
            announce=self.announce("producer-0"),
        )
        self.tasks = [
            asyncio.ensure_future(self.worker.run()),
            asyncio.ensure_future(self.producer.run()),
        ]

    async def migrate(self, source, target, *death):
        """Run the procedure in a process of its own; its exit code, and what it said."""
        order = {
            "redis_url": self.redis_url,
            "nats_url": self.nats_url,
            "names": msgspec.to_builtins(self.names),
            "folder": str(self.folder),
            "source": source.label,
            "target": target.label,
            "death": death,
            "wait_s": self.wait_s,
            "records": self.records,
            "bug": self.bug,
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.integration.migrating",
            json.dumps(order),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await asyncio.wait_for(process.communicate(), 90)
        return process.returncode, output.decode()

    def accepted(self):
        return self._ids(Event.ACCEPTED)

    def done(self):
        return self._ids(Event.DONE)

    def _ids(self, event):
        ledger = read_ledger(self.folder / "ledger", lenient=True)
        rows = ledger.records["event"] == event
        return {ledger.ids[task].tobytes() for task in ledger.task[rows]}

    async def come_to_rest(self):
        """No more load; until everything that was accepted is done."""
        self.producer.request_stop()
        await self.tasks[1]
        with contextlib.suppress(AssertionError):  # then the account says what is missing
            await eventually(lambda: self.accepted() <= self.done(), timeout_s=self.rest_s)
        self.worker.request_stop()
        await self.tasks[0]

    async def account(self, target, *, changes=1):
        """By the ledger and by what lies on the brokers, after so many changes of phase."""
        for ledger in self.ledgers:
            ledger.close()
        observer = Observer(self.redis_url, self.nats_url, self.names, clock=self.clock)
        try:
            residue = await observer.residue([])
        finally:
            await observer.close()
        ledger = read_ledger(self.folder / "ledger", lenient=True)
        steps = changes + 1
        start_ns = int(ledger.records["time_ns"].min())
        return make_account(
            ledger,
            plan_steps([target] * steps),
            residue,
            step_starts_ns=[start_ns + step for step in range(steps)],
            end_ns=start_ns + steps,
        )

    async def close(self):
        pending = set(self.tasks)
        while pending:  # again: one may be lost, see hookbench.cancellation
            for task in pending:
                task.cancel()
            _done, pending = await asyncio.wait(pending, timeout=2.0)
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for ledger in self.ledgers:
            ledger.close()
        await self.client.aclose()


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
