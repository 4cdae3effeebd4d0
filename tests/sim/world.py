"""Simulated brokers with the face of the embedded ones, for tests that are written for those."""

import asyncio
import itertools
import random

from hookbench.brokers.durability import Durability
from hookbench.clock import SystemClock
from hookbench.queues import transport
from hookbench.sim.clock import SimulatedClock
from hookbench.sim.nats.client import connect_simulated_nats
from hookbench.sim.nats.server import NatsServer
from hookbench.sim.network import Network
from hookbench.sim.redis.client import connect_simulated_redis
from hookbench.sim.redis.log import survivors
from hookbench.sim.redis.scripts import ScriptEngine
from hookbench.sim.redis.server import RedisServer
from hookbench.sim.redis.settings import Persistence, RedisSettings

PERSISTENCE = {
    Durability.MEMORY: Persistence.NONE,
    Durability.LAZY: Persistence.EVERYSEC,
    Durability.FSYNC: Persistence.ALWAYS,
}


class World:
    """One network, in the loop of the test."""

    def __init__(self, engine=None, seed=7):
        self.loop = asyncio.get_running_loop()
        self.network = Network(self.loop, random.Random(seed))
        self.engine = engine or ScriptEngine()
        self.clock = SimulatedClock(self.loop)
        self._numbers = itertools.count()
        self._entropy = random.Random(seed)

    def patch(self, monkeypatch, *modules):
        """Let modules connect here, and code that was given no clock look at virtual time."""
        monkeypatch.setattr(SystemClock, "monotonic_ns", lambda _self: self.clock.monotonic_ns())
        monkeypatch.setattr(SystemClock, "wall_ns", lambda _self: self.clock.wall_ns())
        monkeypatch.setattr(transport, "connect_client", self.connect_client)
        for module in modules:
            for name, own in [
                ("start_nats", self.start_nats),
                ("resolve_nats", lambda **_options: None),
                ("connect_redis", self.connect_redis),
                ("start_redis", self.start_redis),
                ("resolve_redis", lambda **_options: None),
            ]:
                if hasattr(module, name):
                    monkeypatch.setattr(module, name, own)

    def connect_redis(self, url, *, pipelined=True, **options):  # noqa: ARG002 - see below
        """Each command has a connection to itself: what shares one is below the simulation."""
        node = url.partition("://")[2].partition("/")[0].partition("?")[0]
        return connect_simulated_redis(
            self.network, f"client-{next(self._numbers)}", [node], **options
        )

    async def connect_client(self, servers, **options):
        urls = [servers] if isinstance(servers, str) else servers
        name = f"client-{next(self._numbers)}"
        return await connect_simulated_nats(
            self.network, name, urls, entropy=self._entropy, **options
        )

    def start_nats(self, _resolved=None, _folder=None, durability=Durability.MEMORY):
        return SimulatedNatsBroker(self, f"nats-{next(self._numbers)}:4222", durability)

    def start_redis(self, _resolved=None, _folder=None, durability=Durability.MEMORY):
        return SimulatedRedisBroker(self, f"redis-{next(self._numbers)}:6379", durability)


class SimulatedRedisBroker:
    """As ``EmbeddedBroker``."""

    kind = name = "redis"

    def __init__(self, world, node, durability):
        self.durability = durability
        self.url = f"redis://{node}"
        self._world = world
        self._node = world.network.node(node)
        self._settings = RedisSettings(persistence=PERSISTENCE[durability])
        self._log = []
        self.restart()

    @property
    def server(self):
        return self._node.server

    def kill(self):
        log = self.server.log
        self._log = log[: survivors(log, self._settings.persistence, cut_us=None)]
        self._node.kill()

    def stop(self):
        if self._node.up:
            self.kill()

    def restart(self):
        world = self._world
        self._node.start(
            RedisServer(
                world.loop, self._node, world.engine, settings=self._settings, log=self._log
            )
        )

    def pause(self):
        self._node.stop()

    def resume(self):
        self._node.resume()


class SimulatedNatsBroker:
    """As ``EmbeddedBroker``."""

    kind = name = "nats"

    def __init__(self, world, node, durability):
        self.durability = durability
        self.url = f"nats://{node}"
        self._world = world
        self._node = world.network.node(node)
        self._before = None
        self.restart()

    @property
    def server(self):
        return self._node.server

    def kill(self):
        self._before = self.server
        self._node.kill()

    def stop(self):
        if self._node.up:
            self.kill()

    def restart(self):
        self._node.start(NatsServer(self._world.loop, self._node, before=self._before))

    def pause(self):
        self._node.stop()

    def resume(self):
        self._node.resume()
