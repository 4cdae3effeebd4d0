"""A small way through the measures in one process: what a bug is planted into.

A producer with an outbox and a worker, both on real brokers: Redis is read and written with NATS,
then NATS is read, then Redis is gone. Another worker dies at the start with tasks in its list.
Or the way back, on which a procedure takes to Redis what came to NATS late.
"""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

import msgspec

from hookbench.clock import SystemClock
from hookbench.ids import system_entropy
from hookbench.ledger.boot import boot_id
from hookbench.ledger.events import LedgerWriter
from hookbench.migration.measures import HARDENED
from hookbench.migration.outbox import Outbox
from hookbench.migration.outbox_file import OutboxFile
from hookbench.migration.phases import Phase, PhaseFile
from hookbench.migration.service import open_service
from hookbench.queues.connections import Connections
from hookbench.queues.moving import Mover
from hookbench.queues.redis_leased import RedisLeasedQueue
from hookbench.rehearsal.done_stores import BothStores
from hookbench.task import Names, new_task
from hookbench.worker.service import WorkerService, WorkerSettings
from tests.conftest import eventually
from tests.witness.hardened import HardenedSeen
from tests.witness.hardened_run import HardenedWitness, witnesses
from tests.witness.hardened_told import HardenedTold, read_hardened

__all__ = ["BACK", "PHASES", "TASKS_PER_STEP", "witness_small"]

PHASES = (Phase.DUAL_WRITE, Phase.DUAL_READ, Phase.NATS_ONLY)
BACK = (Phase.NATS_PRIMARY, Phase.REDIS_ONLY)
TASKS_PER_STEP = 8
_OF_THE_DEAD = 2
_LEASE_S = 0.3
_MEASURES = msgspec.structs.replace(HARDENED, gates=False)


class _Small:
    def __init__(self, witness: HardenedWitness, folder: Path) -> None:
        self._urls = {
            "redis_url": witness.redis_url,
            "nats_url": witness.nats_url,
            "nats_monitor_url": witness.nats_broker.monitor_url,
        }
        self._folder = folder
        self._clock = SystemClock()
        self._entropy = system_entropy()
        self._executed: set[object] = set()
        self._said: list[dict[str, object]] = []
        self._phases = PhaseFile(folder / "phase.json")
        (folder / "ledger").mkdir()
        self._ledgers = {
            role: LedgerWriter(
                folder / "ledger", role=role, writer=0, clock=self._clock, capacity=4096
            )
            for role in ("producer", "worker", "harness")
        }

    async def carry_out(self, phases: tuple[Phase, ...]) -> None:
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(lambda: [ledger.close() for ledger in self._ledgers.values()])
            opened = Connections(
                **self._urls, names=Names(), clock=self._clock, measures=_MEASURES.nats
            )
            stack.push_async_callback(opened.close)
            file = OutboxFile(self._folder / "outbox.sqlite", boot_id=boot_id(), clock=self._clock)
            outbox = Outbox(file, clock=self._clock)
            stack.push_async_callback(outbox.close)
            self._phases.write(0, phases[0])
            await self._put(0, phases[0], opened, outbox)
            if phases[0] is Phase.DUAL_WRITE:
                dead = RedisLeasedQueue(opened.redis(), owner="dead", lease_s=_LEASE_S)
                assert len(await dead.receive(_OF_THE_DEAD, 5.0)) == _OF_THE_DEAD
            worker = self._worker()
            running = asyncio.ensure_future(worker.run())
            try:
                await self._work_through(TASKS_PER_STEP, running)
                if phases == BACK:
                    await self._go_back(opened, outbox, running)
                else:
                    await self._go_on(phases, opened, outbox, running)
            finally:
                worker.request_stop()
                await running

    async def _go_on(
        self,
        phases: tuple[Phase, ...],
        opened: Connections,
        outbox: Outbox,
        running: "asyncio.Future[object]",
    ) -> None:
        for index in range(1, len(phases)):
            await self._enter(index, phases[index], running)
            await self._put(index, phases[index], opened, outbox)
            await self._work_through((index + 1) * TASKS_PER_STEP, running)

    async def _go_back(
        self, opened: Connections, outbox: Outbox, running: "asyncio.Future[object]"
    ) -> None:
        """The worker is back at Redis when the producer still writes NATS: that is drained."""
        await self._enter(1, BACK[1], running)
        await self._put(0, BACK[0], opened, outbox)
        stores = BothStores(
            opened.redis(), await opened.nats(), stream=opened.stream, clock=self._clock
        )
        mover = Mover(
            opened.redis(),
            await opened.nats(),
            clock=self._clock,
            are_done=stores.are_done,
            recorder=self._ledgers["harness"],
        )
        moved = await mover.drain_to_redis()
        await self._put(1, BACK[1], opened, outbox)
        await self._work_through(2 * TASKS_PER_STEP + moved, running)

    def _worker(self) -> WorkerService:
        return WorkerService(
            WorkerSettings(
                **self._urls,
                phase_file=self._phases.path,
                block_timeout_secs=0.2,
                measures=_MEASURES,
                redis_lease_s=_LEASE_S,
            ),
            self._handle,
            clock=self._clock,
            ledger=self._ledgers["worker"],
            announce=self._said.append,
        )

    async def _enter(self, index: int, phase: Phase, running: "asyncio.Future[object]") -> None:
        """Take the worker to a step, and wait until it says that it is there."""
        self._phases.write(index, phase)
        await self._wait(lambda: any(item.get("index") == index for item in self._said), running)

    async def _put(self, index: int, phase: Phase, opened: Connections, outbox: Outbox) -> None:
        """Enter a step as a producer, and put its tasks."""
        ledger = self._ledgers["producer"]
        ledger.phase = index
        service = await open_service(
            phase,
            opened,
            opened.names,
            measures=_MEASURES,
            recorder=ledger,
            outbox=outbox,
        )
        for number in range(TASKS_PER_STEP):
            await service.send(
                new_task(
                    repo_id=f"synthetic/{phase.label}-{number}",
                    task_type="sync",
                    payload={},
                    clock=self._clock,
                    entropy=self._entropy,
                )
            )
        assert await outbox.drain() == 0

    async def _handle(self, task: object, _execution: object) -> None:
        self._executed.add(task.id)

    async def _work_through(self, count: int, running: "asyncio.Future[object]") -> None:
        """Until so many tasks have been worked on."""
        await self._wait(lambda: len(self._executed) >= count, running)

    async def _wait(self, condition: Callable[[], bool], running: "asyncio.Future[object]") -> None:
        await eventually(lambda: running.done() or condition(), timeout_s=60.0)
        if running.done():
            running.result()


def witness_small(
    folder: Path, phases: tuple[Phase, ...] = PHASES
) -> tuple[HardenedSeen, HardenedTold]:
    """What was seen of it, and what the ledger tells."""
    (folder / "brokers").mkdir()
    with witnesses(folder / "brokers") as witness:
        asyncio.run(_Small(witness, folder).carry_out(phases))
        seen = witness.finish()
    seen.phases = [int(phase) for phase in phases]
    return seen, read_hardened(folder / "ledger")
