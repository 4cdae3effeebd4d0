"""A small way through the measures in one process: what a bug is planted into.

A producer with an outbox and a worker, both on real brokers: Redis is read and written with NATS,
then NATS is read, then Redis is gone. Another worker dies at the start with tasks in its list.
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
from hookbench.queues.redis_leased import RedisLeasedQueue
from hookbench.task import Names, new_task
from hookbench.worker.service import WorkerService, WorkerSettings
from tests.conftest import eventually
from tests.witness.hardened import HardenedSeen
from tests.witness.hardened_run import HardenedWitness, witnesses
from tests.witness.hardened_told import HardenedTold, read_hardened

__all__ = ["PHASES", "TASKS_PER_STEP", "witness_small"]

PHASES = (Phase.DUAL_WRITE, Phase.DUAL_READ, Phase.NATS_ONLY)
TASKS_PER_STEP = 8
_OF_THE_DEAD = 2
_LEASE_S = 0.3
_MEASURES = msgspec.structs.replace(HARDENED, gates=False)


class _Small:
    def __init__(self, witness: HardenedWitness, folder: Path) -> None:
        self._witness = witness
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
            for role in ("producer", "worker")
        }

    async def carry_out(self) -> None:
        urls = {
            "redis_url": self._witness.redis_url,
            "nats_url": self._witness.nats_url,
            "nats_monitor_url": self._witness.nats_broker.monitor_url,
        }
        opened = Connections(**urls, names=Names(), clock=self._clock, measures=_MEASURES.nats)
        file = OutboxFile(self._folder / "outbox.sqlite", boot_id=boot_id(), clock=self._clock)
        outbox = Outbox(file, clock=self._clock)
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(lambda: [ledger.close() for ledger in self._ledgers.values()])
            stack.push_async_callback(opened.close)
            stack.push_async_callback(outbox.close)
            self._phases.write(0, PHASES[0])
            await self._put(0, opened, outbox)
            dead = RedisLeasedQueue(opened.redis(), owner="dead", lease_s=_LEASE_S)
            assert len(await dead.receive(_OF_THE_DEAD, 5.0)) == _OF_THE_DEAD
            worker = WorkerService(
                WorkerSettings(
                    **urls,
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
            running = asyncio.ensure_future(worker.run())
            try:
                await self._work_through(0, running)
                for index in range(1, len(PHASES)):
                    self._phases.write(index, PHASES[index])
                    await self._wait(lambda index=index: self._is_in(index), running)
                    await self._put(index, opened, outbox)
                    await self._work_through(index, running)
            finally:
                worker.request_stop()
                await running

    async def _put(self, index: int, opened: Connections, outbox: Outbox) -> None:
        """Enter a step as a producer, and put its tasks."""
        ledger = self._ledgers["producer"]
        ledger.phase = index
        service = await open_service(
            PHASES[index],
            opened,
            opened.names,
            measures=_MEASURES,
            recorder=ledger,
            outbox=outbox,
        )
        for number in range(TASKS_PER_STEP):
            await service.send(
                new_task(
                    repo_id=f"synthetic/{index}-{number}",
                    task_type="sync",
                    payload={},
                    clock=self._clock,
                    entropy=self._entropy,
                )
            )
        assert await outbox.drain() == 0

    async def _handle(self, task: object, _execution: object) -> None:
        self._executed.add(task.id)

    def _is_in(self, index: int) -> bool:
        """Whether the worker has said that it is in a step."""
        return any(item.get("index") == index for item in self._said)

    async def _work_through(self, index: int, running: "asyncio.Future[object]") -> None:
        """Until all that was put up to a step has been worked on."""
        count = (index + 1) * TASKS_PER_STEP
        await self._wait(lambda: len(self._executed) == count, running)

    async def _wait(self, condition: Callable[[], bool], running: "asyncio.Future[object]") -> None:
        await eventually(lambda: running.done() or condition(), timeout_s=60.0)
        if running.done():
            running.result()


def witness_small(folder: Path) -> tuple[HardenedSeen, HardenedTold]:
    """What was seen of it, and what the ledger tells."""
    (folder / "brokers").mkdir()
    with witnesses(folder / "brokers") as witness:
        asyncio.run(_Small(witness, folder).carry_out())
        seen = witness.finish()
    seen.phases = [int(phase) for phase in PHASES]
    return seen, read_hardened(folder / "ledger")
