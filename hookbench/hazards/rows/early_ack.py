"""Tasks that NATS forgets before they are done: too old, or acknowledged too early."""

import msgspec

from hookbench.errors import HazardError
from hookbench.hazards.bench import Bench
from hookbench.hazards.model import Harm, Hazard, Observation
from hookbench.ledger.events import Event
from hookbench.migration.phases import Phase

__all__ = ["ROWS"]

_MAX_AGE_S = 1.0
_RESCUED_AGE_S = 6.0
_SLOW_MS = 2_500
_COUNT = 5


async def _aged_out(bench: Bench) -> list[Observation]:
    """P7: no worker for longer than max-age, 1 s here, and the stream is empty when one comes.

    Who rescues what ages is a worker, so with that measure there is one, and it is too slow: each
    task takes it almost half of a max-age of 6 s.
    """
    rescues = bench.measures.rescue_aged
    max_age_s = _RESCUED_AGE_S if rescues else _MAX_AGE_S
    bench.stream = msgspec.structs.replace(
        bench.stream, max_age_s=max_age_s, duplicate_window_s=max_age_s
    )
    await bench.enter(Phase.NATS_PRIMARY)
    producer = await bench.producer()
    if rescues:
        await bench.worker("--sleep-ms", str(_SLOW_MS), handler="sleep")
    accepted = await producer.send_all(bench.tasks(_COUNT))
    bench.note(
        f"{accepted} tasks accepted, {'one slow worker' if rescues else 'nobody'} reads them"
    )
    jetstream = (await bench.nats()).jetstream

    async def empty() -> bool:
        return (await jetstream.stream_info(bench.names.stream)).state.messages == 0

    await bench.wait_until(empty, "max-age empties the stream")
    bench.note("the stream is empty")
    if not rescues:
        await bench.worker()
    await bench.quiesce(quiet_s=_SLOW_MS / 1000 + 1 if rescues else 1.0)
    if rescues:
        bench.note(f"{bench.count(Event.DONE)} done, {bench.count(Event.DEAD)} dead letters")
        if not bench.count(Event.DEAD) and bench.count(Event.DONE) == accepted:
            raise HazardError("no task grew too old: the worker was faster than max-age")
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
