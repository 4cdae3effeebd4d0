"""What became of each task in the lists and done-records of Redis, replayed from its own log."""

import base64
import json
import re
from collections import Counter, defaultdict, deque

import msgspec

from tests.witness.aof import Command
from tests.witness.monitor import Command as Told

__all__ = ["PENDING", "RedisSeen", "replay", "task_of", "unlike_monitor"]

PENDING = b"{hook}:sync"
WORK = b"{hook}:sync:work"
DEAD = b"{hook}:sync:dead"
MOVED = b"{hook}:reconcile:moved"
RECORD = b"{hook}:task:"
NO_TASK = "bytes"
_CLAIMED, _DONE, _SUPERSEDED = b"c", b"d", b"s"
_RECORD = re.compile(rb"([crds])\|(\d+)(\||$)")
_PUSHES = (b"LPUSH", b"RPUSH")

Ids = Counter[str]
Tokens = Counter[tuple[str, int]]


class RedisSeen(msgspec.Struct, kw_only=True):
    """What Redis did with the tasks; ids as text, in the order of the log where that matters.

    Attributes:
        puts: pushed to the pending list from outside, with the length of the list afterwards.
        moved: pushed there by a procedure, with a note of the id in the same step.
        claims: moved from the pending list into a work list.
        removed: out of a work list for good; early: without a record that the task has ended.
        naks: out of a work list, and to the far end of the pending list.
        put_back: out of a work list, and back to the near end.
        copied: pushed to the near end without being taken out of any list.
        trimmed: removed from the pending list as a copy, and whether the task had ended by then.
        taken_out: removed from the pending list by a procedure.
        letters: dead letters; letters_gone: those that were removed again.
        claimed: fencing token of each claim in the done-store, and of each completion in ``done``.
        superseded: ended without an execution.
        pending_left, work_left: what the lists hold after the last command.
        strange: commands on these keys that the replay does not know.
    """

    puts: Counter[tuple[str, int]] = msgspec.field(default_factory=Counter)
    moved: Ids = msgspec.field(default_factory=Counter)
    claims: Ids = msgspec.field(default_factory=Counter)
    removed: Ids = msgspec.field(default_factory=Counter)
    early: Ids = msgspec.field(default_factory=Counter)
    naks: Ids = msgspec.field(default_factory=Counter)
    put_back: Ids = msgspec.field(default_factory=Counter)
    copied: Ids = msgspec.field(default_factory=Counter)
    trimmed: list[tuple[str, bool]] = []
    taken_out: Ids = msgspec.field(default_factory=Counter)
    letters: Ids = msgspec.field(default_factory=Counter)
    letters_gone: Ids = msgspec.field(default_factory=Counter)
    claimed: Tokens = msgspec.field(default_factory=Counter)
    done: Tokens = msgspec.field(default_factory=Counter)
    superseded: Ids = msgspec.field(default_factory=Counter)
    pending_left: Ids = msgspec.field(default_factory=Counter)
    work_left: Ids = msgspec.field(default_factory=Counter)
    strange: Counter[str] = msgspec.field(default_factory=Counter)

    @property
    def ended(self) -> set[str]:
        """Tasks with a record of their end."""
        return {task for task, _token in self.done} | self.superseded.keys()


def task_of(payload: bytes) -> str:
    """The id in the JSON of a task; other bytes are named as they are."""
    try:
        return str(json.loads(payload)["id"])
    except (ValueError, KeyError, TypeError):
        return f"{NO_TASK} {payload[:40]!r}"


def letter_of(payload: bytes) -> str:
    """The task in a dead letter."""
    try:
        return task_of(base64.b64decode(json.loads(payload)["payload_base64"]))
    except (ValueError, KeyError, TypeError):
        return f"{NO_TASK} {payload[:40]!r}"


def _is_work(key: bytes) -> bool:
    return key == WORK or key.startswith(WORK + b":")


def _is_list(key: bytes) -> bool:
    return key == PENDING or _is_work(key)


