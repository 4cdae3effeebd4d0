"""Commands on lists."""

from itertools import islice

from hookbench.sim.redis.arguments import number_of, slice_of, syntax_error
from hookbench.sim.redis.database import Database, ListValue
from hookbench.sim.redis.registry import command
from hookbench.sim.redis.replies import OK, CommandError, Reply

__all__ = ["move", "timeout_s"]

_SIDES = (b"LEFT", b"RIGHT")
_TIMEOUT = "ERR timeout is not a float or out of range"


@command("LPUSH", -3, grows=True)
def lpush(db: Database, words: list[bytes]) -> Reply:
    items = db.find_or_make(words[1], ListValue)
    items.extendleft(words[2:])
    return _pushed(db, words, items)


@command("RPUSH", -3, grows=True)
def rpush(db: Database, words: list[bytes]) -> Reply:
    items = db.find_or_make(words[1], ListValue)
    items.extend(words[2:])
    return _pushed(db, words, items)


def _pushed(db: Database, words: list[bytes], items: ListValue) -> int:
    db.dirty += len(words) - 2
    db.touched.append(words[1])
    return len(items)


@command("LLEN", 2)
def llen(db: Database, words: list[bytes]) -> Reply:
    return len(db.find(words[1], ListValue) or ())


@command("LRANGE", 4)
def lrange(db: Database, words: list[bytes]) -> Reply:
    start, stop = number_of(words[2]), number_of(words[3])
    items = db.find(words[1], ListValue)
    if items is None:
        return []
    wanted = slice_of(start, stop, len(items))
    if len(wanted) < len(items) // 2 and wanted.start > len(items) // 2:
        end = len(items) - wanted.stop  # nearer from the tail, where a deque also is at once
        return list(islice(reversed(items), end, end + len(wanted)))[::-1]
    return list(islice(items, wanted.start, wanted.stop)) if len(wanted) else []


@command("LINDEX", 3)
def lindex(db: Database, words: list[bytes]) -> Reply:
    index = number_of(words[2])
    items = db.find(words[1], ListValue)
    if items is None or not -len(items) <= index < len(items):
        return None
    return items[index]


@command("LSET", 4, grows=True)
def lset(db: Database, words: list[bytes]) -> Reply:
    items = db.find(words[1], ListValue)
    if items is None:
        raise CommandError("ERR no such key")
    index = number_of(words[2])
    if not -len(items) <= index < len(items):
        raise CommandError("ERR index out of range")
    items[index] = words[3]
    db.dirty += 1
    return OK


@command("LREM", 4, writes=True)
def lrem(db: Database, words: list[bytes]) -> Reply:
    count = number_of(words[2])
    items = db.find(words[1], ListValue)
    if items is None:
        return 0
    places = [place for place, item in enumerate(items) if item == words[3]]
    if count > 0:
        places = places[:count]
    elif count < 0:
        places = places[count:]
    for place in reversed(places):
        del items[place]
    db.dirty += len(places)
    db.remove_if_empty(words[1])
    return len(places)


@command("LPOS", -3)
def lpos(db: Database, words: list[bytes]) -> Reply:
    most = None
    if len(words) > 3:  # noqa: PLR2004 - LPOS key element
        if [word.upper() for word in words[3::2]] != [b"MAXLEN"] or len(words) != 5:  # noqa: PLR2004
            raise syntax_error()
        most = number_of(words[4]) or None
    items = db.find(words[1], ListValue) or ()
    for place, item in enumerate(islice(items, most)):
        if item == words[2]:
            return place
    return None


@command("LMOVE", 5, grows=True)
def lmove(db: Database, words: list[bytes]) -> Reply:
    sides = [word.upper() for word in words[3:5]]
    if not all(side in _SIDES for side in sides):
        raise syntax_error()
    return move(db, words[1], words[2], sides[0], sides[1])


@command("BLMOVE", 6, grows=True)
def blmove(db: Database, words: list[bytes]) -> Reply:
    """As it is where nothing can wait: in a transaction or a script. See ``blocking``."""
    timeout_s(words[5])
    return lmove(db, words[:5])


def timeout_s(text: bytes) -> float:
    """The wait of a blocking command; 0 is for ever."""
    try:
        value = float(text)
    except ValueError:
        raise CommandError(_TIMEOUT) from None
    if value < 0:
        raise CommandError("ERR timeout is negative")
    return value


def move(db: Database, source: bytes, target: bytes, taken: bytes, put: bytes) -> bytes | None:
    """Take an element from one end of a list and put it to one end of another."""
    items = db.find(source, ListValue)
    if not items:
        return None
    goal = db.find_or_make(target, ListValue)
    value = items.popleft() if taken == b"LEFT" else items.pop()
    if put == b"LEFT":
        goal.appendleft(value)
    else:
        goal.append(value)
    db.remove_if_empty(source)
    db.dirty += 1
    db.touched.append(target)
    return value
