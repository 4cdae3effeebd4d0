"""The processes of a rehearsal: producers and workers, watched, and replaced when they end early.

A producer that takes another's place goes on with what is due from then on: nobody offers a task
twice, and what was due while nobody was there is not offered.
"""

import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from hookbench.brokers.process import Child, spawn
from hookbench.brokers.resolve import NATS_URL_VARIABLE, REDIS_URL_VARIABLE
from hookbench.cancellation import raise_if_cancelled
from hookbench.clock import NS_PER_S, Clock
from hookbench.growing_lines import GrowingLines
from hookbench.migration.phases import Phase, PhaseFile
from hookbench.rehearsal.scrapes import Scrapes
from hookbench.results.store import Incident

__all__ = ["MAX_RESTARTS", "Fleet", "Member", "fault_file", "without_urls"]

MAX_RESTARTS = 20
"""What is replaced more often without a fault behind it does not get well by that."""
_TOTALS = ("done", "offered", "accepted", "refused", "unknown")
_POLL_S = 0.02
_URL_VARIABLES = {"--redis-url": REDIS_URL_VARIABLE, "--nats-url": NATS_URL_VARIABLE}


class Member(msgspec.Struct, kw_only=True):
    """One process of the fleet and what it last said.

    Attributes:
        role: ``producer`` or ``worker``.
        said: the latest value of each key of its announcements.
        before: totals of the processes that had this place before, by the same keys.
        replacements: how often this place was filled again.
        expected_end: nobody takes its place any more.
        told_to_stop: it may end well, though its load is not at an end.
    """

    role: str
    number: int
    arguments: list[str]
    phase_file: Path
    child: Child
    output: GrowingLines
    said: dict[str, Any] = {}
    before: dict[str, int] = {}
    replacements: int = 0
    expected_end: bool = False
    told_to_stop: bool = False

    @property
    def name(self) -> str:
        """``worker-0``."""
        return f"{self.role}-{self.number}"

    def total(self, key: str) -> int:
        """What all processes that had this place counted."""
        return self.before.get(key, 0) + int(self.said.get(key, 0))


def fault_file(phase_file: Path) -> Path:
    """Where the process that watches ``phase_file`` finds what it is to do wrong."""
    return phase_file.with_suffix(".fault")


