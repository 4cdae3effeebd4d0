"""What a scenario runs on: brokers, the real producer and worker, and the real account."""

import asyncio
import contextlib
import functools
import random
from unittest import mock

from hookbench.effects.read import read_effects
from hookbench.effects.store import SqliteEffectStore
from hookbench.errors import SendError
from hookbench.ledger.account import make_account
from hookbench.ledger.events import LedgerWriter
from hookbench.ledger.model import Bounds
from hookbench.ledger.read import read_ledger
from hookbench.migration import consumer as consumer_module
from hookbench.migration.measures import Measures
from hookbench.migration.phases import PhaseFile
from hookbench.migration.preflight import check_brokers
from hookbench.migration.service import open_service
from hookbench.queues import connections as connections_module
from hookbench.queues.connections import Connections
from hookbench.queues.jetstream import ConsumerSettings, StreamSettings
from hookbench.queues.redis_list import RedisListQueue
from hookbench.rehearsal.observer import Observer
from hookbench.results.steps import plan_steps
from hookbench.task import Names, new_task
from hookbench.worker.claims import ClaimSettings
from hookbench.worker.handlers.effect import EffectHandler
from hookbench.worker.handlers.noop import NoopHandler
from hookbench.worker.loop import WorkerLimits
from hookbench.worker.measures import MeasureSettings
from hookbench.worker.service import WorkerService, WorkerSettings
from tests.conftest import eventually
from tests.mutations.ground import PRODUCER, ThisMachine

LEASE_S = 0.5
LONG_LEASE_S = 30.0
GUIDE = Measures(ack_after=True)
"""What the scenarios of the guide's code run with: nothing is pending with its early ack."""
_STORAGE = "memory"
_CAPACITY = 1024
_STILL_POLLS = 12
_POLL_S = 0.015
_QUIET_TIMEOUT_S = 20.0


@contextlib.contextmanager
def environment(*, lease_s=LONG_LEASE_S, strict_lists=False):
    """Settings that no process has an option for: a shorter AckWait, and R4 and R5 closed."""
    with contextlib.ExitStack() as stack:
        leased = functools.partial(ConsumerSettings, ack_wait_s=lease_s)
        stack.enter_context(mock.patch.object(connections_module, "ConsumerSettings", leased))
        if strict_lists:
            strict = functools.partial(RedisListQueue, lrem_count=1, requeue_only_held=True)
            stack.enter_context(mock.patch.object(consumer_module, "RedisListQueue", strict))
        yield


async def nothing(_task, _execution):
    """A handler's part that does nothing."""


