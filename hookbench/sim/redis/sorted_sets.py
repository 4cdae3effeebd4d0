"""Commands on sorted sets."""

import math

from hookbench.sim.redis.arguments import number_of, score_of, score_text, slice_of, syntax_error
from hookbench.sim.redis.database import Database, SortedSet
from hookbench.sim.redis.registry import command
from hookbench.sim.redis.replies import CommandError, Reply

__all__: list[str] = []


@command("ZADD", -4, grows=True)
def zadd(db: Database, words: list[bytes]) -> Reply:
    if len(words) % 2:
        raise syntax_error()
    pairs = []
    for text, member in zip(words[2::2], words[3::2], strict=True):
        try:
            score = float(text)
        except ValueError:
            raise CommandError("ERR value is not a valid float") from None
        if math.isnan(score):
            raise CommandError("ERR value is not a valid float")
        pairs.append((member, score))
    scores = db.find_or_make(words[1], SortedSet)
    before = len(scores)
    changed = sum(scores.get(member) != score for member, score in pairs)
    scores.update(pairs)
    db.dirty += changed
    return len(scores) - before


@command("ZREM", -3, writes=True)
def zrem(db: Database, words: list[bytes]) -> Reply:
    scores = db.find(words[1], SortedSet)
    if scores is None:
        return 0
    gone = sum(scores.pop(member, None) is not None for member in words[2:])
    db.dirty += gone
    db.remove_if_empty(words[1])
    return gone


@command("ZSCORE", 3)
def zscore(db: Database, words: list[bytes]) -> Reply:
    scores = db.find(words[1], SortedSet)
    score = None if scores is None else scores.get(words[2])
    return None if score is None else score_text(score)


@command("ZCARD", 2)
def zcard(db: Database, words: list[bytes]) -> Reply:
    return len(db.find(words[1], SortedSet) or ())


@command("ZRANGE", -4)
def zrange(db: Database, words: list[bytes]) -> Reply:
    """By rank alone, with or without scores."""
    start, stop = number_of(words[2]), number_of(words[3])
    options = [word.upper() for word in words[4:]]
    if options not in ([], [b"WITHSCORES"]):
        raise syntax_error()
    scores = db.find(words[1], SortedSet)
    if scores is None:
        return []
    items = scores.in_order()
    found = [items[place] for place in slice_of(start, stop, len(items))]
    return _told(found, with_scores=bool(options))


@command("ZRANGEBYSCORE", -4)
def zrangebyscore(db: Database, words: list[bytes]) -> Reply:
    rest = [*words[4:]]
    offset, count, with_scores = 0, -1, False
    while rest:
        option = rest.pop(0).upper()
        if option == b"WITHSCORES":
            with_scores = True
        elif option == b"LIMIT" and len(rest) > 1:
            offset, count = number_of(rest.pop(0)), number_of(rest.pop(0))
        else:
            raise syntax_error()
    found = _by_score(db, words)
    found = found[offset:] if count < 0 else found[offset : offset + count]
    return _told(found if offset >= 0 else [], with_scores=with_scores)


@command("ZCOUNT", 4)
def zcount(db: Database, words: list[bytes]) -> Reply:
    return len(_by_score(db, words))


def _by_score(db: Database, words: list[bytes]) -> list[tuple[float, bytes]]:
    least, above = score_of(words[2])
    most, below = score_of(words[3])
    scores = db.find(words[1], SortedSet)
    if scores is None:
        return []
    return [
        (score, member)
        for score, member in scores.in_order()
        if (score > least or (score == least and not above))
        and (score < most or (score == most and not below))
    ]


def _told(found: list[tuple[float, bytes]], *, with_scores: bool) -> list[bytes]:
    if not with_scores:
        return [member for _score, member in found]
    return [item for score, member in found for item in (member, score_text(score))]
