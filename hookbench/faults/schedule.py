"""Carries a schedule of faults out: each at its time, each healed, and none that goes unsaid."""

import asyncio
import logging
from collections import defaultdict
from contextlib import nullcontext

import msgspec

from hookbench.clock import NS_PER_S, sleep_until
from hookbench.errors import (
    BrokerUnreachableError,
    FaultTargetMissingError,
    HookbenchError,
    PublishRefusedError,
    PublishUnknownError,
)
from hookbench.faults.base import Fault, FaultRecord, Targets
from hookbench.ledger.events import Event, Recorder

__all__ = ["FaultSchedule"]

_AWAY = (
    BrokerUnreachableError,
    FaultTargetMissingError,
    PublishRefusedError,
    PublishUnknownError,
)
"""Another fault, or the fleet's own change of consumers, may be behind it, and soon be over."""
_TRIES = 20
_TRY_S = 0.5
_log = logging.getLogger(__name__)


class FaultSchedule:
    """The faults of a run.

    Attributes:
        records: what became of each, in the order of the scenario.
    """

    def __init__(self, faults: tuple[Fault, ...], targets: Targets, recorder: Recorder) -> None:
        self._faults = list(faults)
        self._planned = len(faults)
        self._targets = targets
        self._recorder = recorder
        self._active: dict[int, Fault] = {}
        self._begun: list[int] = []
        self._healing: dict[int, asyncio.Task[None]] = {}
        self._phases_ns: dict[int, int] = {}
        self._phase_entered = asyncio.Event()
        self._over = [asyncio.Event() for _fault in faults]
        self._turns: defaultdict[type[Fault], asyncio.Lock] = defaultdict(asyncio.Lock)
        self.records = [_record_of(index, fault, 0) for index, fault in enumerate(faults)]

    def begin_phase(self, phase_index: int, begin_ns: int) -> None:
        """The change into this phase of the timeline begins: the times of its faults are known."""
        self._phases_ns[phase_index] = begin_ns
        for fault, record in zip(self._faults, self.records, strict=True):
            if fault.phase_index == phase_index:
                record.planned_ns = begin_ns + int(fault.at_s * NS_PER_S)
        self._phase_entered.set()
        self._phase_entered = asyncio.Event()

    def add(self, fault: Fault) -> int:
        """One more, that nobody planned; its index, for ``carry_out``. Its times count from now."""
        index = len(self._faults)
        self._faults.append(fault)
        self._over.append(asyncio.Event())
        planned_ns = self._targets.clock.monotonic_ns() + int(fault.at_s * NS_PER_S)
        self.records.append(_record_of(index, fault, planned_ns))
        return index

    async def run(self, start_ns: int) -> None:
        """Every fault at its time, side by side where they overlap; returns when all are healed.

        May be cancelled; ``heal`` is called afterwards in any case.
        """
        for fault, record in zip(self._faults, self.records, strict=True):
            if fault.phase_index is None:
                record.planned_ns = start_ns + int(fault.at_s * NS_PER_S)
        async with asyncio.TaskGroup() as group:
            for index in range(len(self._faults)):
                group.create_task(self.carry_out(index))

    async def carry_out(self, index: int) -> None:
        """One fault at its time; returns when it is healed. ``run`` does so with the planned."""
        fault = self._faults[index]
        await self._wait_for_time(index)
        await self._wait_for_healing_before(index)
        async with self._turns[type(fault)] if fault.one_at_a_time else nullcontext():
            try:
                await self._fire(index)
            finally:
                self._over[index].set()

    async def _wait_for_healing_before(self, index: int) -> None:
        """Until what it changes is as it was, but for faults that it is to overlap with."""
        what, begin_ns = self._faults[index].what, self.records[index].planned_ns
        for other, fault in enumerate(self._faults):
            planned_ns = self.records[other].planned_ns
            end_ns = planned_ns + int(fault.for_s * NS_PER_S)
            # One that comes at the same moment is the later one if it stands later.
            before = (end_ns, other) < (begin_ns, index)
            if what and fault.what == what and planned_ns and before:
                await self._over[other].wait()

    async def _wait_for_time(self, index: int) -> None:
        """Until it is to be prepared."""
        fault = self._faults[index]
        while fault.phase_index is not None and fault.phase_index not in self._phases_ns:
            await self._phase_entered.wait()
        begin_ns = self.records[index].planned_ns - int(fault.lead_s * NS_PER_S)
        await sleep_until(begin_ns, self._targets.clock)

    async def _fire(self, index: int) -> None:
        fault, record = self._faults[index], self.records[index]
        clock = self._targets.clock
        try:
            begin_ns = await self._begin(index)
        except HookbenchError as error:
            record.problem = f"it did not fire: {error}"
            _log.warning("fault %s: %s", fault.name, error)
        else:
            record.begin_ns = begin_ns
            await sleep_until(clock.monotonic_ns() + int(fault.for_s * NS_PER_S), clock)
        await self._heal(index)

    async def _begin(self, index: int) -> int:
        """Prepare it and inject it, each at its time; when it began."""
        clock = self._targets.clock
        fault = self._active[index] = await self._aim(index)
        if fault.lead_s > 0:
            prepared_ns = clock.monotonic_ns()
            await fault.prepare(self._targets)
            await sleep_until(prepared_ns + int(fault.lead_s * NS_PER_S), clock)
        self._begun.append(index)
        self._recorder.record(Event.FAULT_BEGIN, value=index)
        for attempt in range(1, _TRIES + 1):
            begin_ns = clock.monotonic_ns()
            try:
                await fault.inject(self._targets)
            except _AWAY:
                if attempt == _TRIES or not fault.may_repeat:
                    raise
                await fault.heal(self._targets)  # what it did in part
                await clock.sleep(_TRY_S)
            else:
                break
        return begin_ns

    async def _aim(self, index: int) -> Fault:
        """The fault with the node that has its role now; the same one is healed."""
        fault, record = self._faults[index], self.records[index]
        record.node = await self._targets.resolve(fault.target)
        if record.node == fault.target:
            return fault
        record.name = f"{fault.name} ({record.node})"
        return msgspec.structs.replace(fault, target=record.node)

    async def _heal(self, index: int) -> None:
        """Heal it once, and to the end, also if the load ends while it is being healed."""
        if index not in self._active:
            return
        if index not in self._healing:
            self._healing[index] = asyncio.ensure_future(self._undo(index))
        await asyncio.shield(self._healing[index])

    async def _undo(self, index: int) -> None:
        fault, record = self._active[index], self.records[index]
        try:
            await fault.heal(self._targets)
        except HookbenchError as error:
            text = f"it was not healed: {error}"
            record.problem = f"{record.problem}; {text}" if record.problem else text
            _log.warning("fault %s: %s", fault.name, error)
        record.noted = self._targets.memory.notes(fault)
        if record.begin_ns is not None:
            record.end_ns = self._targets.clock.monotonic_ns()
        if index in self._begun:
            self._recorder.record(Event.FAULT_END, value=index)
        del self._active[index]

    @property
    def begun(self) -> list[str]:
        """Names of the faults that were tried so far, in the order of their beginnings."""
        return [self.records[index].name for index in self._begun]

    @property
    def active(self) -> list[str]:
        """Names of those that are not healed yet."""
        return [self.records[index].name for index in self._begun if index in self._active]

    async def heal(self) -> None:
        """Undo whatever is still in effect."""
        for index in sorted(self._active):
            await self._heal(index)

    def unknown(self) -> list[str]:
        """Why the verdict is unknown: planned faults that did not fire, or were not healed."""
        reasons = []
        for fault, record in list(zip(self._faults, self.records, strict=True))[: self._planned]:
            if record.problem is not None:
                reasons.append(f"fault {record.index} ({fault.name}): {record.problem}")
            elif record.begin_ns is None and record.index in self._begun:
                reasons.append(
                    f"fault {record.index} ({fault.name}): it did not fire: tried from"
                    f" {_when(fault)} on, and without effect when the load ended"
                )
            elif record.begin_ns is None:
                reasons.append(
                    f"fault {record.index} ({fault.name}): it did not fire: planned"
                    f" {_when(fault)}, when the load had ended"
                )
        return reasons


def _record_of(index: int, fault: Fault, planned_ns: int) -> FaultRecord:
    return FaultRecord(
        index=index,
        kind=str(fault.__struct_config__.tag),
        target=fault.target,
        name=fault.name,
        planned_ns=planned_ns,
    )


def _when(fault: Fault) -> str:
    return f"{fault.when} after the start" if fault.phase_index is None else fault.when
