"""A Raft group as it ought to be: logs of nodes, a leader by term, elections of random length.

There are no messages of votes: who asks for them, and who would give his, is looked at in one
moment (https://raft.github.io/raft.pdf, section 5). Entries travel over the routes, and what a
quorum has is committed. A node that comes back has what its disk kept, which may be less than it
had promised; so what a quorum of disks has lost is lost, though it was committed.

Times are those of server/raft.go of nats-server 2.15: a follower that hears nothing stands for
election after 4 to 9 s, a leader that hears of no quorum for 10 s gives up at its next look, each
10 s. Measured with three nodes: a stream took publishes again 4.2 to 7.5 s after its leader was
killed (six times), 18 to 23 ms after one had stepped down (four times), and a leader without its
followers had gone after 20 s.
"""

import contextvars
import random
from collections.abc import Callable
from typing import Any

from hookbench.clock import NS_PER_MS, NS_PER_S
from hookbench.sim.loop import SimulatedLoop
from hookbench.sim.nats.raft_role import Entry, Machine, Role, is_as_far
from hookbench.sim.nats.routes import Routes

__all__ = ["Group"]

_ELECTION_NS = (4 * NS_PER_S, 9 * NS_PER_S)
_BEHIND_NS = (100 * NS_PER_MS, 800 * NS_PER_MS)
"""A voter whose log is longer than that of who asks stands itself within this time."""
_TRANSFER_NS = (5 * NS_PER_MS, 25 * NS_PER_MS)
_LOST_QUORUM_NS = (10 * NS_PER_S, 20 * NS_PER_S)


