"""Commands that are about the server: scripts, replication, configuration."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from hookbench.sim.redis.arguments import number_of
from hookbench.sim.redis.keys import glob_pattern
from hookbench.sim.redis.registry import look_up
from hookbench.sim.redis.replies import OK, CommandError, Reply, Status

if TYPE_CHECKING:
    from hookbench.sim.redis.scripts import Script
    from hookbench.sim.redis.session import RedisSession

__all__ = ["OUT_OF_MEMORY", "READ_ONLY", "SERVER_COMMANDS"]

OUT_OF_MEMORY = "OOM command not allowed when used memory > 'maxmemory'."
READ_ONLY = "READONLY You can't write against a read only replica."


def _ping(_session: "RedisSession", words: list[bytes], _may_wait: bool) -> Reply:
    return words[1] if len(words) > 1 else Status(b"PONG")


def _info(session: "RedisSession", words: list[bytes], _may_wait: bool) -> Reply:
    return session.server.info([word.decode().lower() for word in words[1:]])


def _role(session: "RedisSession", _words: list[bytes], _may_wait: bool) -> Reply:
    server = session.server
    if server.is_master:
        return [b"master", len(server.log), []]
    return [b"slave", b"", 0, b"connected", len(server.log)]


def _wait(session: "RedisSession", words: list[bytes], may_wait: bool) -> Reply:
    if len(words) != 3:  # noqa: PLR2004 - WAIT replicas timeout
        raise CommandError("ERR wrong number of arguments for 'wait' command")
    count, timeout_ms = number_of(words[1]), number_of(words[2])
    if not session.server.is_master:
        raise CommandError(
            "ERR WAIT cannot be used with replica instances. Please also note that writes to"
            " replicas are just local and are not propagated."
        )
    if not may_wait:
        return session.server.replicas_at(session.offset)
    return session.wait_for_replicas(count, timeout_ms)


def _config(session: "RedisSession", words: list[bytes], _may_wait: bool) -> Reply:
    settings = session.server.settings
    verb = words[1].upper()
    if verb == b"GET":
        patterns = [glob_pattern(word) for word in words[2:]]
        return [
            text.encode()
            for name, value in settings.told().items()
            if any(pattern.fullmatch(name.encode()) for pattern in patterns)
            for text in (name, value)
        ]
    if verb == b"SET":
        for name, value in zip(words[2::2], words[3::2], strict=True):
            settings.change(name.decode(), value.decode())
        return OK
    raise CommandError(f"ERR unknown subcommand '{words[1].decode()}'. Try CONFIG HELP.")


def _script(session: "RedisSession", words: list[bytes], _may_wait: bool) -> Reply:
    verb = words[1].upper()
    if verb == b"FLUSH":
        session.server.scripts.clear()
        return OK
    if verb == b"LOAD":
        return _known(session, words[2]).digest.encode()
    if verb == b"EXISTS":
        return [int(word.decode() in session.server.scripts) for word in words[2:]]
    raise CommandError(f"ERR unknown subcommand '{words[1].decode()}'. Try SCRIPT HELP.")


def _eval(session: "RedisSession", words: list[bytes], _may_wait: bool) -> Reply:
    return _run(session, _known(session, words[1]), words)


def _evalsha(session: "RedisSession", words: list[bytes], _may_wait: bool) -> Reply:
    script = session.server.scripts.get(words[1].decode().lower())
    if script is None:
        raise CommandError("NOSCRIPT No matching script. Please use EVAL.")
    return _run(session, script, words)


def _known(session: "RedisSession", text: bytes) -> "Script":
    script = session.server.engine.compile(text)
    session.server.scripts[script.digest] = script
    return script


def _run(session: "RedisSession", script: "Script", words: list[bytes]) -> Reply:
    if len(words) < 3:  # noqa: PLR2004 - EVAL script numkeys
        raise CommandError("ERR wrong number of arguments for 'eval' command")
    count = number_of(words[2])
    if count > len(words) - 3:
        raise CommandError("ERR Number of keys can't be greater than number of args")
    if count < 0:
        raise CommandError("ERR Number of keys can't be negative")
    server = session.server
    full = server.is_full()
    reads_only = "no-writes" in script.flags
    if script.declares:
        if not reads_only and not server.is_master:
            raise CommandError("READONLY Can not run script with write flag on readonly replica.")
        if full and not reads_only and "allow-oom" not in script.flags:
            raise CommandError(
                "OOM allow-oom flag is not set on the script, can not run it when used memory >"
                " 'maxmemory'"
            )
    caller = _Caller(session, full=full and not script.declares, reads_only=reads_only)
    keys, arguments = words[3 : 3 + count], words[3 + count :]
    return server.engine.run(script, keys, arguments, caller)


class _Caller:
    """What a script calls, on behalf of a client.

    Args:
        session: of the client.
        full: there was no room when the script began, and it did not declare that it needs none.
        reads_only: it has declared that it writes nothing.
    """

    def __init__(self, session: "RedisSession", *, full: bool, reads_only: bool) -> None:
        self._session = session
        self._full = full
        self._reads_only = reads_only

    def call(self, words: list[bytes]) -> Reply:
        """One command.

        Raises:
            CommandError: what it answered.
        """
        server = self._session.server
        if words[0].upper() == b"INFO":
            return _info(self._session, words, False)
        command = look_up(words)
        if command.writes:
            if self._reads_only:
                raise CommandError("ERR Write commands are not allowed from read-only scripts.")
            if not server.is_master:
                raise CommandError(READ_ONLY)
            if command.grows and self._full:
                raise CommandError(OUT_OF_MEMORY)
            self._full = False  # one that has begun to write may go on
        return server.run(command, words)


SERVER_COMMANDS: dict[bytes, Callable[["RedisSession", list[bytes], bool], Reply]] = {
    b"CONFIG": _config,
    b"EVAL": _eval,
    b"EVALSHA": _evalsha,
    b"INFO": _info,
    b"PING": _ping,
    b"ROLE": _role,
    b"SCRIPT": _script,
    b"WAIT": _wait,
}
