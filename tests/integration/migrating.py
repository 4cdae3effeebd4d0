"""A small migration under traffic: a producer, a worker, and a procedure in another process."""

import asyncio
import contextlib
import json
from pathlib import Path

import msgspec

from hookbench.clock import SystemClock
from hookbench.ledger.account import make_account
from hookbench.ledger.events import Event, LedgerWriter
from hookbench.ledger.read import read_ledger
from hookbench.load.generator import GeneratorSettings, LoadGenerator
from hookbench.migration.measures import Measures
from hookbench.migration.phases import PhaseFile
from hookbench.migration.service import open_service
from hookbench.queues.connections import Connections
from hookbench.queues.jetstream import ConsumerSettings
from hookbench.queues.redis_client import connect_redis
from hookbench.rehearsal.observer import Observer
from hookbench.results.steps import plan_steps
from hookbench.worker.service import WorkerService, WorkerSettings
from tests.conftest import eventually
from tests.integration.migrating_child import STREAM, SetOfDone

ROOT = Path(__file__).parents[2]
CONSUMER = ConsumerSettings(ack_wait_s=2.0, max_deliver=-1)


class Scene:
    """The processes and brokers of one move; everything is left to the reference code."""

    def __init__(self, redis_url, nats_url, names, folder, *, forks=None):
        self.redis_url, self.nats_url, self.names, self.folder = redis_url, nats_url, names, folder
        self.forks = forks
        """Where the processes of procedures come from, for scenes that have any."""
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
        self.redis_age_s = 1.0
        """How long a task lies in Redis before the worker takes it beside NATS."""
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
                redis_age_s=self.redis_age_s,
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
        return await self.forks.run("tests.integration.migrating_child", [json.dumps(order)])

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
