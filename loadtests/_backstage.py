"""Brokers and workers of one load test, in a process of its own: ``python _backstage.py FOLDER``.

It is plain asyncio: no gevent, so that stage, fleet, observer and account are those of a
rehearsal, unchanged. It reads ``FOLDER/order.json``, appends its events to stdout, and drains and
accounts when ``FOLDER/finish.json`` appears. SIGTERM ends it at once. What it started ends with it
in any case.
"""

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import uvloop
from _figures import LiveLedger, histogram, percentiles
from _protocol import (
    FINISH_FILE,
    LEDGER_FOLDER,
    ORDER_FILE,
    Finish,
    Full,
    Incident,
    Order,
    Pulse,
    Ready,
    Refused,
    RunAccount,
)

from hookbench.clock import NS_PER_S, Clock, SystemClock
from hookbench.errors import HookbenchError
from hookbench.ledger.account import make_account
from hookbench.ledger.columns import TaskColumns
from hookbench.ledger.model import Account
from hookbench.ledger.read import Ledger, read_ledger
from hookbench.migration.measures import measures_of
from hookbench.migration.phases import ReadRoute, read_route
from hookbench.rehearsal.fleet import Fleet
from hookbench.rehearsal.observer import Observer
from hookbench.rehearsal.stage import Stage, open_stage
from hookbench.results.steps import plan_steps

__all__ = ["Backstage", "account_of"]

_WORKER_START_TIMEOUT_S = 20.0
_WORKER_STOP_TIMEOUT_S = 10.0
_BLOCK_TIMEOUT_S = 0.5
_POLL_S = 0.05
_PULSE_S = 1.0


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
        self._phase = order.options.queue.phase
        self._ledger = folder / LEDGER_FOLDER
        self._told = 0

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
            await self._on_stage(stage)
        finally:
            stage.close()

    async def _on_stage(self, stage: Stage) -> None:
        control, logs = self._folder / "control", self._folder / "logs"
        for folder in (control, logs, self._ledger):
            folder.mkdir()
        fleet = Fleet(clock=self._clock, ledger=self._ledger, logs=logs, control=control)
        observer = Observer(stage.redis_url, stage.nats_url, stage.names, clock=self._clock)
        try:
            await self._start_workers(fleet, stage)
            say(
                Ready(
                    redis_url=stage.redis_url,
                    nats_url=stage.nats_url,
                    names=stage.names,
                    brokers=stage.lines,
                    worker_pids=[member.child.pid for member in fleet.members],
                )
            )
            finish = await self._watch(fleet, observer)
            say(await self._conclude(fleet, observer, finish))
        finally:
            fleet.kill_all()
            if stage.foreign:
                with contextlib.suppress(Exception):  # its broker may be gone by now
                    await observer.remove_own_data()
            await observer.close()

    async def _start_workers(self, fleet: Fleet, stage: Stage) -> None:
        for number in range(self._order.options.hook_workers):
            fleet.start("worker", number, self._worker_arguments(stage), (0, self._phase))
        for member in fleet.members:
            if not await fleet.wait_until_in(member, 0, _WORKER_START_TIMEOUT_S):
                raise HookbenchError(f"{member.name} did not start: {fleet.log_tail(member)}")

    def _worker_arguments(self, stage: Stage) -> list[str]:
        options, names = self._order.options, stage.names
        handler = ["--handler", "noop"]
        if options.work_ms > 0:
            handler = ["--handler", "sleep", "--sleep-ms", str(options.work_ms)]
        return [
            "--redis-url", stage.redis_url,
            "--nats-url", stage.nats_url,
            f"--prefix={names.prefix}",
            f"--subject-root={names.subject_root}",
            f"--stream={names.stream}",
            f"--storage={options.durability.stream_storage}",
            f"--measures={measures_of(options.design).text}",
            "--block-timeout", str(_BLOCK_TIMEOUT_S),
            *handler,
        ]  # fmt: skip

    async def _watch(self, fleet: Fleet, observer: Observer) -> Finish:
        """A pulse every second, until the users have stopped."""
        live = LiveLedger(self._ledger)
        full = False
        pulse_ns = self._clock.monotonic_ns()
        while (finish := self._finish()) is None:
            self._poll(fleet)
            if self._clock.monotonic_ns() >= pulse_ns:
                pulse_ns += int(_PULSE_S * NS_PER_S)
                await self._pulse(live, observer, fleet)
                if live.offered >= self._order.options.max_tasks and not full:
                    full = True
                    say(Full(offered=live.offered))
            await self._clock.sleep(_POLL_S)
        return finish

    async def _pulse(self, live: LiveLedger, observer: Observer, fleet: Fleet) -> None:
        sample = await observer.sample()
        waiting, in_flight = sample.nats_waiting, sample.ack_pending
        if self._reads_redis:
            waiting, in_flight = sample.redis_pending or 0, sample.redis_work
        done = live.read()
        now_ns = self._clock.monotonic_ns()
        say(
            Pulse(
                time_ns=now_ns,
                done=done,
                offered=live.offered,
                phase=self._phase.label,
                waiting=waiting,
                in_flight=in_flight or 0,
                redelivered=live.redelivered,
                dead=live.dead,
                lag_p99_ms=live.take_lag_p99_ms(),
                oldest_s=live.oldest_s(now_ns),
                workers=len(fleet.processes()),
            )
        )

    @property
    def _reads_redis(self) -> bool:
        return read_route(self._phase) is ReadRoute.REDIS

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

    async def _conclude(self, fleet: Fleet, observer: Observer, finish: Finish) -> RunAccount:
        watching = asyncio.ensure_future(self._keep_polling(fleet))
        try:
            late = await observer.drain(
                reads_redis=self._reads_redis,
                reads_nats=not self._reads_redis,
                timeout_s=finish.drain_s,
            )
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        killed = await fleet.stop(fleet.of("worker"), _WORKER_STOP_TIMEOUT_S)
        doubts = [f"{member.name} did not stop by itself and was killed" for member in killed]
        residue = await observer.residue([])
        ledger = read_ledger(self._ledger, same_boot=True)
        account = make_account(
            ledger,
            plan_steps((self._phase,)),
            residue,
            step_starts_ns=[int(ledger.records["time_ns"][0])],
        )
        if account.tasks < finish.offered:
            doubts.append(
                f"the ledger holds {account.tasks} tasks, the producers sent {finish.offered}"
            )
        findings = [incident.what for incident in fleet.incidents]
        if late is not None:
            findings.append(f"the queue did not become empty within {finish.drain_s:g} s")
            # Its other findings would explain why what is left is not read; here it would be.
            account.findings = [item for item in account.findings if item.hazard != "P6"]
        return account_of(ledger, account, findings=findings, doubts=doubts)

    async def _keep_polling(self, fleet: Fleet) -> None:
        while True:
            self._poll(fleet)
            await self._clock.sleep(_POLL_S)


