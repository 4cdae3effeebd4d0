"""Commands on keys of any kind, and on strings."""

import re

from hookbench.sim.redis.arguments import NOT_AN_INTEGER, number_of, syntax_error
from hookbench.sim.redis.database import Database, ListValue, SortedSet
from hookbench.sim.redis.registry import command
from hookbench.sim.redis.replies import OK, CommandError, Reply, Status
from hookbench.sim.redis.sets import SetValue
from hookbench.sim.redis.stream_value import StreamValue

__all__: list[str] = []

_MS_PER_S = 1000
_KINDS = {
    bytes: b"string",
    ListValue: b"list",
    dict: b"hash",
    SetValue: b"set",
    SortedSet: b"zset",
    StreamValue: b"stream",
}
_TTL_NONE, _TTL_NO_KEY = -1, -2


@command("GET", 2)
def get(db: Database, words: list[bytes]) -> Reply:
    return db.find(words[1], bytes)


@command("SET", -3, grows=True)
def set_key(db: Database, words: list[bytes]) -> Reply:
    expires_ms, only, rest = None, b"", list(words[3:])
    while rest:
        option = rest.pop(0).upper()
        if option in (b"NX", b"XX") and only in (b"", option):
            only = option
        elif option in (b"PX", b"EX") and rest and expires_ms is None:
            amount = number_of(rest.pop(0))
            if amount <= 0:
                raise CommandError("ERR invalid expire time in 'set' command")
            expires_ms = db.now_ms + amount * (_MS_PER_S if option == b"EX" else 1)
        else:
            raise syntax_error()
    there = db.any_of(words[1]) is not None
    if (only == b"NX" and there) or (only == b"XX" and not there):
        return None
    db.put(words[1], words[2], expires_ms=expires_ms)
    return OK


@command("INCR", 2, grows=True)
def incr(db: Database, words: list[bytes]) -> Reply:
    text = db.find(words[1], bytes)
    value = number_of(b"0" if text is None else text) + 1
    db.put(words[1], b"%d" % value, expires_ms=db.expiry_ms(words[1]))
    return value


@command("DEL", -2, writes=True)
def delete(db: Database, words: list[bytes]) -> Reply:
    return sum(db.any_of(key) is not None and db.remove(key) for key in words[1:])


@command("EXISTS", -2)
def exists(db: Database, words: list[bytes]) -> Reply:
    return sum(db.any_of(key) is not None for key in words[1:])


@command("TYPE", 2)
def kind_of(db: Database, words: list[bytes]) -> Reply:
    value = db.any_of(words[1])
    return Status(b"none" if value is None else _KINDS[type(value)])


@command("PEXPIRE", 3, writes=True)
def pexpire(db: Database, words: list[bytes]) -> Reply:
    return _expire(db, words[1], number_of(words[2]))


@command("EXPIRE", 3, writes=True)
def expire(db: Database, words: list[bytes]) -> Reply:
    return _expire(db, words[1], number_of(words[2]) * _MS_PER_S)


def _expire(db: Database, key: bytes, after_ms: int) -> int:
    if db.any_of(key) is None:
        return 0
    db.expire_at(key, db.now_ms + after_ms)
    return 1


@command("PTTL", 2)
def pttl(db: Database, words: list[bytes]) -> Reply:
    if db.any_of(words[1]) is None:
        return _TTL_NO_KEY
    due_ms = db.expiry_ms(words[1])
    return _TTL_NONE if due_ms is None else due_ms - db.now_ms


@command("KEYS", 2)
def find_keys(db: Database, words: list[bytes]) -> Reply:
    pattern = glob_pattern(words[1])
    return [key for key in db.all_keys() if pattern.fullmatch(key)]


@command("SCAN", -2)
def scan(db: Database, words: list[bytes]) -> Reply:
    """All at once: a cursor of a real server comes back with a part, and may name a key twice."""
    number_of(words[1], "ERR invalid cursor")
    pattern, kind, rest = glob_pattern(b"*"), None, list(words[2:])
    while rest:
        option = rest.pop(0).upper()
        if not rest:
            raise syntax_error()
        value = rest.pop(0)
        if option == b"MATCH":
            pattern = glob_pattern(value)
        elif option == b"COUNT":
            if number_of(value, NOT_AN_INTEGER) < 1:
                raise syntax_error()
        elif option == b"TYPE":
            kind = value
        else:
            raise syntax_error()
    found = [key for key in db.all_keys() if pattern.fullmatch(key)]
    if kind is not None:
        found = [key for key in found if _KINDS[type(db.any_of(key))] == kind]
    return [b"0", found]


@command("DBSIZE", 1)
def dbsize(db: Database, _words: list[bytes]) -> Reply:
    return len(db.all_keys())


@command("TIME", 1)
def time(db: Database, _words: list[bytes]) -> Reply:
    return [b"%d" % (db.now_us // 1_000_000), b"%d" % (db.now_us % 1_000_000)]


def glob_pattern(glob: bytes) -> "re.Pattern[bytes]":
    """A pattern of Redis: ``*``, ``?``, sets, and a backslash before what is meant."""
    out, at = [], 0
    while at < len(glob):
        char = glob[at : at + 1]
        at += 1
        if char == b"*":
            out.append(b".*")
        elif char == b"?":
            out.append(b".")
        elif char == b"\\" and at < len(glob):
            out.append(re.escape(glob[at : at + 1]))
            at += 1
        elif char == b"[" and b"]" in glob[at:]:
            end = glob.index(b"]", at)
            inner = glob[at:end].replace(b"\\", b"\\\\")
            out.append(b"[" + inner + b"]")
            at = end + 1
        else:
            out.append(re.escape(char))
    return re.compile(b"".join(out), re.DOTALL)
