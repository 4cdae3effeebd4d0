"""Rules: checked when they are added, counted when they match."""

import difflib
import fnmatch
import random
import re
from collections.abc import Iterable
from typing import Any

import msgspec

from hookbench.clock import NS_PER_MS, NS_PER_S, Clock
from hookbench.errors import FaultError
from hookbench.faults.wire.frames import Frame
from hookbench.faults.wire.model import OPAQUE, Hit, Rule, RuleStats
from hookbench.faults.wire.nats_frames import REPLY_VERBS, REQUEST_VERBS
from hookbench.faults.wire.redis_commands import REDIS_COMMANDS

__all__ = ["DIRECTIONS", "LINK_ACTIONS", "ActiveRule", "Pacer", "nearest", "parse_rule"]

MAX_HITS = 200
"""Firings that a rule keeps one by one."""

MAX_KEY_CHARACTERS = 200
"""Of a key or subject in a hit."""

REQUEST, REPLY = "request", "reply"
DIRECTIONS = (REQUEST, REPLY)
# action -> the fields that it has beside those of the match
_FRAME_ACTIONS: dict[str, tuple[str, ...]] = {
    "pass": (),
    "delay": ("delay_ms", "jitter_ms"),
    "drop": ("then",),
    "duplicate": (),
    "reset": (),
    "half_open": (),
    "trickle": ("bytes_per_s",),
    "cut": (),
}
_LINK_ACTIONS: dict[str, tuple[str, ...]] = {
    "bandwidth": ("bytes_per_s", "direction"),
    "latency": ("delay_ms", "jitter_ms", "direction", "seed"),
    "partition": ("refuse", "direction"),
}
LINK_ACTIONS = frozenset(_LINK_ACTIONS)
_ACTIONS = {**_FRAME_ACTIONS, **_LINK_ACTIONS}
_MATCH = ("direction", "command", "key", "subject", "nth", "count", "probability", "seed")
_POSITIVE = {
    "delay": "delay_ms",
    "latency": "delay_ms",
    "trickle": "bytes_per_s",
    "bandwidth": "bytes_per_s",
}
_ENDINGS = ("half_open", "reset")
_PSEUDO = {"PubAck": REPLY, "Ack": REQUEST, "Fetch": REQUEST}
_MAX_DELAY_MS = 3_600_000.0
_PIECES_PER_S = 50


def nearest(name: str, known: Iterable[str]) -> str:
    """`` (did you mean 'delay'?)``, or nothing."""
    by_lower = {item.lower(): item for item in known}
    close = difflib.get_close_matches(name.lower(), list(by_lower), n=1, cutoff=0.5)
    return f" (did you mean {by_lower[close[0]]!r}?)" if close else ""


def parse_rule(data: Any, links: dict[str, str]) -> Rule:
    """A rule as it was sent, checked and completed with its link.

    Args:
        data: decoded JSON.
        links: protocol of each link.

    Raises:
        FaultError: no rule, or one that could never do what it says; the text names the value.
    """
    known = [field.name for field in msgspec.structs.fields(Rule)]
    if not isinstance(data, dict):
        raise FaultError(f"rule {data!r}: give an object with {', '.join(known)}")
    for key in data:
        if key not in known:
            raise FaultError(
                f"rule: unknown field {key!r}{nearest(str(key), known)}; known are"
                f" {', '.join(known)}"
            )
    try:
        rule = msgspec.convert(data, Rule, strict=True)
    except msgspec.ValidationError as error:
        raise FaultError(f"rule {data!r}: {error}") from error
    if rule.action not in _ACTIONS:
        raise _unknown("action", rule.action, _ACTIONS)
    name = rule.link or (next(iter(links)) if len(links) == 1 else "")
    if name not in links:
        raise _unknown("link", rule.link, links)
    rule = msgspec.structs.replace(rule, link=name)
    if links[name] == OPAQUE and rule.action not in LINK_ACTIONS:
        raise FaultError(f"rule: link {name!r} is not parsed: use {', '.join(_LINK_ACTIONS)}")
    _check_fields(rule, data)
    _check_numbers(rule)
    _check_match(rule, links[name])
    return rule