def account_of(
    ledger: Ledger,
    account: Account,
    *,
    findings: list[str],
    doubts: list[str],
) -> RunAccount:
    """What Locust shows of an account.

    Args:
        ledger: what the account was made from.
        account: of the only step of the run.
        findings: what else there is to say.
        doubts: why the figures may not be believed.
    """
    columns = TaskColumns(ledger)
    row = account.rows[0]
    done = columns.offered & (columns.done_count > 0)
    to_done_ns = (columns.done_ns - columns.intended_ns)[done]
    lag_ns = (columns.invoked_ns - columns.intended_ns)[columns.offered]
    accepted = columns.accepted
    examples = [f"{item.text}, e.g. {', '.join(item.examples)}" for item in account.findings]
    if account.torn:
        doubts.append(f"{account.torn} ledger records were cut off")
    return RunAccount(
        published=account.accepted,
        consumed=int((columns.accepted & columns.terminal).sum()),
        dead=account.dead,
        left=row.stuck,
        lost=account.lost,
        refused=account.refused,
        unknown=account.doubtful,
        duplicated=account.duplicated,
        redelivered=row.redelivered,
        publish_ns=percentiles((columns.accepted_ns - columns.intended_ns)[accepted]),
        send_ns=percentiles((columns.accepted_ns - columns.invoked_ns)[accepted]),
        end_to_end_ns=percentiles(to_done_ns),
        lag_ns=percentiles(lag_ns),
        published_ns=int(np.ptp(columns.accepted_ns[accepted])) if accepted.any() else 0,
        done=histogram(to_done_ns),
        findings=findings + examples,
        doubts=doubts,
    )


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