def without_urls(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Options as they may stand on a command line, and the URLs of brokers as variables.

    Everybody on a machine may read command lines, and a URL may hold a password.
    """
    shown: list[str] = []
    urls: dict[str, str] = {}
    left = iter(arguments)
    for argument in left:
        option, assigned, value = argument.partition("=")
        if option in _URL_VARIABLES:
            urls[_URL_VARIABLES[option]] = value if assigned else next(left)
        else:
            shown.append(argument)
    return shown, urls


class Fleet:
    """Starts, watches and stops the processes of a run.

    Args:
        spare: how often somebody is replaced, beside one of each member.
        scrapes: asks those that serve metrics, ``None`` where none does.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        ledger: Path,
        logs: Path,
        control: Path,
        spare: int = MAX_RESTARTS,
        scrapes: Scrapes | None = None,
    ) -> None:
        self._spare = spare
        self._scrapes = scrapes
        self._clock = clock
        self._ledger = ledger
        self._logs = logs
        self._control = control
        self._next_writer = 1
        self._restarts = 0
        self.members: list[Member] = []
        self.incidents: list[Incident] = []

    def start(
        self, role: str, number: int, arguments: list[str], step: tuple[int, Phase]
    ) -> Member:
        """Start one process in a phase.

        Args:
            role: the ``hookbench`` verb is ``worker`` or ``produce``.
            number: its number among those of its role.
            arguments: options beside phase file and ledger.
            step: index in the timeline, and phase.
        """
        phase_file = self._control / f"{role}-{number}.json"
        PhaseFile(phase_file).write(*step)
        member = Member(
            role=role,
            number=number,
            arguments=arguments,
            phase_file=phase_file,
            child=self._spawn(role, number, arguments, phase_file),
            output=GrowingLines(self._logs / f"{role}-{number}.jsonl"),
        )
        self.members.append(member)
        return member

    def _spawn(self, role: str, number: int, arguments: list[str], phase_file: Path) -> Child:
        writer = self._next_writer
        self._next_writer += 1
        verb = "produce" if role == "producer" else "worker"
        shown, urls = without_urls(arguments)
        command = [
            sys.executable,
            "-m",
            "hookbench",
            verb,
            *shown,
            "--phase-file",
            str(phase_file),
            "--ledger",
            str(self._ledger),
            "--writer",
            str(writer),
            "--fault-file",
            str(fault_file(phase_file)),
            "--json",
        ]
        if role == "worker":
            command += ["--die-file", str(phase_file.with_suffix(".die"))]
        name = f"{role}-{number}"
        with (
            (self._logs / f"{name}.log").open("ab") as log,
            (self._logs / f"{name}.jsonl").open("ab") as output,
        ):
            return spawn(name, command, output=log, stdout=output, env={**os.environ, **urls})

    def processes(self) -> list[tuple[str, int]]:
        """Name and process id of each member that runs."""
        return [
            (member.name, member.child.pid)
            for member in self.members
            if member.child.exit_code is None
        ]

    def of(self, role: str) -> list[Member]:
        """The processes of one role."""
        return [member for member in self.members if member.role == role]

    def enter(self, member: Member, index: int, phase: Phase) -> None:
        """Tell one process to change its phase."""
        PhaseFile(member.phase_file).write(index, phase)

    def poll(self) -> None:
        """Read what the processes said; replace one that ended early."""
        for member in self.members:
            self._listen(member)
            code = member.child.exit_code
            if code is None or member.expected_end:
                continue
            self._ended(member, code)

    def _listen(self, member: Member) -> None:
        for line in member.output.new():
            try:
                member.said.update(json.loads(line))
            except ValueError:  # half of a line, by a process that died on a full disk
                text = f"{member.name} (pid {member.child.pid}) said what is no JSON: {line[:80]!r}"
                self.incidents.append(Incident(time_ns=self._clock.monotonic_ns(), what=text))
        if self._scrapes is not None:
            self._scrapes.heard(member.role, member.said)

    def _ended(self, member: Member, code: int) -> None:
        self._listen(member)  # its last words may have come since
        finished = member.told_to_stop or not member.said.get("left")
        if member.role == "producer" and code == 0 and finished:
            member.expected_end = True
            return
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        text = f"{member.name} (pid {member.child.pid}) {how}"
        if code > 0 and (said := self.log_tail(member)):
            text += f" ({said.splitlines()[-1]})"
        if self._restarts < self._spare + len(self.members):
            self._restarts += 1
            self._replace(member)
            text += f", replaced by pid {member.child.pid}"
        else:
            member.expected_end = True
            text += ", not replaced"
        self.incidents.append(Incident(time_ns=self._clock.monotonic_ns(), what=text))

    def _replace(self, member: Member) -> None:
        for key in _TOTALS:
            member.before[key] = member.total(key)
        member.said.clear()  # also its phase: the new process has to enter it first
        member.told_to_stop = False
        member.replacements += 1
        more = ["--resume"] if member.role == "producer" else []
        member.child = self._spawn(
            member.role, member.number, [*member.arguments, *more], member.phase_file
        )

    def has_entered(self, member: Member) -> bool:
        """Whether a process said that it is in the phase that it was told last."""
        index, _phase = PhaseFile(member.phase_file).read()
        return member.said.get("index") == index

    def log_tail(self, member: Member, characters: int = 400) -> str:
        """The end of what a process wrote to stderr."""
        path = self._logs / f"{member.name}.log"
        return path.read_text(errors="replace")[-characters:].strip()

    async def wait_until_in(self, member: Member, index: int, timeout_s: float) -> bool:
        """Whether a process announced a step of the timeline in time."""
        return await self._wait(lambda: member.said.get("index") == index, timeout_s)

    async def wait_for_end(self, members: list[Member], timeout_s: float) -> bool:
        """Whether all of these ended by themselves in time."""
        return await self._wait(
            lambda: all(member.child.exit_code is not None for member in members), timeout_s
        )

    async def _wait(self, condition: Any, timeout_s: float) -> bool:
        deadline_ns = self._clock.monotonic_ns() + int(timeout_s * NS_PER_S)
        while True:
            raise_if_cancelled()
            self.poll()
            if condition():
                return True
            if self._clock.monotonic_ns() > deadline_ns:
                return False
            await self._clock.sleep(_POLL_S)

    async def finish(self, members: list[Member], timeout_s: float) -> bool:
        """SIGTERM to producers; whether each ended well in time.

        Whoever dies instead is replaced, and the new one told, when it listens: so nothing stays
        behind in an outbox.
        """

        def ended() -> bool:
            for member in members:
                if not member.told_to_stop and not member.expected_end and "index" in member.said:
                    member.told_to_stop = True
                    member.child.signal(signal.SIGCONT)
                    member.child.signal(signal.SIGTERM)
            return all(member.expected_end for member in members)

        return await self._wait(ended, timeout_s)

    async def stop(self, members: list[Member], timeout_s: float) -> list[Member]:
        """SIGTERM, so that they finish what they have; those that had to be killed."""
        for member in members:
            member.expected_end = True
            member.child.signal(signal.SIGCONT)
            member.child.signal(signal.SIGTERM)
        await self.wait_for_end(members, timeout_s)
        killed = [member for member in members if member.child.exit_code is None]
        for member in killed:
            member.child.kill()
        self.poll()
        return killed

    def kill_all(self) -> None:
        """SIGKILL whatever still runs."""
        for member in self.members:
            member.expected_end = True
            member.child.kill()
