"""What every contender's child processes share; the standard library alone, for all environments.

A contender is a module with

- ``DESCRIPTION``: what it is, how it is set, and what it promises;
- ``enqueue(first, count)``: puts tasks into its queue, numbered from the first on; a coroutine
  function, or a plain one;
- ``WORKER``: the command that its documentation starts a worker with, or a function that is one.

``python -m tests.bench.peers.contenders.NAME describe|enqueue FIRST COUNT|work`` does one of the
three. What a process has to know of the trial stands in environment variables, see ``Given``.
"""

import asyncio
import ctypes
import itertools
import json
import mmap
import os
import platform
import signal
import struct
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

__all__ = [
    "GIVEN",
    "PAYLOAD_BYTES",
    "RECORD",
    "REDELIVERY_S",
    "Description",
    "Given",
    "Setting",
    "at_once",
    "batches",
    "do_task",
    "do_task_blocking",
    "main",
    "payload_of",
    "record_effect",
]

PAYLOAD_BYTES = 256
INDEX_DIGITS = 12
REDELIVERY_S = 10
"""Seconds until what a dead worker held is handed out again, wherever that can be set."""
RECORD = struct.Struct("<qq")
"""One effect: the task, and the monotonic time in nanoseconds."""
_AT_ONCE = 200
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, kw_only=True)
class Given:
    """One trial: where the broker is, what a task does, and where its effects are written.

    Attributes:
        effects: a folder, with a file for each process that works on tasks.
        room: records that such a file has room for.
        folder: of the trial, for what a contender writes beside them.
    """

    url: str
    effects: str
    room: int
    sleep_s: float
    concurrency: int
    variant: str
    folder: str

    @classmethod
    def from_environment(cls, environment=os.environ):
        return cls(
            url=environment.get("PEERS_URL", "redis://127.0.0.1:6379"),
            effects=environment.get("PEERS_EFFECTS", "."),
            room=int(environment.get("PEERS_ROOM", "0")),
            sleep_s=float(environment.get("PEERS_SLEEP_S", "0")),
            concurrency=int(environment.get("PEERS_CONCURRENCY", "100")),
            variant=environment.get("PEERS_VARIANT", ""),
            folder=environment.get("PEERS_FOLDER", "."),
        )

    def to_environment(self):
        return {f"PEERS_{name.upper()}": str(value) for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Setting:
    """One setting beyond the default, why, and the page that says so."""

    text: str
    why: str
    page: str


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a contender is.

    Attributes:
        concurrency: how many tasks it has in work at once, in its own words.
        settings: what was set otherwise than it comes.
        promise: what becomes of the tasks in work when the worker is killed, as its documentation
            or source has it: ``none lost``, ``some lost``.
        promised: the same in a sentence.
        promise_page: where that stands.
        redelivery_s: seconds after which what a killed worker held is handed out again.
    """

    concurrency: str
    settings: list = field(default_factory=list)
    promise: str
    promised: str
    promise_page: str
    redelivery_s: float


def tie_to_parent():
    """On Linux: end with the process that started this one, so that none is left behind."""
    if platform.system() == "Linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


GIVEN = Given.from_environment()
_pages = {}
_lock = threading.Lock()
os.register_at_fork(after_in_child=tie_to_parent)
tie_to_parent()


def payload_of(index):
    """256 ASCII characters that begin with the number of the task."""
    return f"{index:0{INDEX_DIGITS}}".ljust(PAYLOAD_BYTES, "x")


def record_effect(task):
    """One record into the next slot of a mapped file of this process.

    It is there when the process is killed, as what was written by ``write`` would be, and costs a
    tenth of that call: 0.2 microseconds. The time comes last, so a record without one is none.
    """
    pages, slots = _pages.get(os.getpid()) or _map_effects()
    RECORD.pack_into(pages, next(slots) * RECORD.size, task, time.monotonic_ns())


def _map_effects():
    """The mapped file of this process, made by its first effect: after a fork it has its own."""
    with _lock:
        if os.getpid() not in _pages:
            with Path(GIVEN.effects, str(os.getpid())).open("w+b") as file:
                file.truncate(GIVEN.room * RECORD.size)
                pages = mmap.mmap(file.fileno(), GIVEN.room * RECORD.size)
            _pages[os.getpid()] = (pages, itertools.count())
        return _pages[os.getpid()]


async def do_task(payload):
    """The handler of a contender on an event loop."""
    if GIVEN.sleep_s:
        await asyncio.sleep(GIVEN.sleep_s)
    record_effect(int(payload[:INDEX_DIGITS]))


def do_task_blocking(payload):
    """The handler of a contender on threads, or one after the other."""
    if GIVEN.sleep_s:
        time.sleep(GIVEN.sleep_s)
    record_effect(int(payload[:INDEX_DIGITS]))


def batches(first, count, size):
    """The numbers of so many tasks from the first one on, in ranges of a size."""
    last = first + count
    for begin in range(first, last, size):
        yield range(begin, min(begin + size, last))


async def at_once(send, first, count):
    """Send the payloads of so many tasks, some hundred at once."""
    for indices in batches(first, count, _AT_ONCE):
        await asyncio.gather(*(send(payload_of(index)) for index in indices))


def main(description, enqueue, worker):
    """Do what the command line says; ``work`` becomes the worker itself."""
    verb = sys.argv[1]
    if verb == "describe":
        sys.stdout.write(json.dumps(asdict(description)))
    elif verb == "enqueue":
        coroutine = enqueue(int(sys.argv[2]), int(sys.argv[3]))
        if coroutine is not None:
            asyncio.run(coroutine)
    elif verb == "work" and callable(worker):
        worker()
    elif verb == "work":
        program = Path(sys.executable).with_name(worker[0])
        os.execv(program, [str(program), *worker[1:]])  # noqa: S606 - no shell is wanted
    else:
        raise SystemExit(f"{verb}: use describe, enqueue FIRST COUNT or work")
