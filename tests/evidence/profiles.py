"""Profiles of the largest gains on the hot paths, before and after each.

*Before* is the bare client used one by one, as the guide and the clients' own documentation have
it; *after* is the reference with its ledger on. Rates and CPU time are of rounds in turn on uvloop;
the profiles are of further rounds on asyncio's own loop, which is Python and can be looked into.
"""

import asyncio
import cProfile
import pstats
import statistics
import time
from pathlib import Path
from typing import NamedTuple

import nats.errors
import uvloop

from hookbench.clock import SystemClock
from hookbench.task import encode_task
from tests.evidence.rates import CONCURRENCY, Tasks, at_once, sides
from tests.evidence.spread import spread_of

GAINS = {
    "redis_list producer": "a pool of a hundred connections, a command on each, becomes one"
    " connection whose commands of a turn of the loop go in one write",
    "redis_stream worker": "a transaction of XACK and XDEL for each entry, on connections of a"
    " pool, becomes one for all that ended in a turn of the loop",
    "redis_list worker": "a BLMOVE and an LREM for each task become a script that takes many, and"
    " acknowledgements of a turn in one pipeline",
    "jetstream worker": "a pull request and an acknowledgement for each task become overlapping"
    " requests for many, a callback for each, and acknowledgements of a turn in one write",
}
TASKS = 3_000
DEADLINE_S = 120.0
_LAYERS = (
    ("/redis/", "redis-py"),
    ("/nats/", "nats-py"),
    ("/hookbench/ledger/", "ledger"),
    ("/hookbench/", "hookbench"),
    ("/asyncio/", "event loop"),
    ("/selectors.py", "event loop"),
    ("/tests/", "this proof"),
)
_SOCKET = "'_socket.socket' objects"
_POLL = "'select.epoll' objects"


class Measured(NamedTuple):
    """Of one round: tasks per second, and microseconds of this process's CPU time for each."""

    per_s: float
    cpu_us: float


class Profile(NamedTuple):
    """Per task: microseconds by layer, calls of interest, and the functions that took most."""

    layers_us: dict[str, float]
    sends: float
    callbacks: float
    top: list[str]


async def before(gain, bare, tasks, count):
    """One by one, a hundred at once."""
    if gain == "redis_list producer":
        items = [encode_task(task) for task in tasks.make(count)]
        await at_once(bare.send("redis_list"), items)
    elif gain == "jetstream worker":
        await _pull_one_by_one(bare, count)
    else:
        await bare.drain(_queue(gain), count)


async def _pull_one_by_one(bare, count):
    """``CONCURRENCY`` loops of a pull request for one and its acknowledgement.

    They share a subscription, and one may take the message that another one asked for.
    """
    left, over = count, asyncio.Event()

    async def loop():
        nonlocal left
        while True:
            try:
                (message,) = await bare.puller.fetch(1, timeout=1)
            except nats.errors.TimeoutError:
                continue
            await message.ack()
            left -= 1
            if left == 0:
                over.set()

    loops = [asyncio.create_task(loop()) for _ in range(CONCURRENCY)]
    await over.wait()
    for one in loops:
        one.cancel()
    await asyncio.wait(loops)
    await bare.client.flush()


async def after(gain, reference, tasks, count):
    """The reference at the same."""
    if gain == "redis_list producer":
        await at_once(reference.sends["redis_list"], tasks.make(count))
        return None
    return await reference.drain(_queue(gain), count)


def _queue(gain):
    return gain.partition(" ")[0]


async def fill(gain, bare, reference, tasks, count):
    """What is to be drained, on both sides."""
    if gain == "redis_list producer":
        return
    queue = _queue(gain)
    await bare.send_windowed(queue, [encode_task(task) for task in tasks.make(count)])
    await at_once(reference.sends[queue], tasks.make(count))


async def measured(awaitable, count):
    """A worker says how long it took without its end, which waits for a read that blocks."""
    began, began_cpu = time.perf_counter(), time.process_time()
    told_s = await awaitable
    seconds, cpu_s = time.perf_counter() - began, time.process_time() - began_cpu
    seconds = seconds if told_s is None else told_s
    return Measured(count / seconds, cpu_s / count * 1e6)


async def profiled(awaitable, count):
    profile = cProfile.Profile()
    profile.enable()
    try:
        await awaitable
    finally:
        profile.disable()
    return read_profile(profile, count)


def read_profile(profile, count):
    """Own time of each function, added up by whose it is; waiting for sockets is left out."""
    layers, named, sends, callbacks = {}, [], 0, 0
    for (file, _line, name), found in pstats.Stats(profile).stats.items():
        calls, own_s = found[1], found[2]
        if name == f"<method 'poll' of {_POLL}>":
            continue
        layer = _layer(file, name)
        layers[layer] = layers.get(layer, 0.0) + own_s / count * 1e6
        named.append((own_s / count * 1e6, calls / count, f"{_short(file)}{name}"))
        sends += calls if name.startswith("<method 'send") and _SOCKET in name else 0
        callbacks += calls if name == "_run" and file.endswith("asyncio/events.py") else 0
    named.sort(reverse=True)
    return Profile(
        layers_us={name: round(value, 1) for name, value in sorted(layers.items())},
        sends=round(sends / count, 3),
        callbacks=round(callbacks / count, 2),
        top=[f"{name} {own:.1f} us ({calls:.2f} calls)" for own, calls, name in named[:5]],
    )


def _layer(file, name):
    if _SOCKET in name or _POLL in name:
        return "sockets"
    return next((layer for part, layer in _LAYERS if part in file), "Python and its library")


def _short(file):
    return "" if file == "~" else f"{Path(file).parent.name}/{Path(file).name}:"


async def one_round(gain, sides_, tasks, look):
    """``look`` at both sides of a gain, one after the other."""
    bare, reference = sides_
    await fill(gain, bare, reference, tasks, TASKS)
    async with asyncio.timeout(DEADLINE_S):
        return (
            await look(before(gain, bare, tasks, TASKS), TASKS),
            await look(after(gain, reference, tasks, TASKS), TASKS),
        )


async def _rounds(urls, folder, gain, *, rounds, seed, look, run):
    folder.mkdir()
    tasks = Tasks(SystemClock(), seed)
    async with sides(*urls, folder, run) as both:
        await one_round(gain, both, tasks, look)  # warm-up
        return [await one_round(gain, both, tasks, look) for _ in range(rounds)]


def measure(redis_url, nats_url, folder, gain, *, rounds, seed):
    """Figures of a gain: medians of both sides, the ratios of their rounds, and both profiles."""
    urls, name = (redis_url, nats_url), gain.replace(" ", "-")
    found = uvloop.run(
        _rounds(
            urls, folder / name, gain,
            rounds=rounds, seed=seed, look=measured, run=f"{name}-timed",
        )
    )  # fmt: skip
    ((old, new),) = asyncio.run(
        _rounds(
            urls, folder / f"{name}-profiled", gain,
            rounds=1, seed=seed + 1, look=profiled, run=f"{name}-profiled",
        )
    )  # fmt: skip
    figures = {
        "before_per_s": round(statistics.median(one.per_s for one, _ in found)),
        "after_per_s": round(statistics.median(other.per_s for _, other in found)),
        **spread_of("rate_ratio", [b.per_s / a.per_s for a, b in found], 2),
        "before_cpu_us": round(statistics.median(one.cpu_us for one, _ in found), 1),
        "after_cpu_us": round(statistics.median(other.cpu_us for _, other in found), 1),
        **spread_of("cpu_ratio", [b.cpu_us / a.cpu_us for a, b in found]),
    }
    return figures, {"before": old, "after": new}
