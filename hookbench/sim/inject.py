"""How each fault of a schedule is carried out on a site, healed, and told to the account."""

import contextvars
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, cast

import msgspec

from hookbench.clock import NS_PER_MS, NS_PER_S
from hookbench.errors import HookbenchError
from hookbench.faults.step import STEPS
from hookbench.ledger.events import Event
from hookbench.ledger.model import FaultWindow
from hookbench.sim.connection import Direction
from hookbench.sim.coverage import Firing
from hookbench.sim.frame_rule import FrameRule
from hookbench.sim.network import Delays, Link, Node
from hookbench.sim.processes import Process
from hookbench.sim.schedule import BROKERS, FaultKind, SimFault
from hookbench.sim.shared_faults import SHARED, shared_fault
from hookbench.sim.wire_rules import WireAction

if TYPE_CHECKING:
    from hookbench.faults.base import Targets
    from hookbench.sim.scheduled import Member, ScheduledSite

__all__ = ["inject"]

_WAYS = {
    "request": (Direction.TO_SERVER,),
    "reply": (Direction.TO_CLIENT,),
    "": (Direction.TO_SERVER, Direction.TO_CLIENT),
}
_ACTIONS = {
    FaultKind.LOSE: WireAction.LOSE,
    FaultKind.REPEAT: WireAction.REPEAT,
    FaultKind.HOLD: WireAction.HOLD,
    FaultKind.RESET: WireAction.RESET,
}
_AS_OF_A_REHEARSAL = {FaultKind.KILL_AT_MESSAGE: "kill"}
"""The kind that the account knows, where it is another one; of links it is ``wire``."""
_MS_PER_S = 1_000
_ECHO_S = 0.05
"""So long what was held back arrives; a connection that died meanwhile takes answers until then."""
_WATCH_S = 2.0
"""So long what waits for a message or a step waits for it."""
_END_S = 60.0
"""So long a process has for what it has in hand."""


class _Window:
    """A fault as the account is to know it, from the moment when it may have an effect."""

    def __init__(self, site: "ScheduledSite", number: int, fault: SimFault) -> None:
        self._site, self._number, self._fault = site, number, fault
        self._place: int | None = None

    def open(
        self, member: "Member | None" = None, met: str = "", *, since_ns: int | None = None
    ) -> None:
        """It fires now, on the message that it met; or it began to at ``since_ns``."""
        site, fault = self._site, self._fault
        now_ns = site.loop.now_ns if since_ns is None else since_ns
        site.firings.append(
            Firing(
                index=self._number,
                kind=fault.kind.value,
                subject=fault.subject,
                at_ns=now_ns,
                writer=None if member is None else member.writer,
                role="" if member is None else member.place.partition("-")[0],
                met=met,
            )
        )
        what = f" {met}" if met and not fault.command else ""
        who = f" (writer {member.writer})" if member else ""
        site.note(f"{fault.name}{what}{who}")
        link = bool(fault.broker) and fault.kind is not FaultKind.KILL_AT_MESSAGE
        role = fault.target.partition("-")[0]
        kind = _AS_OF_A_REHEARSAL.get(fault.kind, fault.kind.value)
        if member is not None and fault.kind is FaultKind.POWER_CUT:
            kind = FaultKind.KILL.value  # to the account it is a process that died
        self._place = len(site.windows)
        site.windows.append(
            FaultWindow(
                index=self._number,
                name=fault.name,
                target=f"{role}s-{fault.broker}" if link else fault.target,
                # A reset takes what was under way, too.
                begin_ns=now_ns - (fault.kind is FaultKind.RESET) * int(_ECHO_S * NS_PER_S),
                kind="wire" if link else kind,
                doubles=1 if fault.kind is FaultKind.REPEAT else 0,
            )
        )

    def close(self) -> None:
        """It is healed now, if it fired."""
        windows = self._site.windows
        if self._place is not None and windows[self._place].end_ns is None:
            windows[self._place] = msgspec.structs.replace(
                windows[self._place], end_ns=self._site.loop.now_ns
            )


