"""The simulated disk: what a killed process leaves on it, and what a power cut takes."""

import asyncio
import random
from pathlib import Path

import pytest

from hookbench.errors import SpoolError
from hookbench.migration.outbox_file import OutboxFile
from hookbench.migration.spool import ON_REDIS
from hookbench.sim.clock import SimulatedClock
from hookbench.sim.disk import SimulatedDisk
from hookbench.sim.simulate import simulate

PATH = Path("outbox")
BOOT = b"b" * 16


def on_a_disk(main, seed=7):
    async def run(loop):
        clock = SimulatedClock(loop)
        disk = SimulatedDisk(clock, random.Random(seed))
        return await main(loop, disk, clock)

    return simulate(run)


def add(spool, *names):
    for name in names:
        spool.add(name, name.encode(), intended_ns=1, boot_id=BOOT)


def add_and_fail(spool):
    add(spool, "one")
    raise ZeroDivisionError


def names_on(disk):
    with disk.open(PATH) as spool:
        return [row.task.decode() for row in spool.oldest(1000)]


def test_a_file_is_there_for_whoever_opens_it_next():
    async def main(_loop, disk, _clock):
        with disk.open(PATH) as spool:
            add(spool, "a", "b")
        assert names_on(disk) == ["a", "b"]
        with disk.open(Path("other")) as spool:
            assert len(spool) == 0

    on_a_disk(main)


def test_a_power_cut_takes_what_was_not_synced_from_the_end():
    left = set()

    async def main(_loop, disk, _clock):
        spool = disk.open(PATH)
        add(spool, "synced")
        for name in ("one", "two", "three"):
            with spool.transaction(durable=False):
                add(spool, name)
        assert names_on(disk) == ["synced", "one", "two", "three"]
        disk.lose_power()
        left.add(tuple(names_on(disk)))

    for seed in range(40):
        on_a_disk(main, seed)
    whole = ("synced", "one", "two", "three")
    assert left == {whole[:count] for count in range(1, 5)}


def test_a_durable_transaction_takes_along_what_was_before_it():
    async def main(_loop, disk, _clock):
        spool = disk.open(PATH)
        with spool.transaction(durable=False):
            add(spool, "one")
        with spool.transaction():
            add(spool, "two")
        disk.lose_power()
        assert names_on(disk) == ["one", "two"]

    for seed in range(10):
        on_a_disk(main, seed)


def test_a_transaction_that_is_rolled_back_was_never_written():
    async def main(_loop, disk, _clock):
        spool = disk.open(PATH)
        with pytest.raises(ZeroDivisionError), spool.transaction():
            add_and_fail(spool)
        assert len(spool) == 0
        assert names_on(disk) == []

    on_a_disk(main)


def start_adding(loop, disk, clock, told):
    """A process that adds one task after the other, and tells which are stored."""

    async def main():
        file = OutboxFile(PATH, boot_id=BOOT, clock=clock, disk=disk)
        for number in range(1_000):
            await file.add(str(number), str(number).encode(), intended_ns=1)
            told.append(str(number))

    process, _task = loop.processes.start("producer", main, loop.create_task)
    return process


@pytest.mark.parametrize("power", [False, True])
def test_what_was_told_to_be_stored_is_there_and_at_most_one_more(power):
    counts = set()

    async def main(loop, disk, clock):
        told = []
        process = start_adding(loop, disk, clock, told)
        await asyncio.sleep(0.02)
        loop.processes.kill(process)
        if power:
            disk.lose_power()
        found = names_on(disk)
        assert told
        assert found[: len(told)] == told
        counts.add(len(found) - len(told))
        await asyncio.sleep(1)
        assert names_on(disk) == found, "a thread of a dead process goes on"

    for seed in range(200):
        on_a_disk(main, seed)
    assert counts == {0, 1}


def test_a_transaction_that_waits_for_the_disk_survives_a_kill_and_not_always_a_power_cut():
    """It is written when the process dies, and nobody was told."""
    lost = {False: 0, True: 0}

    for power in lost:

        async def main(loop, disk, clock, power=power):
            told = []
            process = start_adding(loop, disk, clock, told)
            while len(names_on(disk)) <= len(told):  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(0.000_02)
            before = names_on(disk)
            loop.processes.kill(process)
            if power:
                disk.lose_power()
            lost[power] += before != names_on(disk)

        for seed in range(20):
            on_a_disk(main, seed)
    assert lost[False] == 0
    assert 0 < lost[True] < 20


def test_acknowledgements_are_written_without_waiting_for_the_disk():
    """So a power cut may bring a task back that was acknowledged, and never loses one."""
    back = 0

    async def main(_loop, disk, clock):
        nonlocal back
        file = OutboxFile(PATH, boot_id=BOOT, clock=clock, disk=disk)
        file.needed = ON_REDIS
        number = await file.add("a", b"a", intended_ns=1)
        assert file.acknowledge(number, ON_REDIS)
        await asyncio.sleep(0.1)
        assert names_on(disk) == []
        disk.lose_power()
        back += names_on(disk) == ["a"]

    for seed in range(20):
        on_a_disk(main, seed)
    assert 0 < back < 20


def test_work_that_is_given_up_before_it_begins_is_not_done():
    async def main(_loop, disk, _clock):
        thread, done = disk.thread(), []
        first = thread.run(lambda: done.append(1))
        second = thread.run(lambda: done.append(2))
        second.cancel()
        await first
        await asyncio.sleep(1)
        assert done == [1]
        with pytest.raises(ZeroDivisionError):
            await thread.run(lambda: 1 / 0)

    on_a_disk(main)


def test_an_outbox_is_held_by_one_process_until_it_ends():
    async def main(loop, disk, _clock):
        async def hold():
            with disk.hold(PATH):
                await asyncio.sleep(1_000)

        process, _task = loop.processes.start("one", hold, loop.create_task)
        await asyncio.sleep(1)
        with pytest.raises(SpoolError, match="another process has it"), disk.hold(PATH):
            pass
        loop.processes.kill(process)
        with disk.hold(PATH):
            pass
        with disk.hold(PATH):
            pass

    on_a_disk(main)