class Scene:
    """One run of a scenario, under names of its own; ``ground`` is what its brokers run on."""

    def __init__(self, redis_url, nats_url, folder, *, mutation=None, ground=None):
        folder.mkdir()
        self.ground = ground or ThisMachine()
        self.redis_url = redis_url
        self.nats_url = nats_url
        self.folder = folder
        self.mutation = mutation
        self.names = Names.for_run(f"{self.ground.entropy('names').getrandbits(48):012x}")
        self.clock = self.ground.clock
        self.ledger = folder / "ledger"
        self.ledger.mkdir()
        self.effects = folder / "effects.sqlite"
        self.trace_path = folder / "trace"
        self.phase_file = PhaseFile(folder / "phase.json")
        self.phases = []
        self.starts_ns = []
        self.bounds = Bounds()
        self.spooled = []
        self.offered = 0
        self.pushes = 0
        self.observer = Observer(
            redis_url,
            nats_url,
            self.names,
            clock=self.clock,
            dialer=self.ground.dialer("observer"),
        )
        self.producer = self._writer("producer", 0)
        SqliteEffectStore(self.effects, writer=0, clock=self.clock).close()
        self._entropy = random.Random(7)
        self._workers = []

    def _writer(self, role, number):
        return LedgerWriter(
            self.ledger, role=role, writer=number, clock=self.clock, capacity=_CAPACITY
        )

    def enter(self, phase):
        """Begin the next step of the timeline."""
        index = len(self.phases)
        self.phases.append(phase)
        self.starts_ns.append(self.clock.monotonic_ns())
        self.phase_file.write(index, phase)
        self.producer.phase = index

    def task(self, handler_class="plain", repository="repo-1", **payload):
        return new_task(
            repo_id=f"synthetic/{handler_class}/{repository}",
            task_type="sync",
            payload=payload,
            clock=self.clock,
            entropy=self._entropy,
        )

    def tasks(self):
        """One of each handler class, in repositories of their own."""
        classes = ("transactional", "idempotent", "plain")
        return [self.task(name, f"repo-{name}") for name in classes]

    def connections(self, redis_url=None):
        return Connections(
            redis_url=redis_url or self.redis_url,
            nats_url=self.nats_url,
            names=self.names,
            clock=self.clock,
            stream=StreamSettings(storage=_STORAGE),
            dialer=self.ground.dialer(PRODUCER),
        )

    async def transport(self):
        """NATS, for what a scenario does to it from outside."""
        return await self.ground.dialer("outside").nats(
            self.nats_url, names=self.names, clock=self.clock
        )

    def wire(self, **drops):
        """A wire to Redis for the producer that fails at chosen commands, see ``Wire``."""
        return self.ground.wire(self.redis_url, **drops)

    async def put(self, *tasks, redis_url=None):
        """Send tasks one after the other in the current phase; the outcome of each."""
        opened = self.connections(redis_url)
        try:
            service = await open_service(
                self.phases[-1], opened, self.names, recorder=self.producer
            )
            return [await self.send(service, task) for task in tasks]
        finally:
            await opened.close()

    async def send(self, service, task):
        self.offered += 1
        try:
            await service.send(task, intended_ns=self.clock.monotonic_ns())
        except SendError as error:
            return error.outcome
        return "ok"

    def settings(
        self,
        *,
        concurrency=1,
        block_s=0.1,
        drain_timeout_s=20.0,
        max_attempts=3,
        measures=GUIDE,
        redis_lease_s=LONG_LEASE_S,
        claim_s=LONG_LEASE_S,
        authority=None,
    ):
        return WorkerSettings(
            redis_url=self.redis_url,
            nats_url=self.nats_url,
            phase_file=self.phase_file.path,
            names=self.names,
            block_timeout_secs=block_s,
            measures=measures,
            redis_lease_s=redis_lease_s,
            bounds=MeasureSettings(authority=authority, claims=ClaimSettings(lease_s=claim_s)),
            stream=StreamSettings(storage=_STORAGE),
            consumer=connections_module.ConsumerSettings(),  # as ``environment`` has it
            limits=WorkerLimits(
                concurrency=concurrency,
                drain_timeout_s=drain_timeout_s,
                max_attempts=max_attempts,
            ),
        )

    @contextlib.asynccontextmanager
    async def worker(self, number, *, service=None, after=nothing, done=None, **settings):
        """A worker in this process; it is stopped as by SIGTERM at the end.

        ``service`` is what a handler does before its effect, ``after`` what it does behind it, and
        ``done`` the done-store that knows where an epoch begins.
        """
        ledger = self._writer("worker", number)
        store = SqliteEffectStore(self.effects, writer=number, clock=self.clock)
        effect = EffectHandler(store, service or NoopHandler(), recorder=ledger)

        async def handle(task, execution):
            await effect(task, execution)
            await after(task, execution)

        said = []
        dialer = self.ground.dialer(f"worker-{number}")
        worker = WorkerService(
            self.settings(**settings),
            handle,
            clock=self.clock,
            ledger=ledger,
            announce=said.append,
            entropy=self.ground.entropy(f"worker-{number}"),
            dialer=dialer,
            check=functools.partial(check_brokers, dialer=dialer),
        )
        worker.said = said
        if done is not None:
            worker._done_store = lambda *_asked: asyncio.sleep(0, done)
        running = asyncio.ensure_future(worker.run())
        self._workers.append(ledger)
        try:
            await eventually(lambda: said or running.done(), what="the worker's first phase")
            if running.done():
                running.result()
            yield worker
        finally:
            worker.request_stop()
            try:
                await running
            finally:
                ledger.close()
                store.close()

    async def quiet(self, *, leases=False):
        """Wait until nothing moves any more, on the brokers or in the ledgers.

        Polls are counted, and not only time: each asks both brokers, so what they were to do
        before they have done. With ``leases`` the consumer must not wait for anything either.
        """
        deadline_ns = self.clock.monotonic_ns() + int(_QUIET_TIMEOUT_S * 1e9)
        still, before = 0, None
        while still < _STILL_POLLS:
            sample = await self.observer.sample()
            state = (
                sample.redis_pending,
                sample.redis_work,
                sample.consumer_pending,
                sample.ack_pending,
                [ledger._offset for ledger in (self.producer, *self._workers)],
            )
            moves = state != before or (leases and (sample.ack_pending or 0) > 0)
            still, before = 0 if moves else still + 1, state
            assert self.clock.monotonic_ns() < deadline_ns, f"it does not come to rest: {sample}"
            await asyncio.sleep(_POLL_S)

    async def sees(self, condition, what):
        """Wait for a sample of the brokers that fulfils a condition."""

        async def seen():
            return condition(await self.observer.sample())

        await eventually(seen, what=what)

    async def conclude(self):
        """Read what is left, and make the account; a function from ``without`` to it."""
        self.producer.close()
        residue = await self.observer.residue(self.spooled)
        ledger, effects = read_ledger(self.ledger), read_effects(self.effects)
        steps = plan_steps(self.phases)

        def account(without=()):
            return make_account(
                ledger,
                steps,
                residue,
                step_starts_ns=self.starts_ns,
                effects=effects,
                bounds=self.bounds,
                without=without,
            )

        return account

    async def close(self):
        await self.observer.remove_own_data()
        await self.observer.close()
