"""Tasks that NATS forgets before they are done: too old, or acknowledged too early."""

import msgspec

from hookbench.errors import HazardError
from hookbench.hazards.bench import Bench
from hookbench.hazards.model import Harm, Hazard, Observation
from hookbench.hazards.watching import depth_of, wait_until_read
from hookbench.ledger.events import Event
from hookbench.migration.phases import AckMode, Phase

__all__ = ["ROWS"]

_MAX_AGE_S = 1.0
_RESCUED_AGE_S = 6.0
_SLOW_MS = 2_500
_COUNT = 5
_ACK_WAIT_S = 1.0
_LEASE_S = 1.0


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
    """P10: the worker dies with five tasks in work, and another one takes its place.

    What the worker says that it has acknowledged may still lie in its own buffers when it dies, so
    it is not killed before the server has what it sent: nothing unacknowledged under the guide.
    """
    await bench.enter(Phase.NATS_PRIMARY)
    producer = await bench.producer()
    waits = ("--ack-wait", str(_ACK_WAIT_S), "--lease", str(_LEASE_S))
    worker = await bench.worker(
        *waits, "--sleep-ms", "60000", handler="sleep", concurrency=_COUNT, replaced=False
    )
    accepted = await producer.send_all(bench.tasks(_COUNT))
    early = bench.ack is AckMode.IMMEDIATE

    async def at_work() -> bool:
        depth = await depth_of(bench)
        acknowledged = depth.pending == 0 and depth.in_flight == 0
        return bench.count(Event.STARTED) >= accepted and (acknowledged or not early)

    await bench.wait_until(at_work, "the worker has all tasks in work")
    depth = await depth_of(bench)
    await bench.kill(worker)
    bench.note(
        f"{accepted} tasks in work, {depth.in_flight} not acknowledged: the worker is killed"
    )
    await bench.worker(*waits)
    await wait_until_read(bench)
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
