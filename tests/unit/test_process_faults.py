"""Faults of processes, on real ones."""

import asyncio
import signal
import subprocess
import sys
import types

import psutil
import pytest

from hookbench.clock import SystemClock
from hookbench.faults.base import FaultNotFiredError
from hookbench.faults.process import Pause, end_process
from tests.virtual import VirtualClock


class Place:
    """A place that another process takes when the first one dies of its first signal."""

    replaced = True

    def __init__(self, *, dies):
        self.children = [self._start()]
        self._dies = dies

    @staticmethod
    def _start():
        return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])

    @property
    def pid(self):
        return self.children[-1].pid

    @property
    def exit_code(self):
        return self.children[-1].poll()

    def signal(self, number):
        if self._dies:
            self._dies = False
            self.children[-1].kill()
            self.children[-1].wait()
            self.children.append(self._start())
            return
        self.children[-1].send_signal(number)


class Targets:
    clock = SystemClock()

    def __init__(self, place):
        self._place = place

    def process(self, _name):
        return self._place


@pytest.mark.parametrize("dies", [False, True])
async def test_who_has_the_place_is_paused(dies):
    """Also if another fault kills the one that was aimed at in just that moment."""
    place = Place(dies=dies)
    targets = Targets(place)
    pause = Pause(target="worker-0", at_s=0.0, for_s=1.0)
    try:
        await pause.inject(targets)
        assert len(place.children) == 1 + dies
        assert psutil.Process(place.pid).status() == psutil.STATUS_STOPPED
        await pause.heal(targets)
        assert psutil.Process(place.pid).status() != psutil.STATUS_STOPPED
    finally:
        for child in place.children:
            child.send_signal(signal.SIGKILL)
            child.wait()


@pytest.mark.parametrize("replaced", [True, False], ids=["of the fleet", "broker"])
async def test_one_that_has_just_ended_is_met_in_who_takes_its_place(replaced):
    clock, signals = VirtualClock(), []
    process = types.SimpleNamespace(pid=7, exit_code=1, replaced=replaced)

    def kill(number):
        signals.append((process.pid, number))
        process.exit_code = -number

    process.signal = kill
    targets = types.SimpleNamespace(clock=clock, process=lambda _name: process)
    ending = asyncio.ensure_future(end_process(targets, "worker-0", signal.SIGKILL))
    await clock.sleep(1.0)
    process.pid, process.exit_code = 8, None
    await ending
    assert signals == [(8, signal.SIGKILL)]
    with pytest.raises(FaultNotFiredError, match="worker-0: it had ended before"):
        await end_process(targets, "worker-0", signal.SIGKILL, tries=100)
