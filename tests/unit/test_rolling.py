"""A rolling restart in virtual time."""

import signal

import pytest

from hookbench.faults.base import FaultNotFiredError
from hookbench.faults.rolling import RollingRestart
from tests.virtual import VirtualClock


class Member:
    """Ends a second after it is asked to, and is back two seconds later, if anybody is."""

    replaced = True

    def __init__(self, fleet, name, pid):
        self.fleet, self.name, self.first_pid = fleet, name, pid
        self.asked_ns = None

    @property
    def since_s(self):
        return 0 if self.asked_ns is None else (self.fleet.clock.now_ns - self.asked_ns) / 1e9

    @property
    def exit_code(self):
        return 0 if 1 <= self.since_s < 2 or (self.name in self.fleet.lost and self.gone) else None

    @property
    def gone(self):
        return self.since_s >= 1

    @property
    def pid(self):
        back = self.since_s >= 2 and self.name not in self.fleet.lost
        return self.first_pid + (100 if back else 0)

    def signal(self, number):
        assert number == signal.SIGTERM
        away = [m.name for m in self.fleet.all.values() if m.asked_ns and not m.entered]
        assert away == []  # one at a time
        self.fleet.log.append(self.name)
        self.asked_ns = self.fleet.clock.now_ns

    @property
    def entered(self):
        return self.since_s >= 3


class Fleet:
    def __init__(self, *lost):
        self.clock, self.log, self.lost = VirtualClock(), [], lost
        self.all = {
            name: Member(self, name, number)
            for number, name in enumerate(("worker-0", "worker-1", "worker-2"), 1)
        }

    def members(self, role):
        assert role == "workers"
        return list(self.all)

    def process(self, name):
        return self.all[name]

    def has_entered(self, name):
        return self.all[name].entered


async def test_one_process_after_the_other_and_each_is_back_before_the_next():
    fleet = Fleet()
    await RollingRestart(target="workers", at_s=1.0).inject(fleet)
    assert fleet.log == ["worker-0", "worker-1", "worker-2"]
    assert all(member.entered for member in fleet.all.values())


async def test_a_place_that_nobody_takes_stops_the_rest():
    fleet = Fleet("worker-1")
    with pytest.raises(FaultNotFiredError, match=r"worker-1 \(pid 2\): nobody took its place"):
        await RollingRestart(target="workers", at_s=1.0).inject(fleet)
    assert fleet.log == ["worker-0", "worker-1"]
