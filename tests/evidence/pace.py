"""How fast this machine is at what the absolute targets were set beside, in the same run."""

import asyncio
import ctypes
import os
import resource
import time

import uvloop

from tests.evidence.sleeps import rates

STOCK_SLEEPS_PER_S = 180_000
"""Sleeps a second of a stock loop with patched time where the targets were set."""
TIMER_CORES = 0.16
"""What a timerfd took there that rings 5,000 times a second."""

_SECONDS = 4
_NS_PER_S = 1_000_000_000


def timer_cores(rate_per_s):
    """Cores that a loop takes which a timerfd wakes so many times a second, and nothing else."""
    return uvloop.run(_rings(rate_per_s))


async def _rings(rate_per_s):
    libc = ctypes.CDLL(None)
    timer = libc.timerfd_create(1, os.O_NONBLOCK)
    spec = (ctypes.c_long * 4)()
    left, moment_ns = rate_per_s * _SECONDS, time.monotonic_ns()
    loop = asyncio.get_running_loop()
    over = loop.create_future()

    def arm():
        nonlocal left, moment_ns
        left -= 1
        moment_ns += _NS_PER_S // rate_per_s
        spec[2], spec[3] = divmod(moment_ns, _NS_PER_S)
        libc.timerfd_settime(timer, 1, ctypes.byref(spec), None)

    def ring():
        os.read(timer, 8)
        if left:
            arm()
        elif not over.done():
            over.set_result(None)

    loop.add_reader(timer, ring)
    begin_s, used_s = time.monotonic(), _cpu_s()
    arm()
    await over
    cores = (_cpu_s() - used_s) / (time.monotonic() - begin_s)
    loop.remove_reader(timer)
    os.close(timer)
    return cores


def stock_sleeps_per_s():
    """Sleeps a second of a stock asyncio loop with patched time."""
    return rates("stock")[0]


def _cpu_s():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
