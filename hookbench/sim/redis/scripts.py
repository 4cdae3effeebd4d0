"""Runs the Lua scripts of the queues as they are, in the Lua 5.1 that Redis has.

The interpreter is lupa's (https://pypi.org/project/lupa/): the scripts need no twin in Python that
could differ from them. What is Redis' own, ``redis.call`` and the conversions, follows
https://redis.io/docs/latest/develop/programmability/lua-api/. ``cjson`` and the like are left out,
for no script here uses them; a script that does fails as one that reads an unknown global.
"""

import hashlib
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
from lupa import lua51

from hookbench.sim.redis.replies import CommandError, Reply, Status

__all__ = ["Caller", "Script", "ScriptEngine", "parse_script"]

# No script may leave anything behind for the next one, or read what is not there.
_GUARD = b"""
setmetatable(_G, {
  __newindex = function(_, name) error('Attempt to modify a readonly table: ' .. name, 0) end,
  __index = function(_, name)
    error('Script attempted to access nonexistent global variable \\'' .. name .. '\\'', 0)
  end
})
os, io, package, require, dofile, loadfile, print = nil
"""
_FLAGS = {"allow-oom", "no-writes", "allow-stale", "no-cluster", "allow-cross-slot-keys"}


class Caller(Protocol):
    """Carries out what a script calls."""

    def call(self, words: list[bytes]) -> Reply:
        """One command.

        Raises:
            CommandError: what it answered.
        """
        ...


class Script(msgspec.Struct, frozen=True):
    """A script that was compiled.

    Attributes:
        digest: SHA-1 of its text.
        declares: it begins with ``#!lua``, so its flags count; else each command is looked at.
        flags: such as ``allow-oom``.
    """

    digest: str
    declares: bool
    flags: frozenset[str]
    run: Any


class ScriptEngine:
    """One Lua state; it may serve any number of simulated servers, one call at a time."""

    def __init__(self) -> None:
        self._lua = lua51.LuaRuntime(encoding=None, register_eval=False, register_builtins=False)
        self._scripts: dict[bytes, Script] = {}
        self._caller: Caller | None = None
        self._table = self._lua.table_from
        redis = {
            b"call": self._call,
            b"pcall": self._pcall,
            b"sha1hex": lambda data: (
                hashlib.sha1(_word(data), usedforsecurity=False).hexdigest().encode()
            ),
            b"error_reply": lambda text: self._table({b"err": text}),
            b"status_reply": lambda text: self._table({b"ok": text}),
        }
        self._lua.globals()[b"redis"] = self._table(redis)
        self._lua.globals()[b"python"] = None
        self._lua.execute(_GUARD)

    def compile(self, text: bytes) -> Script:
        """A script, compiled once.

        Raises:
            CommandError: it does not compile, or has a flag that is none.
        """
        found = self._scripts.get(text)
        if found is None:
            found = self._scripts[text] = self._compile(text)
        return found

    def _compile(self, text: bytes) -> Script:
        declares, flags, body = parse_script(text)
        try:
            run = self._lua.execute(b"return function(KEYS, ARGV) " + body + b"\nend")
        except lua51.LuaSyntaxError as error:
            raise CommandError(f"ERR Error compiling script (new function): {error}") from error
        digest = hashlib.sha1(text, usedforsecurity=False).hexdigest()
        return Script(digest, declares, flags, run)

    def run(self, script: Script, keys: list[bytes], arguments: list[bytes], by: Caller) -> Reply:
        """What a script returns, as a reply.

        Raises:
            CommandError: it failed, or returned an error.
        """
        before, self._caller = self._caller, by
        try:
            found = script.run(self._table(keys), self._table(arguments))
        except CommandError as error:
            raise CommandError(f"{error.text} script: {script.digest}, on @user_script.") from error
        except lua51.LuaError as error:
            raise CommandError(f"ERR {error} script: {script.digest}, on @user_script.") from error
        finally:
            self._caller = before
        reply = _reply_of(found)
        if isinstance(reply, CommandError):
            raise reply
        return reply

    def _call(self, *words: Any) -> Any:
        if self._caller is None:
            raise CommandError("ERR redis.call outside of a script")
        plain = [word if type(word) is bytes else _word(word) for word in words]
        return self._lua_of(self._caller.call(plain))

    def _pcall(self, *words: Any) -> Any:
        try:
            return self._call(*words)
        except CommandError as error:
            return self._table({b"err": error.text.encode()})

    def _lua_of(self, reply: Reply) -> Any:
        if type(reply) is bytes:  # and no Status
            return reply
        if reply is None:
            return False
        if isinstance(reply, Status):
            return self._table({b"ok": bytes(reply)})
        if isinstance(reply, list):
            return self._table([self._lua_of(item) for item in reply])
        return reply


def parse_script(text: bytes) -> tuple[bool, frozenset[str], bytes]:
    """Whether it has a first line with flags, those, and the rest.

    Raises:
        CommandError: a flag is none.
    """
    if not text.startswith(b"#!"):
        return False, frozenset(), text
    first, _, body = text.partition(b"\n")
    flags: set[str] = set()
    for word in first.decode().split()[1:]:
        name, _, value = word.partition("=")
        if name != "flags":
            raise CommandError(f"ERR Unknown lua shebang option: {word}")
        flags.update(value.split(","))
    if flags - _FLAGS:
        raise CommandError(f"ERR Unexpected flag in script shebang: {min(flags - _FLAGS)}")
    return True, frozenset(flags), b"\n" + body


def _word(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return b"%d" % value if value == int(value) else b"%.17g" % value
    raise CommandError("ERR Lua redis lib command arguments must be strings or integers")


def _reply_of(value: Any) -> Reply:
    """As Redis converts what a script returns: numbers are cut, a table ends at its first nil."""
    if value is None or value is False:
        return None
    if value is True:
        return 1
    if isinstance(value, float):
        return int(value)
    if isinstance(value, bytes | int):
        return value
    if not isinstance(value, _Table):
        raise CommandError(f"ERR a script returned a {type(value).__name__}")
    for name, kind in _SINGLE.items():
        text = value[name]
        if text is not None:
            return kind(text)
    items = []
    for place in range(1, len(value) + 1):
        item = value[place]
        if item is None:
            break
        items.append(item if type(item) is bytes else _reply_of(item))
    return items


_Table: Any = type(lua51.LuaRuntime(encoding=None).table())
_SINGLE: dict[bytes, Callable[[bytes], Reply]] = {
    b"err": lambda text: CommandError(text.decode()),
    b"ok": Status,
}