class Group:
    """One group.

    Args:
        loop: of the simulation.
        routes: between the nodes.
        names: of the nodes that are members.
        machine: what is replicated.
        entropy: of the lengths of elections.
        wall_ns: the nodes' clock.
        first: who leads from the beginning.
    """

    def __init__(
        self,
        loop: SimulatedLoop,
        routes: Routes,
        names: list[str],
        machine: Machine,
        entropy: random.Random,
        wall_ns: Callable[[], int],
        *,
        first: str,
    ) -> None:
        self.roles = {name: Role(name, term=1, leader=first) for name in names}
        self.elections = 0
        self._loop = loop
        self._routes = routes
        self._machine = machine
        self._entropy = entropy
        self._wall_ns = wall_ns
        self._quorum = len(names) // 2 + 1
        self._waiting: dict[str, dict[int, list[Callable[[Any], None]]]] = {
            name: {} for name in names
        }
        self._unsent: set[str] = set()
        self._is_closed = False
        self._context = contextvars.Context()
        role = self.roles[first]
        role.leads = role.serves = True

    def leader(self) -> str:
        """Who leads in the highest term, and serves; empty for nobody."""
        serving = [role for role in self.roles.values() if role.serves]
        return max(serving, key=lambda role: role.term).name if serving else ""

    def serves(self, name: str) -> bool:
        """Whether a node takes itself for the leader, and answers."""
        role = self.roles.get(name)
        return role is not None and role.serves

    def is_leaderless(self, name: str) -> bool:
        """Whether a member knows of no leader."""
        return not self.roles[name].leader

    def _others(self, name: str) -> list[str]:
        return [other for other in self.roles if other != name]

    def propose(self, name: str, what: Any, done: Callable[[Any], None] | None = None) -> None:
        """Append to the log of a node that leads; ``done`` gets the result once it is committed.

        If the node ceases to lead before, nobody is told: the entry may be committed or not.
        """
        role = self.roles[name]
        role.log.append(Entry(role.term, self._wall_ns(), what))
        if done is not None:
            self._waiting[name].setdefault(len(role.log), []).append(done)
        if not self._unsent:
            self._loop.call_soon(self._send_unsent, context=self._context)
        self._unsent.add(name)

    def when_committed(self, name: str, call: Callable[[], None]) -> None:
        """Call it once all that a leader has proposed so far is committed."""
        role = self.roles[name]
        if role.committed >= len(role.log):
            call()
        else:
            waiting = self._waiting[name].setdefault(len(role.log), [])
            waiting.append(lambda _result: call())

    def _send_unsent(self) -> None:
        unsent, self._unsent = sorted(self._unsent), set()
        for name in unsent:
            role = self.roles[name]
            if role.leads:
                for other in self._others(name):
                    self._send(role, other)
                self._commit(role)

    def _send(self, role: Role, other: str) -> None:
        """Tell a follower what the leader has and has committed."""
        begin = role.sent.get(other, 0)
        entries = role.log[begin:]
        before = role.log[begin - 1].term if begin else 0
        term, committed = role.term, role.committed
        role.sent[other] = len(role.log)  # until it says otherwise

        def arrive() -> None:
            self._append(other, role.name, term, begin, before, entries, committed)

        self._routes.send(role.name, other, arrive)

    def _append(
        self,
        name: str,
        leader: str,
        term: int,
        begin: int,
        before: int,
        entries: list[Entry],
        committed: int,
    ) -> None:
        role = self.roles[name]
        if self._is_closed:
            return
        if term < role.term:
            self._routes.send(name, leader, lambda: self._depose(leader, role.term))
            return
        self._follow(role, term, leader)
        fits = len(role.log) >= begin and (not begin or role.log[begin - 1].term == before)
        if fits:
            self._take(role, begin, entries)
            role.committed = max(role.committed, min(committed, begin + len(entries)))
            self._apply(role)
            if not entries:
                return
        has = begin + len(entries) if fits else min(begin - 1, len(role.log))
        self._routes.send(name, leader, lambda: self._on_reached(leader, name, term, has, fits))

    @staticmethod
    def _agree(role: Role, begin: int, entries: list[Entry]) -> int:
        """How many of the entries a log has already."""
        for number, entry in enumerate(entries):
            place = begin + number
            if place >= len(role.log) or role.log[place].term != entry.term:
                return number
        return len(entries)

    def _take(self, role: Role, begin: int, entries: list[Entry]) -> None:
        known = self._agree(role, begin, entries)
        if known == len(entries):
            return
        place = begin + known
        self._shorten(role, place)
        role.log.extend(entries[known:])

    def _shorten(self, role: Role, length: int) -> None:
        """Forget what a log has beyond a length, also where the machine has it."""
        if len(role.log) <= length:
            return
        del role.log[length:]
        role.committed = min(role.committed, length)
        if role.applied > length:
            role.applied = length
            self._machine.reset(role.name, list(role.log))

    def _on_reached(self, leader: str, name: str, term: int, has: int, fits: bool) -> None:
        role = self.roles[leader]
        if not role.leads or role.term != term:
            return
        if not fits:
            role.sent[name] = has
            self._send(role, name)
            return
        role.confirmed[name] = has
        self._commit(role)

    def _commit(self, role: Role) -> None:
        """What a quorum has is committed, if this leader made the last of it."""
        others = self._others(role.name)
        lengths = [len(role.log), *(role.confirmed.get(other, 0) for other in others)]
        length = sorted(lengths, reverse=True)[self._quorum - 1]
        if length <= role.committed or role.log[length - 1].term != role.term:
            return
        role.committed = length
        self._apply(role)
        for other in others:
            if role.leads:
                self._send(role, other)

    def _apply(self, role: Role) -> None:
        waiting = self._waiting[role.name]
        while role.applied < role.committed:
            entry = role.log[role.applied]
            role.applied += 1
            result = None if entry.what is None else self._machine.apply(role.name, entry)
            for done in waiting.pop(role.applied, ()):
                done(result)
        if role.leads and not role.serves and role.applied == len(role.log):
            role.serves = True
            self._machine.lead(role.name)

    def _follow(self, role: Role, term: int, leader: str) -> None:
        if term > role.term or role.leads:
            self._cease(role)
        role.term, role.leader = term, leader
        if self._is_led(role):
            self._cancel(role)
        else:  # it was sent before the leader went
            self._begin_to_wait(role)

    def _cease(self, role: Role) -> None:
        """A leader leads no more; who waits for it is told nothing."""
        if not role.leads:
            return
        served = role.serves
        role.leads = role.serves = False
        self._waiting[role.name].clear()
        self._cancel(role)
        if served:
            self._machine.follow(role.name)

    def _depose(self, name: str, term: int) -> None:
        role = self.roles[name]
        if term > role.term:
            self._cease(role)
            role.term, role.leader = term, ""
            self.look()

    def _cancel(self, role: Role) -> None:
        if role.timer is not None:
            role.timer.cancel()
            role.timer = None

    def look(self) -> None:
        """Who reaches whom has changed: begin to wait, or wait no more."""
        for role in self.roles.values():
            if not self._routes.nodes[role.name].up:
                continue
            if role.leads:
                self._look_at_leader(role)
            elif len(self.roles) == 1:
                self._stand(role)
            elif role.leader and self._is_led(role):
                self._cancel(role)
            else:
                self._begin_to_wait(role)

    def _is_led(self, role: Role) -> bool:
        return self.roles[role.leader].leads and self._routes.hears(role.name, role.leader)

    def _look_at_leader(self, role: Role) -> None:
        heard = [other for other in self._others(role.name) if self._reach(role.name, other)]
        for other in heard:
            follower, confirmed = self.roles[other], role.confirmed.get(other, 0)
            if confirmed < len(role.log) or follower.leader != role.name:
                role.sent[other] = confirmed
                self._send(role, other)
        if len(heard) + 1 >= self._quorum:
            self._cancel(role)
        elif role.timer is None:
            role.timer = self._after(role, _LOST_QUORUM_NS, self._give_up)

    def _reach(self, name: str, other: str) -> bool:
        return self._routes.hears(name, other) and self._routes.hears(other, name)

    def _give_up(self, role: Role) -> None:
        self._cease(role)
        role.leader = ""
        self.look()

    def _begin_to_wait(self, role: Role) -> None:
        if role.timer is None:
            role.timer = self._after(role, _ELECTION_NS, self._stand)

    def _after(self, role: Role, span_ns: tuple[int, int], call: Callable[[Role], None]) -> Any:
        """Call it within a span, unless the timer is cancelled or the process is gone by then."""
        node = self._routes.nodes[role.name]
        server = node.server

        def due() -> None:
            if role.timer is not timer or node.server is not server or not node.up:
                return
            if node.stopped:
                node.waiting.append(due)
                return
            role.timer = None
            call(role)

        delay_ns = self._entropy.randrange(*span_ns)
        timer = self._loop.call_at_ns(self._loop.now_ns + delay_ns, due, context=self._context)
        return timer

    def _stand(self, role: Role) -> None:
        """A follower that has heard nothing asks for votes; who knows more stands soon itself."""
        role.leader = ""
        voters = [
            self.roles[name] for name in self._others(role.name) if self._reach(role.name, name)
        ]
        role.term = max([role.term, *(voter.term for voter in voters)]) + 1
        self.elections += 1
        granted = 1
        for voter in voters:
            self._cease(voter)
            voter.term, voter.leader = role.term, ""
            if is_as_far(role, voter):
                granted += 1
            else:
                self._cancel(voter)
                voter.timer = self._after(voter, _BEHIND_NS, self._stand)
        if granted < self._quorum:
            self.look()
        else:
            self._win(role)

    def _win(self, role: Role) -> None:
        role.leads, role.leader = True, role.name
        role.sent = dict.fromkeys(self._others(role.name), len(role.log))
        role.confirmed = {}
        for voter in self._others(role.name):
            if self._reach(role.name, voter):
                self._cancel(self.roles[voter])
                self.roles[voter].leader = role.name
        self.propose(role.name, None)

    def step_down(self, name: str) -> None:
        """A leader gives its place up to a follower that it hears; with none, to an election."""
        role = self.roles[name]
        heirs = [other for other in self._others(name) if self._reach(name, other)]
        self._cease(role)
        role.leader = ""
        if heirs:
            heir = self.roles[self._entropy.choice(heirs)]
            self._cancel(heir)
            heir.timer = self._after(heir, _TRANSFER_NS, self._stand)
        self.look()

    def end(self, name: str) -> None:
        """The process of a node has ended; its log is there when it comes back."""
        role = self.roles[name]
        self._cease(role)
        self._cancel(role)
        role.leader = ""
        self._waiting[name].clear()

    def close(self) -> None:
        """There is no such group any more."""
        for role in self.roles.values():
            self._cease(role)
            self._cancel(role)
            role.leader = ""
        self._is_closed = True

    def begin(self, name: str, kept: int) -> None:
        """A node is back, with so many entries of its log."""
        role = self.roles[name]
        self._shorten(role, kept)
        role.committed = role.applied
        for other in self._others(name):
            confirmed = self.roles[other].confirmed
            confirmed[name] = min(confirmed.get(name, 0), len(role.log))