class _Replay:
    def __init__(self) -> None:
        self.seen = RedisSeen()
        self.lists: defaultdict[bytes, deque[bytes]] = defaultdict(deque)
        self._ended: set[str] = set()
        self._owners: dict[tuple[str, int], bytes] = {}

    def unit(self, commands: list[Command]) -> None:
        """What happened in one step: what was taken out of a work list may be put back in it."""
        taken: Ids = Counter()
        noted = any(item[0] == b"SADD" and item[1] == MOVED for item in commands)
        for command in commands:
            name, *arguments = command
            if name == b"SET" and arguments[0].startswith(RECORD):
                self._record(arguments[0], arguments[1])
            elif name in (*_PUSHES, b"LREM") and arguments[0] == DEAD:
                target = self.seen.letters if name != b"LREM" else self.seen.letters_gone
                target[letter_of(arguments[-1])] += 1
            elif name in _PUSHES and arguments[0] == PENDING:
                for payload in arguments[1:]:
                    self._push(name, payload, taken, noted=noted)
            elif name == b"LREM" and _is_list(arguments[0]):
                self._remove(arguments[0], int(arguments[1]), arguments[2], taken)
            elif name == b"LMOVE" and (_is_list(arguments[0]) or _is_list(arguments[1])):
                self._move(*arguments)
            elif any(map(_is_list, arguments)):
                self.seen.strange[name.decode()] += 1
        self.seen.removed += taken
        self.seen.early.update(
            task for task in +taken if task not in self._ended and not task.startswith(NO_TASK)
        )

    def _record(self, key: bytes, value: bytes) -> None:
        found = _RECORD.match(value)
        if found is None:
            self.seen.strange[f"SET to {value[:20]!r}"] += 1
            return
        state, entry = found[1], (key.removeprefix(RECORD).decode(), int(found[2]))
        # It is written again when a claim is renewed, or when its end is told twice.
        if state in (_DONE, _SUPERSEDED):
            self._ended.add(entry[0])
        if state == _CLAIMED:
            owner = value.split(b"|")[5]
            self.seen.claimed[entry] += self._owners.get(entry) != owner
            self._owners[entry] = owner
        elif state == _DONE:
            self.seen.done[entry] = 1
        elif state == _SUPERSEDED:
            self.seen.superseded[entry[0]] = 1

    def _push(self, name: bytes, payload: bytes, taken: Ids, *, noted: bool) -> None:
        near = name == b"RPUSH"
        pending, task = self.lists[PENDING], task_of(payload)
        if near:
            pending.append(payload)
        else:
            pending.appendleft(payload)
        if taken[task] > 0:
            taken[task] -= 1
            (self.seen.put_back if near else self.seen.naks)[task] += 1
        elif near:
            self.seen.copied[task] += 1
        elif noted:
            self.seen.moved[task] += 1
        else:
            self.seen.puts[task, len(pending)] += 1

    def _remove(self, key: bytes, count: int, payload: bytes, taken: Ids) -> None:
        items, task = self.lists[key], task_of(payload)
        gone = 0
        while (count == 0 or gone < abs(count)) and payload in items:
            if count >= 0:
                items.remove(payload)
            else:
                items.reverse()
                items.remove(payload)
                items.reverse()
            gone += 1
        if not gone:
            self.seen.strange["LREM of what is not there"] += 1
        elif key != PENDING:
            taken[task] += gone
        elif count < 0:
            self.seen.trimmed.append((task, task in self._ended))
        else:
            self.seen.taken_out[task] += gone

    def _move(self, source: bytes, target: bytes, out: bytes, into: bytes) -> None:
        items = self.lists[source]
        if not items:
            self.seen.strange["LMOVE out of nothing"] += 1
            return
        payload = items.popleft() if out.upper() == b"LEFT" else items.pop()
        if into.upper() == b"LEFT":
            self.lists[target].appendleft(payload)
        else:
            self.lists[target].append(payload)
        if source == PENDING and _is_work(target):
            self.seen.claims[task_of(payload)] += 1
        elif _is_work(source) and target == PENDING:
            self.seen.put_back[task_of(payload)] += 1
        else:
            self.seen.strange[f"LMOVE from {source!r} to {target!r}"] += 1


def replay(units: list[list[Command]]) -> RedisSeen:
    """Carry the log out once more, on lists of our own."""
    found = _Replay()
    for unit in units:
        found.unit(unit)
    seen = found.seen
    for key, items in found.lists.items():
        (seen.pending_left if key == PENDING else seen.work_left).update(map(task_of, items))
    return seen


def unlike_monitor(units: list[list[Command]], told: list[Told]) -> list[str]:
    """What the log has and ``MONITOR`` did not tell, or the other way round.

    Pushes and records take effect whenever they are told; a removal or a move may find nothing.
    """
    done = Counter(
        kept for unit in units for command in unit if (kept := _comparable(command)) is not None
    )
    heard = Counter(
        kept
        for command in told
        if (kept := _comparable((command.name.encode(), *command.arguments[1:]))) is not None
    )
    problems = []
    if missing := done - heard:
        problems.append(f"{missing.total()} in the log of Redis that MONITOR did not tell")
    if extra := Counter({item: n for item, n in (heard - done).items() if item[0] != b"LREM"}):
        problems.append(f"{extra.total()} that MONITOR told are not in the log of Redis")
    return [f"{text}, e.g. {next(iter(missing or extra))!r}" for text in problems]


def _comparable(command: Command) -> Command | None:
    name = command[0].upper()
    if name in _PUSHES and command[1] == PENDING:
        return (name, *command[1:])
    if name == b"SET" and command[1].startswith(RECORD):
        return (name, *command[1:3])
    if name == b"LREM" and _is_list(command[1]):
        return (name, *command[1:])
    return None