async def inject(site: "ScheduledSite", number: int, fault: SimFault) -> None:
    """Wait for the time of a fault, do it, and take it back.

    Args:
        site: to which it is done.
        number: its place in the schedule.
        fault: what is done.
    """
    await site.clock.sleep(fault.at_s)
    window = _Window(site, number, fault)
    await _HOW[fault.kind](site, fault, window)
    window.close()


async def _kill(site: "ScheduledSite", fault: SimFault, window: _Window) -> None:
    if fault.target in BROKERS:
        await _end_broker(site, fault, window)
        return
    member = site.members[fault.target]
    if member.process is not None:
        _end(site, member, fault, window)


def _end(site: "ScheduledSite", member: "Member", fault: SimFault, window: _Window) -> None:
    window.open(member)
    site.kill_member(member, back_s=fault.for_s, power=fault.kind is FaultKind.POWER_CUT)
    window.close()


async def _restart(site: "ScheduledSite", fault: SimFault, window: _Window) -> None:
    member = site.members[fault.target]
    process = member.process
    if not site.ask_to_stop(member, back_s=fault.for_s):
        return
    window.open(member)
    until_ns = site.loop.now_ns + int(_END_S * NS_PER_S)
    while member.process is process:
        if site.loop.now_ns > until_ns:
            site.say_unknown(f"{fault.target} lives on {_END_S:g} s after SIGTERM")
            return
        await site.clock.sleep(_ECHO_S)


async def _end_broker(site: "ScheduledSite", fault: SimFault, window: _Window) -> None:
    """A kill, or a power cut, which nobody is told of."""
    if not site.network.node(site.node_of(fault.target)).up:
        return
    window.open()
    site.end_broker(fault.target, power=fault.kind is FaultKind.POWER_CUT)
    await site.clock.sleep(fault.for_s)
    site.begin_broker(fault.target)


async def _pause(site: "ScheduledSite", fault: SimFault, window: _Window) -> None:
    if fault.target in BROKERS:
        node = site.network.node(site.node_of(fault.target))
        server = node.server
        if not node.up or _is_stopped(node):
            return
        window.open()
        node.stop()
        await site.clock.sleep(fault.for_s)
        if node.server is server and _is_stopped(node):
            node.resume()
        return
    member = site.members[fault.target]
    process = member.process
    if process is None or _is_stopped(process):
        return
    window.open(member)
    site.loop.processes.stop(process)
    await site.clock.sleep(fault.for_s)
    if _is_stopped(process):
        site.loop.processes.resume(process)
    await site.clock.sleep(_ECHO_S)


def _is_stopped(what: Node | Process) -> bool:
    """Asked again behind an await."""
    return what.stopped


async def _kill_at_step(site: "ScheduledSite", fault: SimFault, window: _Window) -> None:
    member = site.members[fault.target]
    ledger, event, left = member.ledger, STEPS[fault.step], fault.nth
    if member.process is None or ledger is None:
        return

    def die() -> None:
        if member.ledger is ledger and not ledger.dead:
            _end(site, member, fault, window)

    def recorded(found: Event) -> None:
        nonlocal left
        left -= found is event
        if left == 0 and found is event:
            _after_turns(site, fault.turns, die)

    ledger.on_record.append(recorded)
    await site.clock.sleep(_WATCH_S)
    ledger.on_record.remove(recorded)


def _after_turns(site: "ScheduledSite", turns: int, call: Callable[[], None]) -> None:
    """Call it after so many turns of the loop, in no process; at once for none."""
    if turns == 0:
        call()
        return
    # Whatever was ready runs before it, up to its next await.
    site.loop.call_soon(_after_turns, site, turns - 1, call, context=contextvars.Context())


