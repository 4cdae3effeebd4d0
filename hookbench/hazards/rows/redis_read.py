"""Redis reads: what becomes of a task between the list and the worker."""

from hookbench.hazards.bench import Bench
from hookbench.hazards.model import Harm, Hazard, Observation
from hookbench.ledger.events import Event
from hookbench.migration.phases import Phase

__all__ = ["ROWS"]


async def _killed_in_between(bench: Bench) -> list[Observation]:
    """R3: the third task is taken, and its worker dies of SIGKILL before LREM."""
    await bench.enter(Phase.REDIS_ONLY)
    producer = await bench.producer()
    worker = await bench.worker(replaced=True)
    await bench.die_at(worker, "start:3")
    accepted = await producer.send_all(bench.tasks(10))
    bench.note(f"{accepted} tasks accepted")

    async def dead() -> bool:
        return bool(bench.fleet.incidents)

    await bench.wait_until(dead, "the worker dies at its third task")
    bench.note(bench.fleet.incidents[0].what)
    await bench.quiesce()
    bench.note(f"{bench.count(Event.DONE)} tasks done by the worker and the one in its place")
    return await bench.conclude()


ROWS = (
    Hazard(
        id="R3",
        where="Redis read",
        mechanism="a worker killed between BLMOVE and LREM leaves its task in the work list, which"
        " nothing reads",
        harm=Harm.STUCK,
        scenario=_killed_in_between,
    ),
)
