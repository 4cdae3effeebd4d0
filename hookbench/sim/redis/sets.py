"""Commands on sets, which keep the order in which members came."""

from hookbench.sim.redis.database import Database
from hookbench.sim.redis.registry import command
from hookbench.sim.redis.replies import Reply

__all__ = ["SetValue"]


class SetValue(dict[bytes, None]):
    """Members; a Python set of bytes would iterate in an order of PYTHONHASHSEED."""


@command("SADD", -3, grows=True)
def sadd(db: Database, words: list[bytes]) -> Reply:
    members = db.find_or_make(words[1], SetValue)
    before = len(members)
    members.update(dict.fromkeys(words[2:]))
    db.dirty += len(members) - before
    return len(members) - before


@command("SREM", -3, writes=True)
def srem(db: Database, words: list[bytes]) -> Reply:
    members = db.find(words[1], SetValue)
    if members is None:
        return 0
    before = len(members)
    for member in words[2:]:
        members.pop(member, None)
    gone = before - len(members)
    db.dirty += gone
    db.remove_if_empty(words[1])
    return gone


@command("SMEMBERS", 2)
def smembers(db: Database, words: list[bytes]) -> Reply:
    return list(db.find(words[1], SetValue) or ())


@command("SISMEMBER", 3)
def sismember(db: Database, words: list[bytes]) -> Reply:
    return int(words[2] in (db.find(words[1], SetValue) or ()))


@command("SCARD", 2)
def scard(db: Database, words: list[bytes]) -> Reply:
    return len(db.find(words[1], SetValue) or ())
