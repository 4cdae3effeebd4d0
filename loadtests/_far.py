"""A Locust worker on another machine: its ledger comes to the master, with the master's times.

The worker asks the master for its time, again and again, and sends the records of its ledger with
what it knows of the two clocks. The master writes them beside the ledgers of its own machine.
"""

import logging
import tempfile
from pathlib import Path
from typing import Any

import gevent
import msgspec
from _protocol import LEDGER_FOLDER, ClockNote, Ticket

from hookbench.clock import NS_PER_MS, NS_PER_S, SystemClock
from hookbench.clock_offset import ClockOffset
from hookbench.errors import HookbenchError
from hookbench.ledger.relay import LedgerRelay
from hookbench.ledger.tail import LedgerTail

__all__ = ["FarLedgers", "FarWorker"]

_log = logging.getLogger("hookbench.locust")

ASK_MESSAGE = "hookbench_ask_time"
TIME_MESSAGE = "hookbench_time"
RECORDS_MESSAGE = "hookbench_records"
_ROLE = "producer"
_EVERY_S = 0.25
_BURST = 20
_BURST_PAUSE_S = 0.01
_ANSWER_TIMEOUT_S = 5.0
_ENOUGH = 5


class _Records(msgspec.Struct, frozen=True):
    """Records of one writer, and the clock of the master less that of the worker."""

    writer: int
    offset_ns: int
    error_ns: int
    data: bytes


class FarWorker:
    """What a worker that does not see the run's folder does beside publishing.

    Args:
        runner: of Locust.
    """

    def __init__(self, runner: Any) -> None:
        self._runner = runner
        self._clock = SystemClock()
        self._offset = ClockOffset()
        self._answers = 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._tail: LedgerTail | None = None
        self._writer = 0
        self._sender: gevent.Greenlet | None = None
        runner.register_message(TIME_MESSAGE, self._told_time)

    @property
    def is_at_work(self) -> bool:
        """Whether a run has its ledger here."""
        return self._folder is not None

    def move_in(self, ticket: Ticket, writer: int) -> Ticket:
        """A ticket with a folder of this machine.

        Locust hears no message while it tells of the start of a run, so the master's answers to
        what is asked here come later.

        Raises:
            HookbenchError: the brokers are the master's own.
        """
        if not ticket.foreign:
            raise HookbenchError(
                f"Locust worker {self._runner.client_id} is on another machine than the master, and"
                " the embedded brokers of that one listen on 127.0.0.1: give it --redis-url and"
                " --nats-url"
            )
        self.move_out()
        self._answers = 0
        self._folder = tempfile.TemporaryDirectory(prefix="hookbench-locust-")
        ledger = Path(self._folder.name) / LEDGER_FOLDER
        ledger.mkdir()
        self._tail = LedgerTail(ledger, _ROLE)
        self._writer = writer
        self._sender = gevent.spawn(self._keep_sending)
        return msgspec.structs.replace(ticket, folder=self._folder.name)

    def _ask(self) -> None:
        self._runner.send_message(ASK_MESSAGE, self._clock.monotonic_ns())

    def _told_time(self, environment: Any, msg: Any) -> None:  # noqa: ARG002
        asked_ns, answered_ns = msg.data
        self._offset.add(asked_ns, answered_ns, self._clock.monotonic_ns())
        self._answers += 1

    def _keep_sending(self) -> None:
        """Where the master's time is not known yet, the records wait for it."""
        for _ in range(_BURST):
            self._ask()
            gevent.sleep(_BURST_PAUSE_S)
        while True:
            self._ask()
            self._send()
            gevent.sleep(_EVERY_S)

    def _send(self) -> None:
        found = self._offset.at(self._clock.monotonic_ns())
        if self._tail is None or found is None:
            return
        for records in self._tail.read():
            if len(records):
                part = _Records(self._writer, found.offset_ns, found.error_ns, records.tobytes())
                self._runner.send_message(RECORDS_MESSAGE, msgspec.structs.asdict(part))

    def move_out(self) -> str:
        """Send what there is, for the ledger is closed; why that cannot be, if so."""
        if self._folder is None:
            return ""
        deadline_ns = self._clock.monotonic_ns() + int(_ANSWER_TIMEOUT_S * NS_PER_S)
        while self._answers < _ENOUGH and self._clock.monotonic_ns() < deadline_ns:
            gevent.sleep(_BURST_PAUSE_S)
        problem = ""
        if not self._answers:
            problem = f"the master does not tell its time within {_ANSWER_TIMEOUT_S:.0f} s"
        if self._sender is not None:
            self._sender.kill()
        self._send()
        self._tail = None
        self._folder.cleanup()
        self._folder = None
        return problem


class FarLedgers:
    """What a master does for workers on other machines.

    Args:
        runner: of Locust.
    """

    def __init__(self, runner: Any) -> None:
        self._runner = runner
        self._clock = SystemClock()
        self._folder: Path | None = None
        self._relays: dict[int, LedgerRelay] = {}
        self._notes: dict[str, ClockNote] = {}
        self.problem: str | None = None
        """Why the ledger lacks records of another machine."""
        runner.register_message(ASK_MESSAGE, self._tell_time)
        runner.register_message(RECORDS_MESSAGE, self._take)

    def begin(self, folder: Path) -> None:
        """A run begins, with this folder."""
        self.end()
        self._folder = folder / LEDGER_FOLDER
        self._notes.clear()
        self.problem = None

    @property
    def notes(self) -> list[ClockNote]:
        """Of each worker that is elsewhere the worst that was known of its clock."""
        return list(self._notes.values())

    def _tell_time(self, environment: Any, msg: Any) -> None:  # noqa: ARG002
        answer = (msg.data, self._clock.monotonic_ns())
        self._runner.send_message(TIME_MESSAGE, answer, msg.node_id)

    def _take(self, environment: Any, msg: Any) -> None:  # noqa: ARG002
        found = msgspec.convert(msg.data, _Records)
        if self._folder is None:
            return
        try:
            relay = self._relays.get(found.writer)
            if relay is None:
                relay = LedgerRelay(self._folder, role=_ROLE, writer=found.writer)
                self._relays[found.writer] = relay
                _log.info(
                    "elsewhere   worker %s, its clock known to %.2f ms",
                    msg.node_id,
                    found.error_ns / NS_PER_MS,
                )
            relay.add(found.data, found.offset_ns)
        except (HookbenchError, OSError) as error:
            self.problem = f"records of worker {msg.node_id}: {error}"
            _log.error("%s", self.problem)
        known = self._notes.get(msg.node_id)
        worst_ns = max(found.error_ns, known.error_ns if known is not None else 0)
        self._notes[msg.node_id] = ClockNote(
            worker=msg.node_id, offset_ns=found.offset_ns, error_ns=worst_ns
        )

    def end(self) -> None:
        """Nothing comes any more."""
        for relay in self._relays.values():
            relay.close()
        self._relays.clear()
        self._folder = None
