"""One client of a simulated Redis: its requests in order, its transaction, its wait."""

from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec

from hookbench.sim.redis.blocking import Waiter, waiter_of
from hookbench.sim.redis.log import LogEntry
from hookbench.sim.redis.registry import Command, look_up
from hookbench.sim.redis.replies import OK, CommandError, Reply, Status
from hookbench.sim.redis.server_commands import OUT_OF_MEMORY, READ_ONLY, SERVER_COMMANDS

if TYPE_CHECKING:
    from hookbench.sim.connection import Connection
    from hookbench.sim.redis.server import RedisServer

__all__ = ["LATER", "Acknowledge", "FullSync", "RedisSession", "Sync"]

LATER: Reply = object()
"""In the place of a reply: the command waits."""
_QUEUED = Status(b"QUEUED")


class Sync(msgspec.Struct, frozen=True):
    """A replica asks for everything, and for what comes."""


class FullSync(msgspec.Struct, frozen=True):
    """Everything, as the log that leads to it."""

    log: list[LogEntry]


class Acknowledge(msgspec.Struct, frozen=True):
    """A replica has everything up to an offset."""

    offset: int


class RedisSession:
    """The server's side of a connection.

    Attributes:
        offset: where the log ended with this client's last write: what WAIT waits for.
    """

    def __init__(self, server: "RedisServer", connection: "Connection") -> None:
        self.server = server
        self.offset = 0
        self._connection = connection
        self._inbox: deque[list[bytes]] = deque()
        self._waiter: Waiter | None = None
        self._wanted_replicas = 0
        self._queued: list[list[bytes]] | None = None
        self._spoilt = False
        self._closed = False

    def on_message(self, message: Any) -> None:
        """Commands of a client, or a word of a replica."""
        if isinstance(message, Sync):
            self.server.add_replica(self)
            self._connection.answer(FullSync(list(self.server.log)))
        elif isinstance(message, Acknowledge):
            self.server.acknowledge(self, message.offset)
        else:
            self._inbox.extend(message)
            self._work()

    def on_closed(self) -> None:
        """What it waits for is called off."""
        self._closed = True
        self._inbox.clear()
        if self._waiter is not None:
            self.server.waiting.remove(self._waiter)
        self.server.drop(self)

    def replicate(self, entry: LogEntry) -> None:
        """To a replica: something happened."""
        self._connection.answer(entry)

    def wait(self, waiter: Waiter) -> Reply:
        """Deal with nothing more until the waiter has its reply."""
        self._waiter = waiter
        waiter.finish = self._finish
        return LATER

    def wait_for_replicas(self, count: int, timeout_ms: int) -> Reply:
        """WAIT: answers when so many replicas have this client's last write, or in the end."""
        had_it = self.server.replicas_at(self.offset)
        if had_it >= count:
            return had_it
        waiter = Waiter([], timeout_ms * 1_000_000, [])
        self._wanted_replicas = count
        self.server.wait_for(waiter)
        return self.wait(waiter)

    def look_at_replicas(self) -> None:
        """A replica has told how far it is."""
        waiter, wanted = self._waiter, self._wanted_replicas
        if waiter is not None and wanted and self.server.replicas_at(self.offset) >= wanted:
            self.server.waiting.remove(waiter)
            self._finish(None)

    def _finish(self, reply: Reply) -> None:
        self._waiter = None
        if self._wanted_replicas:
            self._wanted_replicas = 0
            reply = self.server.replicas_at(self.offset)
        elif reply is not None:
            self.offset = len(self.server.log) + 1  # what it did is logged right behind this
        if not self._closed:
            self._connection.answer([reply])
            self.server.after(0, self._work)

    def _work(self) -> None:
        replies = []
        while self._inbox and self._waiter is None and not self._closed:
            reply = self._answer(self._inbox.popleft())
            if reply is not LATER:
                replies.append(reply)
        if replies:
            self._connection.answer(replies)

    def _answer(self, words: list[bytes]) -> Reply:
        """The reply to one command; its error is one too."""
        server = self.server
        server.begin_request()
        before = len(server.log)
        try:
            return self._execute(words)
        except CommandError as error:
            return error
        finally:
            server.end_request()
            if len(server.log) != before:
                self.offset = len(server.log)

    def _execute(self, words: list[bytes]) -> Reply:
        name = words[0].upper()
        if name == b"MULTI":
            self._queued, self._spoilt = [], False
            return OK
        if name == b"DISCARD":
            self._queued = None
            return OK
        if name == b"EXEC":
            return self._run_queued()
        if self._queued is not None:
            self._check(words)
            self._queued.append(words)
            return _QUEUED
        return self.execute_one(words, may_wait=True)

    def _run_queued(self) -> Reply:
        queued, self._queued = self._queued, None
        if queued is None:
            raise CommandError("ERR EXEC without MULTI")
        if self._spoilt:
            raise CommandError("EXECABORT Transaction discarded because of previous errors.")
        replies = []
        for words in queued:
            try:
                replies.append(self.execute_one(words, may_wait=False))
            except CommandError as error:
                replies.append(error)
        return replies

    def _check(self, words: list[bytes]) -> None:
        """What is wrong with a command of a transaction spoils it as a whole."""
        try:
            if words[0].upper() not in SERVER_COMMANDS:
                self._may(look_up(words))
        except CommandError:
            self._spoilt = True
            raise

    def execute_one(self, words: list[bytes], *, may_wait: bool) -> Reply:
        """Carry out one command, as a client's own one."""
        own = SERVER_COMMANDS.get(words[0].upper())
        if own is not None:
            return own(self, words, may_wait)
        command = look_up(words)
        self._may(command)
        reply = self.server.run(command, words)
        if reply is None and may_wait:
            waiter = waiter_of(words)
            if waiter is not None:
                self.server.wait_for(waiter)
                return self.wait(waiter)
        return reply

    def _may(self, command: Command) -> None:
        """Whether it is allowed now.

        Raises:
            CommandError: it writes on a replica, or grows where there is no room.
        """
        if command.writes and not self.server.is_master:
            raise CommandError(READ_ONLY)
        if command.grows and self.server.is_full():
            raise CommandError(OUT_OF_MEMORY)
