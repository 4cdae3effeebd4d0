"""What a command answers.

A reply is an integer, bytes, ``None`` (nil), a ``Status``, a ``CommandError``, or a list of those.
A command raises its error; in the list of a transaction or a script it stands as a value.
"""

from typing import Any

__all__ = ["OK", "WRONG_TYPE", "CommandError", "Reply", "Status"]

Reply = Any


class Status(bytes):
    """A simple string such as ``+OK``."""

    __slots__ = ()


class CommandError(Exception):
    """An error reply: its text with the code in front, as the server sends it."""

    @property
    def text(self) -> str:
        """``ERR syntax error``, say."""
        return str(self.args[0])


OK = Status(b"OK")
WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"
