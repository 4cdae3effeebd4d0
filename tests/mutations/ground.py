"""What a scenario runs on: this machine, or virtual time and a simulated network."""

import asyncio
import contextlib
import json
import random
import sys
from pathlib import Path

import msgspec

from hookbench.brokers.durability import Durability
from hookbench.clock import SystemClock
from hookbench.ids import system_entropy
from hookbench.migration.outbox_file import LOCAL_DISK
from hookbench.queues.dialing import NETWORK
from hookbench.sim.brokers import REDIS, RedisBroker, open_nats
from hookbench.sim.clock import SimulatedClock
from hookbench.sim.connection import Direction
from hookbench.sim.dialer import SimulatedDialer
from hookbench.sim.disk import SimulatedDisk
from hookbench.sim.frame_rule import FrameRule
from hookbench.sim.network import Delays, Network
from hookbench.sim.wire_rules import WireAction
from hookbench.task import Names
from tests.mutations.wire import Wire

__all__ = ["CLAIM_S", "IN_HAND", "PRODUCER", "SimulatedGround", "ThisMachine"]

PRODUCER = "producer"
"""The client that puts tasks: a wire that fails is its."""
CLAIM_S = 4.0
"""Of the worker that is killed; longer than AckWait: the task is delivered again while the dead
worker's claim still holds."""
IN_HAND = b"in hand\n"
_ROOT = Path(__file__).parents[2]
_IN_HAND_WITHIN_S = 30.0
_TICK_NS = 100_000
"""So that several tasks may come to a worker at once, as they do from a real broker."""
_HELD_S = 0.001
"""A worker with a task in hand is killed so much later: what it said before has left by then."""


class ThisMachine:
    """Real time, real connections, a real disk."""

    clock = SystemClock()
    disk = LOCAL_DISK
    wire = staticmethod(Wire)

    def dialer(self, _client):
        """Of a process, by its name."""
        return NETWORK

    def entropy(self, _what):
        """For what is drawn."""
        return system_entropy()

    async def kill_in_hand(self, scene, measures):
        """Start a worker in a process of its own, and kill it when it has a task in hand."""
        settings = {
            "redis_url": scene.redis_url,
            "nats_url": scene.nats_url,
            "names": msgspec.to_builtins(scene.names),
            "folder": str(scene.folder),
            "mutation": scene.mutation,
            "measures": measures.text,
        }
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "tests.mutations.child", json.dumps(settings)),
            cwd=_ROOT,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(_IN_HAND_WITHIN_S):
                assert await child.stdout.readline() == IN_HAND
            child.kill()
        finally:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()


class _PassingClock(SimulatedClock):
    """No two readings are the same: in virtual time code takes none, and records have an order."""

    def __init__(self, loop):
        super().__init__(loop)
        self._last_ns = 0

    def monotonic_ns(self):
        self._last_ns = max(self._last_ns + 1, super().monotonic_ns())
        return self._last_ns


class SimulatedGround:
    """Virtual time and simulated brokers, which write nothing to any disk.

    Args:
        loop: of the run.
        seed: of everything that is drawn: delays of the network, inboxes, owners of work lists.
        engine: runs the scripts of Redis; it may serve many runs.
    """

    def __init__(self, loop, seed, engine):
        self._seed = seed
        self._loop = loop
        self.clock = _PassingClock(loop)
        self.network = Network(loop, self.entropy("network"), delays=Delays(tick_ns=_TICK_NS))
        self.disk = SimulatedDisk(self.clock, self.entropy("disk"))
        self.redis = RedisBroker(loop, self.network, engine, Durability.MEMORY)
        self.nats = open_nats(
            loop, self.network, Durability.MEMORY, Names().stream, self.entropy("nats")
        )

    def dialer(self, client):
        """See ``ThisMachine``: each has a link of its own."""
        return SimulatedDialer(self.network, client, self.entropy(f"inboxes of {client}"))

    def entropy(self, what):
        """See ``ThisMachine``."""
        return random.Random(f"{what}:{self._seed}")

    async def kill_in_hand(self, scene, measures):
        """See ``ThisMachine``: the process is a simulated one, which runs no line more."""
        in_hand = self._loop.create_future()

        async def hold(_task, _execution):
            await self.clock.sleep(_HELD_S)
            in_hand.set_result(None)
            await self._loop.create_future()

        async def main():
            options = {"measures": measures, "claim_s": CLAIM_S}
            async with scene.worker(1, service=hold, **options):
                await self._loop.create_future()

        process, task = self._loop.processes.start("worker-1", main, self._loop.create_task)
        async with asyncio.timeout(_IN_HAND_WITHIN_S):
            await asyncio.wait({task, in_hand}, return_when=asyncio.FIRST_COMPLETED)
        assert in_hand.done(), "the worker ended before it had a task in hand"
        self._loop.processes.kill(process)

    @contextlib.asynccontextmanager
    async def wire(self, url, *, drop_commands=0, drop_replies=0):
        """As ``Wire``, on the link of the producer."""
        ways = [Direction.TO_SERVER] * drop_commands + [Direction.TO_CLIENT] * drop_replies
        rules = [
            FrameRule(WireAction.RESET, way, command="LPUSH", then=lambda _met: None)
            for way in ways
        ]
        link = self.network.link(PRODUCER, REDIS)
        link.rules += rules
        try:
            yield _SimulatedWire(url)
        finally:
            link.rules = [rule for rule in link.rules if rule not in rules]


class _SimulatedWire:
    """What is done to a message is done on the link itself, so the URL is that of Redis."""

    def __init__(self, url):
        self.url = url
