"""A simulated Redis server on a node of the network."""

import contextvars
import random
from collections.abc import Callable
from typing import Any

import hookbench.sim.redis.commands  # noqa: F401 - fills the table of commands
from hookbench.sim.clock import SimulatedClock
from hookbench.sim.connection import Connection
from hookbench.sim.loop import SimulatedLoop
from hookbench.sim.network import Node
from hookbench.sim.redis.blocking import Waiter, Waiting
from hookbench.sim.redis.log import LogEntry, apply_entry, rebuild
from hookbench.sim.redis.registry import Command, look_up
from hookbench.sim.redis.replies import CommandError, Reply
from hookbench.sim.redis.scripts import Script, ScriptEngine
from hookbench.sim.redis.session import RedisSession
from hookbench.sim.redis.settings import RedisSettings

__all__ = ["RedisServer"]

_BASE_BYTES = 1_000_000
"""What an empty server takes, about."""
_EVICTIONS_MAX = 10_000


class RedisServer:
    """One server process: a database, who is connected, and the log of what changed.

    Args:
        loop: of the simulation.
        node: where it runs.
        engine: of its scripts; servers may share one.
        settings: its configuration.
        entropy: for evictions.
        log: what was on the disk when it started.
        wall_offset_ns: how far its clock is ahead.

    Attributes:
        log: what its database came from; its length is the replication offset.
        is_master: it takes writes.
        replicas: the offset that each replica has told, by its session.
        evicted: keys, since it was started.
    """

    def __init__(
        self,
        loop: SimulatedLoop,
        node: Node,
        engine: ScriptEngine,
        *,
        settings: RedisSettings | None = None,
        entropy: random.Random | None = None,
        log: list[LogEntry] | None = None,
        wall_offset_ns: int = 0,
    ) -> None:
        self.loop = loop
        self.node = node
        self.engine = engine
        self.settings = settings or RedisSettings()
        self.log = list(log or ())
        self.db = rebuild(self.log)
        self.is_master = True
        self.waiting = Waiting()
        self.scripts: dict[str, Script] = {}
        self.replicas: dict[RedisSession, int] = {}
        self._sessions: dict[RedisSession, None] = {}
        self.clock = SimulatedClock(loop, wall_offset_ns=wall_offset_ns)
        self._entropy = entropy or random.Random(0)
        self._changes: list[tuple[bytes, ...]] = []
        self._context = contextvars.Context()
        self._serving = False
        self.evicted = 0

    def accept(self, connection: Connection) -> RedisSession:
        """Somebody has connected."""
        session = RedisSession(self, connection)
        self._sessions[session] = None
        return session

    def run(self, command: Command, words: list[bytes]) -> Reply:
        """Carry out one command of a request; what it changed goes to the log with the request.

        Raises:
            CommandError: what it answered.
        """
        db = self.db
        before = db.dirty
        try:
            return command.run(db, words)
        finally:
            if db.dirty != before and command.writes:
                self._changes.append(tuple(words))

    def begin_request(self) -> None:
        """A request begins: time is that of its beginning until it ends."""
        now_ns = self.clock.wall_ns()
        self.db.now_us = now_ns // 1000
        self.db.now_ms = now_ns // 1_000_000

    def end_request(self) -> None:
        """Log and replicate what it changed, then serve who waited for that."""
        self._write_log()
        if not self.db.touched or self._serving:
            return
        self._serving = True
        try:
            while self.db.touched:
                touched = list(dict.fromkeys(self.db.touched))
                self.db.touched.clear()
                for key in touched:
                    self.waiting.serve(key, self._attempt)
                    self._write_log()
        finally:
            self._serving = False

    def _attempt(self, words: list[bytes]) -> Reply:
        return self.run(look_up(words), words)

    def _write_log(self) -> None:
        if not self._changes:
            return
        entry = LogEntry(self.db.now_us, tuple(self._changes))
        self._changes.clear()
        self.log.append(entry)
        for replica in list(self.replicas):
            replica.replicate(entry)

    def is_full(self) -> bool:
        """Whether what grows is refused now; keys are evicted first where the policy says so."""
        limit = self.settings.maxmemory_bytes
        if not limit:
            return False
        policy = self.settings.policy
        for _ in range(_EVICTIONS_MAX):
            if self.used_bytes() <= limit:
                return False
            if policy == "noeviction" or not self.db.evict(
                self._entropy, volatile=policy.startswith("volatile")
            ):
                return True
            self.evicted += 1
        return True

    def used_bytes(self) -> int:
        """About what it takes."""
        return _BASE_BYTES + self.db.used_bytes()

    def wait_for(self, waiter: Waiter) -> None:
        """Let a command wait; its ``finish`` gets nil when the time is over."""
        self.waiting.add(waiter)
        self.end_wait_after(waiter, waiter.wait_ns)

    def end_wait_after(self, waiter: Waiter, wait_ns: int) -> None:
        """Set the timer of a waiter, unless it waits for ever."""
        if wait_ns:
            waiter.timer = self.after(wait_ns, lambda: self._expire(waiter))

    def after(self, delay_ns: int, call: Callable[[], None]) -> Any:
        """Call something later, while this server runs; a stopped one does it when it goes on."""

        def due() -> None:
            if self.node.server is not self or not self.node.up:
                return
            if self.node.stopped:
                self.node.waiting.append(due)
            else:
                call()

        return self.loop.call_at_ns(self.loop.now_ns + delay_ns, due, context=self._context)

    def _expire(self, waiter: Waiter) -> None:
        if waiter.is_over:  # served while this stopped server's timers waited for it to go on
            return
        self.waiting.remove(waiter)
        waiter.finish(None)

    def add_replica(self, session: RedisSession) -> None:
        """A replica follows from now on."""
        self.replicas[session] = 0

    def drop(self, session: RedisSession) -> None:
        """A session has ended."""
        self._sessions.pop(session, None)
        self.replicas.pop(session, None)

    def acknowledge(self, replica: RedisSession, offset: int) -> None:
        """A replica has everything up to an offset."""
        if replica in self.replicas:
            self.replicas[replica] = offset
            for session in list(self._sessions):
                session.look_at_replicas()

    def replicas_at(self, offset: int) -> int:
        """How many replicas have told that they have everything up to an offset."""
        return sum(reached >= offset for reached in self.replicas.values())

    def info(self, sections: list[str]) -> bytes:
        """What INFO tells, of the sections that are asked for here."""
        told: dict[str, Callable[[], list[str]]] = {
            "server": lambda: [f"redis_version:{self.settings.version}"],
            "memory": self._memory,
            "stats": lambda: [f"evicted_keys:{self.evicted}"],
            "replication": self._replication,
        }
        wanted = sections or list(told)
        return "".join(
            f"# {name.capitalize()}\r\n" + "".join(f"{line}\r\n" for line in told[name]())
            for name in wanted
            if name in told
        ).encode()

    def _memory(self) -> list[str]:
        return [
            f"used_memory:{self.used_bytes()}",
            f"maxmemory:{self.settings.maxmemory_bytes}",
            f"maxmemory_policy:{self.settings.policy}",
        ]

    def _replication(self) -> list[str]:
        return [
            f"role:{'master' if self.is_master else 'slave'}",
            f"connected_slaves:{len(self.replicas)}",
            *(
                f"slave{number}:ip=127.0.0.1,port=0,state=online,offset={offset},lag=0"
                for number, offset in enumerate(self.replicas.values())
            ),
        ]

    def follow_entry(self, entry: LogEntry) -> None:
        """As a replica: carry out what the master did."""
        apply_entry(self.db, entry)
        self.log.append(entry)
        for replica in list(self.replicas):
            replica.replicate(entry)

    def follow_from_start(self, log: list[LogEntry]) -> None:
        """As a replica: take the whole database of a master."""
        self.log = list(log)
        self.db = rebuild(self.log)

    def fail_waiters(self, error: CommandError) -> None:
        """Answer everybody who waits, as a master does that becomes a replica."""
        for waiter in self.waiting.all():
            self.waiting.remove(waiter)
            waiter.finish(error)
