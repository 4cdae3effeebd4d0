"""The Locust processes that publish in a run: this one alone, or the workers of a master.

A master hands the run to its workers with the parsed options and ends it with messages of its own,
because in a headless run its ``test_stop`` comes before theirs.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import msgspec
from _far import FarLedgers, FarWorker
from _options import TICKET_OPTION
from _producer import producer_measures
from _protocol import Enter, Entered, Finish, Present, ProducerTotals, Ticket
from _publisher import Publisher
from _run_options import ModeChoice
from _stage_process import StageProcess
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from hookbench import __version__
from hookbench.clock import NS_PER_S, SystemClock
from hookbench.errors import HookbenchError
from hookbench.migration.phases import parse_phase

__all__ = ["Team"]

_log = logging.getLogger("hookbench.locust")

CLOSE_MESSAGE = "hookbench_close"
CLOSED_MESSAGE = "hookbench_closed"
TROUBLE_MESSAGE = "hookbench_trouble"
ENTER_MESSAGE = "hookbench_enter"
ENTERED_MESSAGE = "hookbench_entered"
LOCAL_PRODUCER = "locust"
_WORKERS_TIMEOUT_S = 15.0
_POLL_S = 0.1

Refuse = Callable[[Exception], None]


class Team:
    """Begins and ends publishing, and takes it from phase to phase.

    Args:
        environment: of this process.
        refuse: is told why a worker cannot take part.

    Attributes:
        publisher: of this process; ``None`` in a master, which has no users.
    """

    def __init__(self, environment: Environment, refuse: Refuse) -> None:
        self._environment = environment
        self._runner: Any = environment.runner
        self._refuse = refuse
        self._clock = SystemClock()
        self._stage: StageProcess | None = None
        self._ticket: Ticket | None = None
        self._present: list[str] = []
        self._closed: dict[str, ProducerTotals] = {}
        self._far_worker: FarWorker | None = None
        self._far_ledgers: FarLedgers | None = None
        self.publisher = None if isinstance(self._runner, MasterRunner) else Publisher(environment)
        self._listen()

    def _listen(self) -> None:
        runner = self._runner
        if isinstance(runner, MasterRunner):
            self._far_ledgers = FarLedgers(runner)
            runner.register_message(CLOSED_MESSAGE, self._worker_closed)
            runner.register_message(TROUBLE_MESSAGE, self._worker_in_trouble)
            runner.register_message(ENTERED_MESSAGE, self._worker_entered)
        elif isinstance(runner, WorkerRunner):
            self._far_worker = FarWorker(runner)
            runner.register_message(CLOSE_MESSAGE, self._close_for_master, concurrent=True)
            runner.register_message(ENTER_MESSAGE, self._enter_for_master, concurrent=True)

    # A local or a master process.

    def begin(self, stage: StageProcess, ticket: Ticket) -> None:
        """The users are about to start.

        Raises:
            HookbenchError: see ``Publisher.open``.
        """
        self._stage, self._ticket = stage, ticket
        self._present = []
        self._closed.clear()
        if self._far_ledgers is not None:
            self._far_ledgers.begin(stage.folder)
        if self.publisher is None:
            self._hand_out(ticket)
        else:
            self.publisher.open(ticket, 0)
            stage.tell(self._entered(LOCAL_PRODUCER, ticket))
        self.look()

    def _hand_out(self, ticket: Ticket) -> None:
        """Locust's workers are told with the parsed options, also one that comes later."""
        text = msgspec.json.encode(ticket).decode()
        setattr(self._environment.parsed_options, TICKET_OPTION, text)

    def look(self) -> None:
        """Tell the stage who publishes, if that has changed."""
        present = [LOCAL_PRODUCER]
        if self.publisher is None:
            present = [item.id for item in self._runner.clients.all if item.state != "missing"]
        if self._stage is not None and present != self._present:
            self._present = present
            self._stage.tell(Present(producers=present))

    def _entered(self, producer: str, ticket: Ticket) -> Entered:
        options = ticket.options
        threads = options.mode is ModeChoice.ENGINE
        return Entered(
            producer=producer,
            index=ticket.index,
            phase=ticket.phase,
            version=__version__,
            measures=producer_measures(options.design, threads=threads).text,
        )

    def enter(self, event: Enter) -> None:
        """The users of this process, or of all others, go into another phase."""
        _log.info("phase       %s", event.phase)
        if self._ticket is None or self._stage is None:
            return
        ticket = msgspec.structs.replace(self._ticket, index=event.index, phase=event.phase)
        self._ticket = ticket
        if self.publisher is None:
            self._hand_out(ticket)
            for client in self._runner.clients.all:
                self._runner.send_message(ENTER_MESSAGE, msgspec.to_builtins(event), client.id)
        elif self._has_entered(event):
            self._stage.tell(self._entered(LOCAL_PRODUCER, ticket))

    def _has_entered(self, event: Enter) -> bool:
        if self.publisher is None:
            return False
        try:
            self.publisher.enter(event.index, parse_phase(event.phase))
        except HookbenchError as error:
            _log.warning("phase       %s is not entered: %s", event.phase, error)
            return False
        return True

    def finish(self, drain_s: float) -> Finish:
        """The users have stopped: close everything; what the stage is to be told."""
        totals = self._close()
        self._stage = self._ticket = None
        offered, far = sum(item.offered for item in totals), self._far_ledgers
        if far is None:
            return Finish(drain_s=drain_s, offered=offered)
        far.end()
        return Finish(
            drain_s=drain_s,
            offered=offered,
            spooled=sum(item.spooled for item in totals) if far.notes else 0,
            clocks=far.notes,
            doubts=[] if far.problem is None else [far.problem],
        )

    def _close(self) -> list[ProducerTotals]:
        if self.publisher is not None:
            return [self.publisher.close()]
        deadline_ns = self._clock.monotonic_ns() + int(_WORKERS_TIMEOUT_S * NS_PER_S)
        for client in self._runner.clients.all:
            self._runner.send_message(CLOSE_MESSAGE, None, client.id)
        while waiting := self._without_answer():
            if self._clock.monotonic_ns() > deadline_ns:
                _log.warning("no answer from Locust workers %s", ", ".join(waiting))
                break
            gevent.sleep(_POLL_S)
        return list(self._closed.values())

    def _without_answer(self) -> list[str]:
        return [
            client.id
            for client in self._runner.clients.all
            if client.id not in self._closed and client.state != "missing"
        ]

    def _worker_closed(self, environment: Environment, msg: Any) -> None:  # noqa: ARG002
        self._closed[msg.node_id] = msgspec.convert(msg.data, ProducerTotals)

    def _worker_in_trouble(self, environment: Environment, msg: Any) -> None:  # noqa: ARG002
        self._refuse(HookbenchError(str(msg.data)))

    def _worker_entered(self, environment: Environment, msg: Any) -> None:  # noqa: ARG002
        if self._stage is not None:
            self._stage.tell(msgspec.convert({**msg.data, "producer": msg.node_id}, Entered))

    # A worker.

    def join(self) -> None:
        """The master has sent a run with the options."""
        publisher = self.publisher
        if publisher is None:
            return
        try:
            text = getattr(self._environment.parsed_options, TICKET_OPTION)
            ticket = msgspec.json.decode(text, type=Ticket)
            if self._far_worker is not None and not Path(ticket.folder).is_dir():
                ticket = self._far_worker.move_in(ticket, self._runner.worker_index)
            publisher.open(ticket, self._runner.worker_index)
            self._ticket = ticket
            self._say_entered(ticket)
        except (HookbenchError, msgspec.MsgspecError) as error:
            self._runner.send_message(TROUBLE_MESSAGE, str(error))

    def _say_entered(self, ticket: Ticket) -> None:
        said = self._entered(str(self._runner.client_id), ticket)
        self._runner.send_message(ENTERED_MESSAGE, msgspec.to_builtins(said))

    def _enter_for_master(self, environment: Environment, msg: Any) -> None:  # noqa: ARG002
        event = msgspec.convert(msg.data, Enter)
        if self._ticket is not None and self._has_entered(event):
            changed = msgspec.structs.replace(self._ticket, index=event.index, phase=event.phase)
            self._ticket = changed
            self._say_entered(changed)

    def _close_for_master(self, environment: Environment, msg: Any) -> None:  # noqa: ARG002
        if self.publisher is None:
            return
        totals = self.publisher.close()
        if self._far_worker is not None and (problem := self._far_worker.move_out()):
            self._runner.send_message(TROUBLE_MESSAGE, problem)
        self._runner.send_message(CLOSED_MESSAGE, msgspec.to_builtins(totals))

    def end(self) -> None:
        """Locust is about to exit."""
        if self.publisher is not None:
            self.publisher.end()
