"""The routes between the nodes of a simulated cluster."""

import contextvars
import random
from collections.abc import Callable

from hookbench.clock import NS_PER_S
from hookbench.sim.loop import SimulatedLoop
from hookbench.sim.network import Delays, Node

__all__ = ["Routes"]

_STALE_NS = 60 * NS_PER_S
"""So long a node takes another one for there that went without a word (route pings, each 30 s)."""


class Routes:
    """What one node sends to another one arrives in order, unless the other is gone or cut off.

    Args:
        loop: of the simulation.
        nodes: of the cluster.
        entropy: what delays are drawn from.
        delays: of one way.

    Attributes:
        on_change: called when who reaches whom has changed.
        messages: that were sent.
    """

    def __init__(
        self,
        loop: SimulatedLoop,
        nodes: list[Node],
        entropy: random.Random,
        *,
        delays: Delays | None = None,
    ) -> None:
        self.nodes = {node.name: node for node in nodes}
        self.on_change: Callable[[], None] = lambda: None
        self.messages = 0
        self._loop = loop
        self._entropy = entropy
        self._delays = delays or Delays()
        self._cut: set[tuple[str, str]] = set()
        self._held: dict[tuple[str, str], list[Callable[[], None]]] = {}
        self._last_ns: dict[tuple[str, str], int] = {}
        self._silent_ns: dict[str, int] = {}
        self._context = contextvars.Context()

    def send(self, source: str, target: str, arrive: Callable[[], None]) -> None:
        """Have ``arrive`` called at the target after a delay, if its process is there then."""
        way = (source, target)
        if way in self._cut:
            self._held.setdefault(way, []).append(arrive)
            return
        self.messages += 1
        node = self.nodes[target]
        server = node.server

        def due() -> None:
            if node.server is not server or not node.up:
                return
            if node.stopped:
                node.waiting.append(arrive)
            else:
                arrive()

        delay_ns = self._delays.draw(self._entropy)
        due_ns = max(self._loop.now_ns + delay_ns, self._last_ns.get(way, 0) + 1)
        self._last_ns[way] = due_ns
        self._loop.call_at_ns(due_ns, due, context=self._context)

    def cut(self, source: str, target: str) -> None:
        """Let nothing pass this way until ``heal``; nobody is told."""
        self._cut.add((source, target))
        self.on_change()

    def heal(self) -> None:
        """Let everything pass, also what was sent meanwhile."""
        self._cut.clear()
        held, self._held = self._held, {}
        for (source, target), arrivals in held.items():
            for arrive in arrivals:
                self.send(source, target, arrive)
        self.on_change()

    def hears(self, target: str, source: str) -> bool:
        """Whether what a node sends now will be dealt with by another one."""
        return self._runs(source) and self._runs(target) and (source, target) not in self._cut

    def _runs(self, name: str) -> bool:
        node = self.nodes[name]
        return node.up and not node.stopped

    def knows(self, name: str, other: str) -> bool:
        """Whether a node takes another one for there: a killed one closes its routes."""
        if name == other or self.nodes[other].up:
            return True
        since_ns = self._silent_ns.get(other)
        return since_ns is not None and self._loop.now_ns - since_ns < _STALE_NS

    def went(self, name: str, *, silently: bool) -> None:
        """The process of a node has ended."""
        self._silent_ns.pop(name, None)
        if silently:
            self._silent_ns[name] = self._loop.now_ns
            for way in [way for way in self._held if way[0] == name]:
                del self._held[way]  # a kernel without power sends nothing again
        self.on_change()

    def came(self, name: str) -> None:
        """A node runs again."""
        self._silent_ns.pop(name, None)
        self.on_change()
