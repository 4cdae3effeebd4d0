"""Brokers and workers of one load test, in a process of its own: ``python _backstage.py FOLDER``.

It is plain asyncio: no gevent, so that stage, fleet, observer and account are those of a
rehearsal, unchanged. It reads ``FOLDER/order.json``, appends its events to stdout, and drains and
accounts when ``FOLDER/finish.json`` appears. What it is asked for while the users publish comes in
``FOLDER/commands.jsonl``, see ``_direction.py``. SIGTERM ends it at once. What it started ends with
it in any case.
"""

import asyncio
import contextlib
import os
import signal
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import uvloop
from _direction import Director, check_faults, links_to_proxy
from _figures import LiveLedger
from _producer import OUTBOX_NAMES
from _protocol import (
    COMMANDS_FILE,
    FINISH_FILE,
    LEDGER_FOLDER,
    ORDER_FILE,
    Begin,
    Do,
    Entered,
    Finish,
    Full,
    Incident,
    Order,
    Present,
    Pulse,
    Ready,
    Refused,
    RunAccount,
    command_decoder,
)
from _run_account import account_of

from hookbench.cancellation import cancel
from hookbench.clock import NS_PER_MS, NS_PER_S, Clock, SystemClock
from hookbench.errors import HookbenchError
from hookbench.faults.texts import parse_fault_texts
from hookbench.growing_lines import GrowingLines
from hookbench.ledger.account import make_account
from hookbench.ledger.columns import without_end
from hookbench.ledger.events import LedgerWriter
from hookbench.ledger.model import Bounds
from hookbench.ledger.read import Ledger, read_ledger
from hookbench.migration.measures import measures_of
from hookbench.migration.phases import Phase, ReadRoute, read_route
from hookbench.migration.spool import Spool
from hookbench.rehearsal.done_stores import OpenedStores
from hookbench.rehearsal.fleet import Fleet, Member
from hookbench.rehearsal.links import Links, open_links
from hookbench.rehearsal.observer import Observer
from hookbench.rehearsal.stage import Stage, open_stage
from hookbench.results.samples import Sample
from hookbench.results.steps import plan_steps
from hookbench.task import decode_task

__all__ = ["Backstage"]

_WORKER_START_TIMEOUT_S = 20.0
_WORKER_STOP_TIMEOUT_S = 10.0
_BLOCK_TIMEOUT_S = 0.5
_POLL_S = 0.05
_PULSE_S = 1.0
_CLOCK_MARGIN = 100


def say(event: msgspec.Struct) -> None:
    """One event as one line on stdout."""
    sys.stdout.buffer.write(msgspec.json.encode(event) + b"\n")
    sys.stdout.buffer.flush()


