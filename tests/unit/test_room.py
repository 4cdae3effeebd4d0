"""Room on the disk: refused at the start, watched, and told apart from other errors."""

import asyncio
import errno

import msgspec
import pytest

from hookbench.errors import ResultsError
from hookbench.ledger.events import SEGMENT_BYTES
from hookbench.migration.phases import Phase
from hookbench.rehearsal import room
from hookbench.rehearsal.room import RESERVE_BYTES, check_room, hold_reserve, watch_room
from hookbench.results.steps import plan_steps
from hookbench.results.store import Incident, StepRecord, encode_manifest
from tests.unit.test_store import make_manifest
from tests.virtual import VirtualClock


@pytest.fixture
def disk(monkeypatch):
    """A disk whose free room a test sets."""

    class Disk:
        free = 10 * SEGMENT_BYTES

    monkeypatch.setattr(room, "free_bytes", lambda _folder: Disk.free)
    return Disk


def test_a_run_begins_only_with_room_for_the_ledgers_of_its_processes(tmp_path, disk):
    out = tmp_path / "not" / "yet" / "there"
    disk.free = 6 * SEGMENT_BYTES + RESERVE_BYTES
    check_room(out, processes=5)
    disk.free -= 1
    with pytest.raises(ResultsError, match=rf"{out}: its disk is full \(18\.3 MiB .* --out"):
        check_room(out, processes=5)
    assert list(tmp_path.iterdir()) == []


async def test_a_body_is_cancelled_when_the_room_goes(tmp_path, disk):
    clock = VirtualClock()
    done = []

    async def body():
        async with watch_room(tmp_path, clock):
            await clock.sleep(10)
            disk.free = SEGMENT_BYTES - 1
            await clock.sleep(10)
            done.append("too far")

    with pytest.raises(ResultsError, match=r"disk is full .* the run was cut off"):
        await body()
    assert done == []
    assert asyncio.current_task().cancelling() == 0
    await asyncio.sleep(0)  # no cancellation is left over


async def test_a_body_with_room_ends_as_it_does_without(tmp_path, disk):
    assert disk.free
    async with watch_room(tmp_path, VirtualClock()):
        await asyncio.sleep(0)
    with pytest.raises(ValueError, match="mine"):
        async with watch_room(tmp_path, VirtualClock()):
            raise ValueError("mine")
    assert not [task for task in asyncio.all_tasks() if "watch_room" in repr(task.get_coro())]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
async def test_an_error_that_comes_of_a_full_disk_is_told_as_that(tmp_path, disk, number):
    """Somebody may have made room again before it is looked at."""
    assert disk.free > SEGMENT_BYTES

    async def body():
        async with watch_room(tmp_path, VirtualClock()):
            try:
                raise OSError(number, "no room")
            except OSError as error:
                raise ValueError("something else") from error

    with pytest.raises(ResultsError, match="disk is full") as caught:
        await body()
    assert str(caught.value.__cause__) == "something else"


async def test_any_error_on_a_full_disk_is_told_as_that(tmp_path, disk):
    async def body():
        async with watch_room(tmp_path, VirtualClock()):
            disk.free = 0
            raise ValueError("a broker that does not start")

    with pytest.raises(ResultsError, match="disk is full"):
        await body()


async def test_an_interrupt_stays_an_interrupt(tmp_path, disk):
    clock = VirtualClock()

    async def body():
        async with watch_room(tmp_path, clock):
            await asyncio.Event().wait()

    running = asyncio.ensure_future(body())
    await asyncio.sleep(0)
    disk.free = 0
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


def test_the_reserve_is_room_that_is_taken(tmp_path):
    hold_reserve(tmp_path / "reserve")
    status = (tmp_path / "reserve").stat()
    assert status.st_size == RESERVE_BYTES
    assert status.st_blocks * 512 >= RESERVE_BYTES


def test_the_largest_manifest_of_a_run_cut_off_fits_into_the_reserve():
    """100 steps, 64 producers, 64 workers and 20 replacements, an incident each."""
    plans = plan_steps([Phase.NATS_PRIMARY] * 100)
    long_ns = 10**18
    manifest = msgspec.structs.replace(
        make_manifest(),
        status="cut off",
        unknown_because=["cut off: " + "x" * 1_000],
        steps=[
            StepRecord(plan=plan, start_ns=long_ns, end_ns=long_ns, planned_ns=long_ns)
            for plan in plans
        ],
        incidents=[Incident(time_ns=long_ns, what="x" * 600) for _ in range(64 + 64 + 20 + 10)],
    )
    assert 100_000 < len(encode_manifest(manifest)) < RESERVE_BYTES