def _unknown(field: str, value: str, known: Iterable[str]) -> FaultError:
    names = list(known)
    listed = "" if len(names) > len(_ACTIONS) else f"; known are {', '.join(names)}"
    return FaultError(f"rule: unknown {field} {value!r}{nearest(value, names)}{listed}")


def _check_fields(rule: Rule, data: dict[str, Any]) -> None:
    """A field that an action does not have would be ignored without a word."""
    match = () if rule.action in LINK_ACTIONS else _MATCH
    allowed = {"action", "link", *match, *_ACTIONS[rule.action]}
    for key in data:
        if key not in allowed:
            raise FaultError(
                f"rule: action {rule.action!r} has no {key!r}; it has {', '.join(sorted(allowed))}"
            )
    if rule.direction is not None and rule.direction not in DIRECTIONS:
        raise _unknown("direction", rule.direction, DIRECTIONS)
    if rule.then not in _ENDINGS:
        raise _unknown("then", rule.then, _ENDINGS)


def _check_numbers(rule: Rule) -> None:
    if rule.nth < 1:
        raise FaultError(f"rule: nth {rule.nth}: the first match is 1")
    if rule.count < 0:
        raise FaultError(f"rule: count {rule.count}: use 0 for all, or a number of matches")
    if not 0.0 < rule.probability <= 1.0:
        raise FaultError(f"rule: probability {rule.probability}: use more than 0 and at most 1")
    for field in ("delay_ms", "jitter_ms"):
        value = getattr(rule, field)
        if not 0.0 <= value <= _MAX_DELAY_MS:
            raise FaultError(f"rule: {field} {value}: use between 0 and {_MAX_DELAY_MS:.0f}")
    needed = _POSITIVE.get(rule.action)
    if needed is None:
        return
    value = getattr(rule, needed) + (rule.jitter_ms if needed == "delay_ms" else 0.0)
    if not value > 0.0:
        raise FaultError(f"rule: action {rule.action!r} needs a {needed} of more than 0")


def _check_match(rule: Rule, protocol: str) -> None:
    if rule.action in LINK_ACTIONS:
        return
    other, own = ("subject", "key") if protocol == "resp" else ("key", "subject")
    if getattr(rule, other) is not None:
        raise FaultError(f"rule: link {rule.link!r} speaks {protocol}: use {own!r}, not {other!r}")
    if rule.then != _ENDINGS[0] and (protocol != "resp" or rule.direction != REPLY):
        raise FaultError(
            "rule: only a dropped reply of Redis ends its connection: leave out 'then'"
        )
    if rule.direction is None:
        raise FaultError("rule: no direction: use 'request' or 'reply'")
    if rule.command is None:
        return
    if protocol == "resp":
        if rule.command.upper() not in REDIS_COMMANDS:
            raise _unknown("command", rule.command, REDIS_COMMANDS)
        return
    verbs = {verb.decode() for verb in REQUEST_VERBS | REPLY_VERBS}
    if rule.command not in _PSEUDO and rule.command.upper() not in verbs:
        raise _unknown("command", rule.command, [*sorted(verbs), *_PSEUDO])
    said = {REQUEST: REQUEST_VERBS, REPLY: REPLY_VERBS}[rule.direction]
    verb = rule.command.upper().encode()
    wrong = verb not in said if verb.decode() in verbs else _PSEUDO[rule.command] != rule.direction
    if wrong:
        raise FaultError(f"rule: {rule.command} is never a {rule.direction}")