class Backstage:
    """One run: stage, workers, pulses, drain, account."""

    def __init__(self, folder: Path, order: Order, *, clock: Clock) -> None:
        self._folder = folder
        self._order = order
        self._clock = clock
        self._ledger = folder / LEDGER_FOLDER
        self._told = 0
        self._commands = command_decoder()
        self._said = GrowingLines(folder / COMMANDS_FILE)
        self._seen = Sample(time_ns=0)
        """Depths as they are, or as they were when the broker answered last."""

    async def run(self) -> None:
        """Everything from the brokers to the account.

        Raises:
            HookbenchError: the run cannot start, or its figures cannot be had.
        """
        order = self._order
        stage = await open_stage(
            order.redis_url,
            order.nats_url,
            folder=self._folder,
            durability=order.options.durability,
            own_names=True,
            allow_existing=order.allow_existing,
            run=order.run,
        )
        try:
            workers = order.options.hook_workers
            check_faults(parse_fault_texts(order.options.faults), order, stage, workers)
            logs = self._folder / "logs"
            logs.mkdir()
            links = await open_links(links_to_proxy(order), stage, logs, clock=self._clock)
            try:
                await self._on_stage(stage, links, logs)
            finally:
                await links.close()
        finally:
            stage.close()

    async def _on_stage(self, stage: Stage, links: Links, logs: Path) -> None:
        control = self._folder / "control"
        for folder in (control, self._ledger):
            folder.mkdir()
        fleet = Fleet(clock=self._clock, ledger=self._ledger, logs=logs, control=control)
        observer = Observer(stage.redis_url, stage.nats_url, stage.names, clock=self._clock)
        arguments = self._worker_arguments(stage, links)

        def start_worker(number: int, step: tuple[int, Phase]) -> Member:
            return fleet.start("worker", number, arguments, step)

        ledger = LedgerWriter(self._ledger, role="harness", writer=0, clock=self._clock)
        with contextlib.closing(ledger):
            director = Director(
                self._order, stage, fleet, links, start_worker=start_worker, control=control,
                ledger=ledger, clock=self._clock, say=say,
            )  # fmt: skip
            try:
                await self._start_workers(fleet, start_worker)
                say(
                    Ready(
                        redis_url=links.url("producers", "redis"),
                        nats_url=links.url("producers", "nats"),
                        foreign=stage.foreign,
                        names=stage.names,
                        brokers=stage.lines,
                        worker_pids=[member.child.pid for member in fleet.members],
                    )
                )
                finish = await self._watch(fleet, observer, director)
                await director.end()
                director.tell_scene()
                ledger.close()
                say(await self._conclude(stage, fleet, observer, director, finish))
            finally:
                await director.end()
                fleet.kill_all()
                if stage.foreign:
                    with contextlib.suppress(Exception):  # its broker may be gone by now
                        await observer.remove_own_data()
                await observer.close()
                await director.close()

    async def _start_workers(
        self, fleet: Fleet, start: Callable[[int, tuple[int, Phase]], Member]
    ) -> None:
        first = self._order.options.timeline[0].phase
        for number in range(self._order.options.hook_workers):
            start(number, (0, first))
        for member in fleet.members:
            if not await fleet.wait_until_in(member, 0, _WORKER_START_TIMEOUT_S):
                raise HookbenchError(f"{member.name} did not start: {fleet.log_tail(member)}")

    def _worker_arguments(self, stage: Stage, links: Links) -> list[str]:
        options, names = self._order.options, stage.names
        return [
            "--redis-url", links.url("workers", "redis"),
            "--nats-url", links.url("workers", "nats"),
            f"--prefix={names.prefix}",
            f"--subject-root={names.subject_root}",
            f"--stream={names.stream}",
            f"--storage={options.durability.stream_storage}",
            f"--measures={measures_of(options.design).text}",
            f"--redis-queue={options.redis_kind}",
            "--block-timeout", str(_BLOCK_TIMEOUT_S),
            "--handler", options.handler,
            *(["--sleep-ms", str(options.work_ms)] if options.work_ms else []),
        ]  # fmt: skip

    async def _watch(self, fleet: Fleet, observer: Observer, director: Director) -> Finish:
        """A pulse every second, until the users have stopped."""
        live = LiveLedger(self._ledger)
        full = False
        pulse_ns = self._clock.monotonic_ns()
        looking = asyncio.ensure_future(self._look(observer))
        try:
            while (finish := self._finish()) is None:
                self._poll(fleet)
                self._obey(director)
                director.tell_scene()
                if self._clock.monotonic_ns() >= pulse_ns:
                    pulse_ns += int(_PULSE_S * NS_PER_S)
                    self._pulse(live, fleet, director)
                    if live.offered >= self._order.options.max_tasks and not full:
                        full = True
                        say(Full(offered=live.offered))
                await self._clock.sleep(_POLL_S)
        finally:
            await cancel(looking)
        return finish

    async def _look(self, observer: Observer) -> None:
        """Beside the pulses: a broker that stands still does not keep them up."""
        while True:
            sample = await observer.sample()
            known = msgspec.structs.asdict(self._seen)
            found = msgspec.structs.asdict(sample).items()
            known.update((name, value) for name, value in found if value is not None)
            self._seen = Sample(**known)
            await self._clock.sleep(_PULSE_S / 2)

    def _obey(self, director: Director) -> None:
        """What Locust has said since the last time."""
        for line in self._said.new():
            command = self._commands.decode(line)
            if isinstance(command, Begin):
                director.begin()
            elif isinstance(command, Present):
                director.producers.be(command.producers)
            elif isinstance(command, Entered):
                director.producers.hear(command)
            elif isinstance(command, Do):
                director.do(command)

    def _pulse(self, live: LiveLedger, fleet: Fleet, director: Director) -> None:
        sample = self._seen
        waiting, in_flight = sample.nats_waiting, sample.ack_pending
        if read_route(director.phase) is ReadRoute.REDIS:
            waiting, in_flight = sample.redis_pending or 0, sample.redis_work
        done = live.read()
        now_ns = self._clock.monotonic_ns()
        say(
            Pulse(
                time_ns=now_ns,
                done=done,
                offered=live.offered,
                accepted=live.accepted,
                phase=director.phase.label,
                redis_depth=sample.redis_pending or 0,
                nats_depth=sample.nats_waiting,
                waiting=waiting,
                in_flight=in_flight or 0,
                redelivered=live.redelivered,
                dead=live.dead,
                lag_p99_ms=live.take_lag_p99_ms(),
                oldest_s=live.oldest_s(now_ns),
                workers=len(fleet.processes()),
                faults=tuple(director.faults.active),
            )
        )

    def _finish(self) -> Finish | None:
        try:
            data = (self._folder / FINISH_FILE).read_bytes()
        except FileNotFoundError:
            return None
        return msgspec.json.decode(data, type=Finish)

    def _poll(self, fleet: Fleet) -> None:
        fleet.poll()
        for incident in fleet.incidents[self._told :]:
            say(Incident(text=incident.what))
        self._told = len(fleet.incidents)

    async def _conclude(
        self,
        stage: Stage,
        fleet: Fleet,
        observer: Observer,
        director: Director,
        finish: Finish,
    ) -> RunAccount:
        watching = asyncio.ensure_future(self._keep_polling(fleet))
        reads_redis = read_route(director.phase) is ReadRoute.REDIS
        try:
            late = await observer.drain(
                reads_redis=reads_redis,
                reads_nats=not reads_redis,
                timeout_s=finish.drain_s,
            )
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        killed = await fleet.stop(fleet.of("worker"), _WORKER_STOP_TIMEOUT_S)
        doubts = [f"{member.name} did not stop by itself and was killed" for member in killed]
        doubts += [*director.doubts, *finish.doubts]
        residue = await observer.residue(self._in_outboxes())
        ledger = read_ledger(self._ledger, same_boot=True)
        residue = msgspec.structs.replace(residue, ended=await self._ended(stage, ledger))
        phases, starts_ns = zip(*director.steps, strict=True)
        error_ns = max((item.error_ns for item in finish.clocks), default=0)
        account = make_account(
            ledger,
            plan_steps(phases),
            residue,
            step_starts_ns=[*starts_ns],
            # One that is negative beyond the error is a doubt, and no reason to have no account.
            bounds=Bounds(clock_error_ns=_CLOCK_MARGIN * error_ns),
        )
        if account.tasks < finish.offered:
            doubts.append(
                f"the ledger holds {account.tasks} tasks, the producers sent {finish.offered}"
            )
        if finish.spooled:
            doubts.append(f"{finish.spooled} tasks lie in outboxes on other machines")
        findings = [incident.what for incident in fleet.incidents]
        if late is not None:
            findings.append(f"the queue did not become empty within {finish.drain_s:g} s")
            # Its other findings would explain why what is left is not read; here it would be.
            account.findings = [item for item in account.findings if item.hazard != "P6"]
        found = account_of(ledger, account, findings=findings, doubts=doubts)
        if found.done.min_ms < -error_ns / NS_PER_MS:
            text = f"latencies down to {found.done.min_ms:.3f} ms: the clocks do not explain them"
            found = msgspec.structs.replace(found, doubts=[*found.doubts, text])
        return msgspec.structs.replace(found, clocks=finish.clocks)

    def _in_outboxes(self) -> list[str]:
        """Ids of the tasks that producers have accepted and not sent."""
        found = []
        for path in sorted(self._folder.glob(OUTBOX_NAMES)):
            with Spool(path) as spool:
                found += [str(decode_task(task).id) for task in spool.tasks()]
        return found

    async def _ended(self, stage: Stage, ledger: Ledger) -> list[uuid.UUID]:
        """Tasks without an end in the ledger that the done-store knows as ended."""
        if not measures_of(self._order.options.design).done_store:
            return []
        stores = OpenedStores(
            stage.redis_url, stage.nats_url, stage.names, stream=stage.stream, clock=self._clock
        )
        try:
            return sorted(await stores.are_done(without_end(ledger)))
        finally:
            await stores.close()

    async def _keep_polling(self, fleet: Fleet) -> None:
        while True:
            self._poll(fleet)
            await self._clock.sleep(_POLL_S)


async def _main(folder: Path) -> int:
    order = msgspec.json.decode((folder / ORDER_FILE).read_bytes(), type=Order)
    backstage = Backstage(folder, order, clock=SystemClock())
    running: asyncio.Task[Any] = asyncio.ensure_future(backstage.run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, running.cancel)
    try:
        await running
    except asyncio.CancelledError:
        return os.EX_TEMPFAIL
    except HookbenchError as error:
        say(Refused(text=str(error)))
        return os.EX_UNAVAILABLE
    return os.EX_OK


if __name__ == "__main__":
    sys.exit(uvloop.run(_main(Path(sys.argv[1]))))
