"""Commands on hashes."""

from hookbench.sim.redis.arguments import number_of
from hookbench.sim.redis.database import Database
from hookbench.sim.redis.registry import command
from hookbench.sim.redis.replies import CommandError, Reply

__all__: list[str] = []


@command("HGET", 3)
def hget(db: Database, words: list[bytes]) -> Reply:
    return _find(db, words[1]).get(words[2])


@command("HSET", -4, grows=True)
def hset(db: Database, words: list[bytes]) -> Reply:
    if len(words) % 2:
        raise CommandError("ERR wrong number of arguments for 'hset' command")
    fields: dict[bytes, bytes] = db.find_or_make(words[1], dict)
    before = len(fields)
    fields.update(zip(words[2::2], words[3::2], strict=True))
    db.dirty += (len(words) - 2) // 2
    return len(fields) - before


@command("HDEL", -3, writes=True)
def hdel(db: Database, words: list[bytes]) -> Reply:
    fields: dict[bytes, bytes] | None = db.find(words[1], dict)
    if fields is None:
        return 0
    gone = sum(fields.pop(field, None) is not None for field in words[2:])
    db.dirty += gone
    db.remove_if_empty(words[1])
    return gone


@command("HGETALL", 2)
def hgetall(db: Database, words: list[bytes]) -> Reply:
    return [item for pair in _find(db, words[1]).items() for item in pair]


@command("HKEYS", 2)
def hkeys(db: Database, words: list[bytes]) -> Reply:
    return list(_find(db, words[1]))


@command("HVALS", 2)
def hvals(db: Database, words: list[bytes]) -> Reply:
    return list(_find(db, words[1]).values())


@command("HLEN", 2)
def hlen(db: Database, words: list[bytes]) -> Reply:
    return len(_find(db, words[1]))


@command("HINCRBY", 4, grows=True)
def hincrby(db: Database, words: list[bytes]) -> Reply:
    amount = number_of(words[3])
    fields: dict[bytes, bytes] = db.find(words[1], dict) or {}
    before = number_of(fields.get(words[2], b"0"), "ERR hash value is not an integer")
    value = before + amount
    if not -(2**63) <= value < 2**63:
        raise CommandError("ERR increment or decrement would overflow")
    db.find_or_make(words[1], dict)[words[2]] = b"%d" % value
    db.dirty += 1
    return value


def _find(db: Database, key: bytes) -> dict[bytes, bytes]:
    return db.find(key, dict) or {}
