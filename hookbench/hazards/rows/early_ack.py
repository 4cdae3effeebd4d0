"""Tasks that NATS forgets before they are done: too old, or acknowledged too early."""

import msgspec

from hookbench.hazards.bench import Bench
from hookbench.hazards.model import Harm, Hazard, Observation
from hookbench.ledger.events import Event
from hookbench.migration.phases import Phase

__all__ = ["ROWS"]

_MAX_AGE_S = 1.0
_COUNT = 5


async def _aged_out(bench: Bench) -> list[Observation]:
    """P7: no worker for longer than max-age, 1 s here, and the stream is empty when one comes."""
    bench.stream = msgspec.structs.replace(
        bench.stream, max_age_s=_MAX_AGE_S, duplicate_window_s=_MAX_AGE_S
    )
    await bench.enter(Phase.NATS_PRIMARY)
    producer = await bench.producer()
    accepted = await producer.send_all(bench.tasks(_COUNT))
    bench.note(f"{accepted} tasks accepted, nobody reads them")
    jetstream = (await bench.nats()).jetstream

    async def empty() -> bool:
        return (await jetstream.stream_info(bench.names.stream)).state.messages == 0

    await bench.wait_until(empty, "max-age empties the stream")
    bench.note("the stream is empty")
    await bench.worker()
    await bench.quiesce()
    return await bench.conclude()


async def _killed_after_ack(bench: Bench) -> list[Observation]:
    """P10: the worker dies right after it acknowledged its third task, before the work on it."""
    await bench.enter(Phase.NATS_PRIMARY)
    producer = await bench.producer()
    worker = await bench.worker()
    pid = worker.child.pid
    await bench.die_at(worker, "ack:3")
    accepted = await producer.send_all(bench.tasks(2 * _COUNT))

    async def died() -> bool:
        return worker.child.pid != pid

    await bench.wait_until(died, "the worker dies after its third acknowledgement")
    bench.note(f"{accepted} tasks accepted; {bench.fleet.incidents[0].what}")
    await bench.quiesce()
    bench.note(f"{bench.count(Event.DONE)} executions in all")
    return await bench.conclude()


ROWS = (
    Hazard(
        id="P7",
        where="phases 1 and 2",
        mechanism="max-age passes, and tasks that nobody has processed vanish without a word",
        harm=Harm.LOST,
        scenario=_aged_out,
    ),
    Hazard(
        id="P10",
        where="phases 2 and 3",
        mechanism="acknowledged before it is processed, a task is gone with its worker",
        harm=Harm.LOST,
        scenario=_killed_after_ack,
    ),
)