class Pacer:
    """Lets bytes through at a rate, in pieces of a fiftieth of a second."""

    def __init__(self, bytes_per_s: float) -> None:
        self._bytes_per_s = bytes_per_s
        self._piece_bytes = max(1, int(bytes_per_s / _PIECES_PER_S))
        self.free_ns = 0

    def take(self, now_ns: int, wanted_bytes: int) -> int:
        """How many bytes may go now; the next may at ``free_ns``."""
        if now_ns < self.free_ns:
            return 0
        size = min(wanted_bytes, self._piece_bytes)
        # A timer that is late by less than a piece is made up for, or the rate would be too low.
        begin_ns = max(self.free_ns, now_ns - NS_PER_S // _PIECES_PER_S)
        self.free_ns = begin_ns + int(size * NS_PER_S / self._bytes_per_s)
        return size


class ActiveRule:
    """A rule at work, and what it did.

    Args:
        number: its id.
        rule: as ``parse_rule`` returned it.
        clock: times of the firings.
    """

    def __init__(self, number: int, rule: Rule, clock: Clock) -> None:
        self.rule = rule
        self.stats = RuleStats(id=number, rule=rule, added_ns=clock.monotonic_ns())
        self._clock = clock
        self._rng = random.Random(rule.seed)
        # A link-wide bandwidth is one for each direction, as a line has it.
        self._pacers = {direction: Pacer(rule.bytes_per_s or 1.0) for direction in DIRECTIONS}
        self._special = rule.command.encode() if rule.command in _PSEUDO else b""
        self._command = b"" if self._special else (rule.command or "").upper().encode()
        glob = rule.key if rule.key is not None else rule.subject
        self._glob = None if glob is None else re.compile(fnmatch.translate(glob).encode())

    @property
    def removed(self) -> bool:
        """Whether it is no longer at work: what it holds back goes on at once."""
        return self.stats.removed_ns != 0

    def remove(self) -> None:
        """It acts no more."""
        self.stats.removed_ns = self._clock.monotonic_ns()

    def meets(self, frame: Frame) -> bool:
        """Whether it matches a frame of its direction, and if so whether it may fire."""
        if self._command and frame.command != self._command:
            return False
        if self._special and frame.special != self._special:
            return False
        if self._glob is not None and not self._glob.match(frame.key):
            return False
        stats, rule = self.stats, self.rule
        stats.matches += 1
        # What another rule left nothing to do does not use this one up: its next match stands in.
        end = rule.nth + rule.count + stats.overruled
        if stats.matches < rule.nth or (rule.count and stats.matches >= end):
            return False
        return rule.probability >= 1.0 or self._rng.random() < rule.probability

    def fired(self, frame: Frame, connection: int) -> None:
        """It acts on a frame that it met."""
        what = frame.special or frame.command
        self.hit(connection, frame.end - frame.start, what.decode("latin-1"), frame.key)

    def hit(self, connection: int, size_bytes: int, what: str, key: bytes = b"") -> None:
        """Count a firing."""
        stats = self.stats
        now_ns = self._clock.monotonic_ns()
        stats.firings += 1
        stats.first_ns = stats.first_ns or now_ns
        stats.last_ns = now_ns
        stats.affected_bytes += size_bytes
        if len(stats.hits) >= MAX_HITS:
            stats.hits_left_out += 1
            return
        text = key[:MAX_KEY_CHARACTERS].decode("utf-8", "backslashreplace")
        stats.hits.append(
            Hit(n=stats.matches, connection=connection, what=what, key=text, time_ns=now_ns)
        )

    def touched(self, connection: int, size_bytes: int, what: str) -> None:
        """A link-wide rule met a piece of input, and acts on each."""
        self.stats.matches += 1
        self.hit(connection, size_bytes, what)

    def delay_ns(self) -> int:
        """The delay of this firing, with its jitter."""
        rule = self.rule
        return int((rule.delay_ms + rule.jitter_ms * self._rng.random()) * NS_PER_MS)

    def pacer(self, direction: str) -> Pacer:
        """The one of a direction of the link."""
        return self._pacers[direction]
