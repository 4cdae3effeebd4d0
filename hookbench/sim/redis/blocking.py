"""Clients that wait on the server: who came first is served first."""

from collections.abc import Callable
from typing import Any

from hookbench.sim.redis.groups import parse_xreadgroup
from hookbench.sim.redis.lists import timeout_s
from hookbench.sim.redis.replies import CommandError, Reply

__all__ = ["Waiter", "Waiting", "waiter_of"]

_NS_PER_S = 1_000_000_000
_NS_PER_MS = 1_000_000


class Waiter:
    """A command that waits.

    Attributes:
        keys: a change of which wakes it.
        wait_ns: how long at most; 0 for ever.
        words: the command, tried again when it is woken; nil is nothing yet.
        finish: gets the reply.
        timer: ends the wait.
        is_over: it waits no more.
    """

    __slots__ = ("finish", "is_over", "keys", "timer", "wait_ns", "words")

    def __init__(self, keys: list[bytes], wait_ns: int, words: list[bytes]) -> None:
        self.keys = keys
        self.wait_ns = wait_ns
        self.words = words
        self.finish: Callable[[Reply], None] = lambda _reply: None
        self.timer: Any = None
        self.is_over = False


def waiter_of(words: list[bytes]) -> Waiter | None:
    """What a command would wait for; ``None`` for one that never waits.

    Raises:
        CommandError: its arguments do not fit.
    """
    name = words[0].upper()
    if name == b"BLMOVE" and len(words) == 6:  # noqa: PLR2004 - BLMOVE source target side side wait
        return Waiter([words[1]], int(timeout_s(words[5]) * _NS_PER_S), words)
    if name == b"XREADGROUP":
        asked = parse_xreadgroup(words)
        if asked.block_ms is not None:
            return Waiter(asked.keys, asked.block_ms * _NS_PER_MS, words)
    return None


class Waiting:
    """All who wait, by key and in the order in which they came."""

    def __init__(self) -> None:
        self._by_key: dict[bytes, dict[Waiter, None]] = {}

    def add(self, waiter: Waiter) -> None:
        """Let it wait."""
        for key in waiter.keys:
            self._by_key.setdefault(key, {})[waiter] = None

    def remove(self, waiter: Waiter) -> None:
        """Let it wait no more."""
        waiter.is_over = True
        if waiter.timer is not None:
            waiter.timer.cancel()
        for key in waiter.keys:
            waiters = self._by_key.get(key)
            if waiters is not None:
                waiters.pop(waiter, None)
                if not waiters:
                    del self._by_key[key]

    def serve(self, key: bytes, attempt: Callable[[list[bytes]], Reply]) -> None:
        """Something was added to a key, or it is gone."""
        for waiter in list(self._by_key.get(key, ())):
            try:
                reply = attempt(waiter.words)
            except CommandError as error:
                reply = error
            if reply is None:
                continue
            self.remove(waiter)
            waiter.finish(reply)

    def all(self) -> list[Waiter]:
        """Everybody, once."""
        return list(
            dict.fromkeys(waiter for waiters in self._by_key.values() for waiter in waiters)
        )
