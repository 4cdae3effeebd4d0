"""The load of one Locust process in a process of its own: ``python _engine.py FOLDER NUMBER``.

It is plain asyncio, without gevent and without a greenlet for each task. With a rate the users are
one open loop: their Poisson processes add up to one. Without a rate each of them is a caller that
sends its next task when it has the outcome of the last. Each change of their number is another
loop; what the one before has on its way keeps its outcome.
"""

import asyncio
import gc
import os
import random
import sys
from collections import Counter
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import uvloop
from _engine_protocol import (
    COMMANDS_NAME,
    Close,
    Closed,
    Command,
    Delta,
    EnterPhase,
    Open,
    Opened,
    Users,
    command_decoder,
)
from _figures import histogram
from _producer import Producer, without_ids

from hookbench.clock import NS_PER_S, Clock
from hookbench.errors import HookbenchError
from hookbench.growing_lines import GrowingLines
from hookbench.load.closed_loop import ClosedLoop
from hookbench.load.fine_clock import FineClock
from hookbench.load.open_loop import OpenLoop
from hookbench.migration.phases import parse_phase

__all__ = ["Engine"]

_POLL_S = 0.02
_DELTA_S = 0.5
_SETTLE_TIMEOUT_S = 10.0
_NO_END = 10**12


def say(event: msgspec.Struct) -> None:
    """One event as one line on stdout."""
    sys.stdout.buffer.write(msgspec.json.encode(event) + b"\n")
    sys.stdout.buffer.flush()


class Engine:
    """Publishes for the users of one Locust process.

    Args:
        producer: of the run.
        order: what it was opened with.
        clock: of the schedule.
    """

    def __init__(self, producer: Producer, order: Open, *, clock: Clock) -> None:
        self._producer = producer
        self._rate_per_s = order.ticket.options.rate_per_s
        self._clock = clock
        self._rng = random.Random(f"{order.ticket.run}:{order.writer}")
        self._loop: OpenLoop | ClosedLoop | None = None
        self._runs: set[asyncio.Task[object]] = set()
        self._latencies_ns: list[int] = []
        self._payload_bytes = 0
        self._errors: Counter[str] = Counter()
        self._phase = order.ticket.phase
        self.defect: BaseException | None = None

    def be(self, users: int) -> None:
        """So many users from now on."""
        if self._loop is not None:
            self._loop.request_stop()
            self._loop = None
        if users == 0:
            return
        now_ns = self._clock.monotonic_ns()
        if self._rate_per_s:
            opened = OpenLoop(self._send, clock=self._clock)
            self._loop = opened
            self._start(opened.run(self._offsets(users * self._rate_per_s), now_ns))
        else:
            closed = ClosedLoop(self._send, callers=users, clock=self._clock)
            self._loop = closed
            self._start(closed.run(_NO_END, now_ns))

    def _start(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._runs.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[object]") -> None:
        self._runs.discard(task)
        if not task.cancelled():
            self.defect = self.defect or task.exception()

    def _offsets(self, rate_per_s: float) -> Iterator[int]:
        """A Poisson process has no memory: another rate may begin at any moment."""
        offset_ns = 0.0
        while True:
            offset_ns += self._rng.expovariate(rate_per_s) * NS_PER_S
            yield int(offset_ns)

    async def _send(self, _number: int, intended_ns: int) -> None:
        outcome = await self._producer.publish(intended_ns)
        self._latencies_ns.append(outcome.latency_ns)
        self._payload_bytes += outcome.payload_bytes
        if outcome.error is not None:
            self._errors[str(without_ids(outcome.error))] += 1

    async def enter(self, index: int, phase: str) -> None:
        """Another phase; what was published before is told first."""
        await self._producer.enter(index, parse_phase(phase))
        self.tell()
        self._phase = phase

    def tell(self) -> None:
        """Say what was published since it was said last."""
        latencies_ns, self._latencies_ns = self._latencies_ns, []
        payload_bytes, self._payload_bytes = self._payload_bytes, 0
        errors, self._errors = self._errors, Counter()
        if latencies_ns:
            say(
                Delta(
                    phase=self._phase,
                    latency=histogram(np.array(latencies_ns, dtype=np.int64)),
                    payload_bytes=payload_bytes,
                    errors=dict(errors),
                    totals=self._producer.totals,
                )
            )

    async def close(self) -> None:
        """Send nothing more; wait for outcomes, and say what there is to say."""
        self.be(0)
        if self._runs:
            await asyncio.wait(self._runs, timeout=_SETTLE_TIMEOUT_S)
        totals = await self._producer.close()
        self.tell()
        say(Closed(totals=totals))


async def _main(folder: Path, number: int) -> int:
    clock = FineClock()
    lines, decoder = GrowingLines(folder / COMMANDS_NAME.format(number)), command_decoder()
    while not (orders := [decoder.decode(line) for line in lines.new()]):
        await clock.sleep(_POLL_S)
    order, *waiting = orders
    engine = await _open(order, clock) if isinstance(order, Open) else None
    if engine is None:
        return os.EX_UNAVAILABLE
    told_ns = clock.monotonic_ns()
    while True:
        for command in (*waiting, *map(decoder.decode, lines.new())):
            if isinstance(command, Close):
                await engine.close()
                return os.EX_OK
            await _obey(engine, command)
        waiting = []
        if engine.defect is not None:
            raise engine.defect
        if clock.monotonic_ns() - told_ns >= _DELTA_S * NS_PER_S:
            told_ns = clock.monotonic_ns()
            engine.tell()
        await clock.sleep(_POLL_S)


async def _obey(engine: Engine, command: Command) -> None:
    if isinstance(command, Users):
        engine.be(command.count)
    elif isinstance(command, EnterPhase):
        await _enter(engine, command)


async def _open(order: Open, clock: Clock) -> Engine | None:
    ticket = order.ticket
    try:
        producer = await Producer.open(ticket, order.writer, clock=clock, threads=True)
    except HookbenchError as error:
        say(Opened(index=ticket.index, phase=ticket.phase, problem=str(error)))
        return None
    gc.collect()
    gc.freeze()
    say(Opened(index=ticket.index, phase=ticket.phase))
    return Engine(producer, order, clock=clock)


async def _enter(engine: Engine, command: EnterPhase) -> None:
    problem = ""
    try:
        await engine.enter(command.index, command.phase)
    except HookbenchError as error:
        problem = str(error)
    say(Opened(index=command.index, phase=command.phase, problem=problem))


if __name__ == "__main__":
    sys.exit(uvloop.run(_main(Path(sys.argv[1]), int(sys.argv[2]))))
