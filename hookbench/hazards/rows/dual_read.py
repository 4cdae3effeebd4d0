"""The switch from reading Redis to reading NATS: what is read twice, and what is not read."""

from hookbench.hazards.bench import Bench
from hookbench.hazards.model import Harm, Hazard, Observation
from hookbench.hazards.watching import come_to_rest, epoch_start, wait_until_read
from hookbench.ledger.events import Event
from hookbench.migration.phases import Phase

__all__ = ["ROWS"]

_COUNT = 50


async def _replayed(bench: Bench) -> list[Observation]:
    """P5: the deliver-all consumer of phase 2 is created when all of phase 1 is done by Redis."""
    await bench.enter(Phase.DUAL_WRITE)
    producer = await bench.producer()
    await bench.worker(concurrency=8)
    accepted = await producer.send_all(bench.tasks(_COUNT))
    await bench.wait_until_done(accepted)
    bench.note(f"{accepted} tasks accepted, all done by Redis")
    await bench.enter(Phase.DUAL_READ)
    await wait_until_read(bench)
    await bench.quiesce()
    return [*await epoch_start(bench), *await bench.conclude()]


async def _left_behind(bench: Bench) -> list[Observation]:
    """P6: what phase 0 left in both Redis lists is not read after the switch.

    The worker dies with its third task in hand, so that one is in the work list. A backlog of
    phase 1 would arrive through NATS.
    """
    await bench.enter(Phase.REDIS_ONLY)
    producer = await bench.producer()
    worker = await bench.worker(replaced=False)
    await bench.die_at(worker, "start:3")
    accepted = await producer.send_all(bench.tasks(10))

    async def died() -> bool:
        return worker.child.exit_code is not None

    await bench.wait_until(died, "the worker dies at its third task")
    bench.note(f"{accepted} tasks accepted, {bench.count(Event.DONE)} done when the worker died")
    if bench.gated:
        await bench.worker()  # a gate asks whether there is one
    await bench.enter(Phase.DUAL_WRITE)
    new = await bench.producer()
    later = await new.send_all(bench.tasks(10))
    bench.note(f"{later} tasks accepted by both brokers")
    await bench.enter(Phase.DUAL_READ)
    await bench.worker()
    await wait_until_read(bench)
    await come_to_rest(bench)
    return await bench.conclude()


ROWS = (
    Hazard(
        id="P5",
        where="phase 1 to 2",
        mechanism="a new consumer that delivers all replays the whole of phase 1",
        harm=Harm.DUPLICATED,
        scenario=_replayed,
    ),
    Hazard(
        id="P6",
        where="phase 1 to 2",
        mechanism="what is left in the Redis pending and work lists is not read any more",
        harm=Harm.STUCK,
        scenario=_left_behind,
        held_by=("backlog and orphans",),
    ),
)
