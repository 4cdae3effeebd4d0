"""The table of commands."""

from collections.abc import Callable
from typing import Any

import msgspec

from hookbench.sim.redis.database import Database
from hookbench.sim.redis.replies import CommandError, Reply

__all__ = ["COMMANDS", "Command", "command", "look_up"]

Run = Callable[[Database, list[bytes]], Reply]


class Command(msgspec.Struct, frozen=True):
    """One command on keys.

    Attributes:
        run: carries it out.
        name: in capitals.
        arity: number of words with the name; negative for at least so many.
        writes: it may change something: refused by a replica, and in a read-only script.
        grows: refused at maxmemory (``denyoom``).
    """

    run: Run
    name: bytes
    arity: int
    writes: bool
    grows: bool


COMMANDS: dict[bytes, Command] = {}


def command(
    name: str, arity: int, *, writes: bool = False, grows: bool = False
) -> Callable[[Run], Run]:
    """Register a command; ``grows`` implies ``writes``."""

    def register(run: Run) -> Run:
        key = name.encode()
        COMMANDS[key] = Command(run, key, arity, writes or grows, grows)
        return run

    return register


def look_up(words: list[bytes]) -> Command:
    """The command of a request.

    Raises:
        CommandError: there is none, or the number of words is wrong.
    """
    name = words[0].upper()
    found = COMMANDS.get(name)
    if found is None:
        told = " ".join(f"'{_text(word)}'" for word in words[1:]) + " " if words[1:] else ""
        raise CommandError(
            f"ERR unknown command '{_text(words[0])}', with args beginning with: {told}"
        )
    if len(words) != found.arity if found.arity > 0 else len(words) < -found.arity:
        raise CommandError(f"ERR wrong number of arguments for '{_text(name.lower())}' command")
    return found


def _text(word: Any) -> str:
    return bytes(word).decode(errors="replace")