async def _kill_at_message(site: "ScheduledSite", fault: SimFault, window: _Window) -> None:
    member = site.members[fault.target]
    ledger = member.ledger

    def die() -> None:
        if member.ledger is ledger and ledger is not None and not ledger.dead:
            _end(site, member, fault, window)

    await _rule(site, fault, None, lambda _met: _after_turns(site, 1, die))


async def _on_a_message(site: "ScheduledSite", fault: SimFault, window: _Window) -> None:
    member = site.members[fault.target]
    await _rule(site, fault, _ACTIONS[fault.kind], lambda met: window.open(member, met))
    await site.clock.sleep(fault.for_s)


async def _rule(
    site: "ScheduledSite",
    fault: SimFault,
    action: WireAction | None,
    then: Callable[[str], None],
) -> None:
    """Have a rule for one message at work for a while."""
    link = _link(site, fault)
    (way,) = _WAYS[fault.way]
    rule = FrameRule(
        action,
        way,
        command=fault.command,
        nth=fault.nth,
        then=then,
        hold_ns=int(fault.delay_ms * NS_PER_MS),
    )
    link.rules.append(rule)
    await site.clock.sleep(_WATCH_S)
    link.rules.remove(rule)


async def _cut(site: "ScheduledSite", fault: SimFault, window: _Window) -> None:
    link = _link(site, fault)
    if link.cut:
        return
    window.open(site.members[fault.target])
    site.network.cut(link, *_WAYS[fault.way])
    await site.clock.sleep(fault.for_s)
    site.network.heal(link)
    await site.clock.sleep(_ECHO_S)


async def _latency(site: "ScheduledSite", fault: SimFault, window: _Window) -> None:
    link = _link(site, fault)
    before = link.delays
    window.open(site.members[fault.target])
    link.delays = Delays(least_ns=before.least_ns, mean_rest_ns=int(fault.delay_ms * NS_PER_MS))
    await site.clock.sleep(fault.for_s)
    link.delays = before


async def _promote(site: "ScheduledSite", fault: SimFault, window: _Window) -> None:
    since_ns = site.loop.now_ns
    if not await site.redis.fail_over(pause_s=fault.delay_ms / _MS_PER_S):
        return
    window.open(since_ns=since_ns)
    await site.clock.sleep(fault.for_s)
    site.redis.rejoin()


async def _as_in_a_rehearsal(site: "ScheduledSite", fault: SimFault, window: _Window) -> None:
    """Carried out by the code of a rehearsal's fault; one that finds nothing has not fired."""
    made, targets = shared_fault(fault), site.targets()
    asked = cast("Targets", targets)  # of which these faults use a part
    since_ns = site.loop.now_ns
    try:
        await made.inject(asked)
        window.open(since_ns=since_ns)
    except HookbenchError as error:
        site.note(f"{fault.name} did not fire: {error}")
    else:
        await site.clock.sleep(made.for_s)
    try:
        await made.heal(asked)
    except HookbenchError as error:
        site.say_unknown(f"{fault.name} could not be healed: {error}")


def _link(site: "ScheduledSite", fault: SimFault) -> Link:
    return site.network.link(site.members[fault.target].link_name, site.node_of(fault.broker))


_HOW: dict[FaultKind, Callable[["ScheduledSite", SimFault, _Window], Awaitable[None]]] = {
    FaultKind.KILL: _kill,
    FaultKind.KILL_AT_STEP: _kill_at_step,
    FaultKind.KILL_AT_MESSAGE: _kill_at_message,
    FaultKind.RESTART: _restart,
    FaultKind.POWER_CUT: _kill,
    FaultKind.PAUSE: _pause,
    FaultKind.CUT: _cut,
    FaultKind.LOSE: _on_a_message,
    FaultKind.REPEAT: _on_a_message,
    FaultKind.HOLD: _on_a_message,
    FaultKind.RESET: _on_a_message,
    FaultKind.LATENCY: _latency,
    FaultKind.PROMOTE: _promote,
    **dict.fromkeys(SHARED, _as_in_a_rehearsal),
}
