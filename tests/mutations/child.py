"""A worker process with a bug planted in it, which waits in its handler until it is killed.

Run as ``python -m tests.mutations.child SETTINGS``; it says ``in hand`` when it has a task.
"""

import asyncio
import contextlib
import json
import sys
from pathlib import Path

from hookbench.clock import SystemClock
from hookbench.effects.store import SqliteEffectStore
from hookbench.ledger.events import LedgerWriter
from hookbench.migration.measures import parse_measures
from hookbench.queues.jetstream import ConsumerSettings, StreamSettings
from hookbench.task import Names
from hookbench.worker.claims import ClaimSettings
from hookbench.worker.handlers.effect import EffectHandler
from hookbench.worker.measures import MeasureSettings
from hookbench.worker.service import WorkerService, WorkerSettings
from tests.mutations.ground import CLAIM_S, IN_HAND
from tests.mutations.planting import Trace
from tests.mutations.scene import LEASE_S, environment
from tests.mutations.table import MUTATIONS

_LONGEST_S = 60.0
_WRITER = 1


async def work(settings):
    """Work until killed, for a minute at most."""
    folder, clock = Path(settings["folder"]), SystemClock()
    ledger = LedgerWriter(
        folder / "ledger", role="worker", writer=_WRITER, clock=clock, capacity=1024
    )
    workers = []

    async def serve(_task, _execution):
        # What was said to the broker before must have arrived when the worker is killed.
        await (await workers[0]._connections.nats()).client.flush()
        sys.stdout.buffer.write(IN_HAND)
        sys.stdout.buffer.flush()
        await asyncio.sleep(_LONGEST_S)

    store = SqliteEffectStore(folder / "effects.sqlite", writer=_WRITER, clock=clock)
    worker = WorkerService(
        WorkerSettings(
            redis_url=settings["redis_url"],
            nats_url=settings["nats_url"],
            phase_file=folder / "phase.json",
            names=Names(**settings["names"]),
            block_timeout_secs=0.5,
            measures=parse_measures(settings["measures"]),
            bounds=MeasureSettings(claims=ClaimSettings(lease_s=CLAIM_S)),
            stream=StreamSettings(storage="memory"),
            consumer=ConsumerSettings(ack_wait_s=LEASE_S),
        ),
        EffectHandler(store, serve, recorder=ledger),
        clock=clock,
        ledger=ledger,
    )
    workers.append(worker)
    async with asyncio.timeout(_LONGEST_S):
        await worker.run()


def main():
    """Plant, and work."""
    settings = json.loads(sys.argv[1])
    with contextlib.ExitStack() as stack:
        stack.enter_context(environment(lease_s=LEASE_S))
        if settings["mutation"] is not None:
            (mutation,) = [item for item in MUTATIONS if item.name == settings["mutation"]]
            stack.enter_context(mutation.planted(Trace(Path(settings["folder"]) / "trace")))
        asyncio.run(work(settings))


if __name__ == "__main__":
    main()
