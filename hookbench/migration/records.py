"""Copies done-records from one authority to another one, and tells which it does not have.

The source has a log of what changed, the target a mark of how far it knows that log. A copy and a
check read what changed since the mark, and the claims that were open then. Where there is no mark,
or the log does not reach back to it (a Redis that lost data, a bucket that is new), all records
are compared; whoever wants the last word asks for that too. A mark is moved only when the target,
asked again, knows all that was read, so a copy that is killed anywhere is repeated from there.
"""

import asyncio
import math
import uuid
from collections.abc import AsyncIterator, Sequence

import msgspec

from hookbench.queues.authority import Changes, DoneRecord, MoveMark, RecordSource, RecordTarget

__all__ = ["MovedRecords", "Unmoved", "catch_up", "find_unmoved", "move_records"]

_EXAMPLES = 5
_AT_ONCE = 64
_GROUP = 200_000
_MAX_OPEN = 10_000
"""Claims that a mark names; where more are open it stays where it is."""
_PASSES = 8
_FEW = 50


class MovedRecords(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the records that were to be moved.

    Attributes:
        read: records of the source.
        copied: those that the target took now; the others it had before.
        done: ended tasks of the source.
        live: claims whose lease has not ended: the target has only learnt their tokens, so that
            its own are above them.
        missing: ended tasks that the target, asked again, does not know as ended.
        examples: ids of some live or missing tasks.
        whole: whether all records were read, and not only what changed.
    """

    read: int = 0
    copied: int = 0
    done: int = 0
    live: int = 0
    missing: int = 0
    examples: tuple[uuid.UUID, ...] = ()
    whole: bool = False

    @property
    def complete(self) -> bool:
        """Whether the authority may be moved: nothing is claimed, and all that ended is known."""
        return self.live == 0 and self.missing == 0


class Unmoved(msgspec.Struct, frozen=True, kw_only=True):
    """Tasks that one store knows as ended, or claimed, and the next one does not.

    Attributes:
        ages_s: by task, how long ago that was recorded, by the source's clock; infinite where only
            the records were read, or the claim was open at the mark, which do not tell.
        whole: whether all records were compared.
    """

    ages_s: dict[uuid.UUID, float]
    whole: bool


async def _in_groups(
    parts: AsyncIterator[Sequence[DoneRecord]],
) -> AsyncIterator[list[DoneRecord]]:
    """In long lists: asked about many, a target reads through what it has."""
    group: list[DoneRecord] = []
    async for part in parts:
        group += part
        if len(group) >= _GROUP:
            yield group
            group = []
    if group:
        yield group


async def _since_the_mark(
    source: RecordSource, target: RecordTarget
) -> tuple[MoveMark, Changes] | None:
    """What changed since the target was marked; ``None`` if that is not known."""
    mark = await target.read_mark()
    if mark is None:
        return None
    changes = await source.changes_after(mark.place)
    return None if changes is None else (mark, changes)


async def move_records(
    source: RecordSource, target: RecordTarget, *, whole: bool = False
) -> MovedRecords:
    """Copy what changed since the target was marked, or all, and ask the target what it knows.

    With all records goes the order of the repositories. It can be repeated, after a crash too: what
    the target has already is not written again. The workers must stand still, or use the target,
    when it is called for the last time; a worker that changes its authority calls it too, for what
    it did itself (see ``MovingStore``).

    Raises:
        BrokerUnreachableError: one of both is away; nothing has to be undone.
    """
    since = None if whole else await _since_the_mark(source, target)
    if since is None:
        # The end before the records: what changes while they are read is read the next time.
        end = await source.log_end()
        parts = source.records()
    else:
        mark, changes = since
        end = changes.end
        parts = source.records_of({*mark.open, *changes.ages_s})
    counts = dict.fromkeys(("read", "copied", "done", "missing"), 0)
    live: list[uuid.UUID] = []
    examples: list[uuid.UUID] = []
    async for group in _in_groups(parts):
        live += [record.task_id for record in group if record.live]
        done = {record.task_id for record in group if record.done}
        known = await target.are_done(done)
        new = [item for item in group if item.task_id not in known]
        counts["copied"] += await _put(new, target)
        if new:
            known = await target.are_done(done)
        missing = sorted(done - known)
        counts["read"] += len(group)
        counts["done"] += len(done)
        counts["missing"] += len(missing)
        examples += missing
    if since is None:
        # From then on whoever asks both stores tells both: what changed since is known.
        await target.put_orders(await source.orders())
    if end is not None and not counts["missing"] and len(live) <= _MAX_OPEN:
        await target.write_mark(MoveMark(place=end, open=tuple(live)))
    return MovedRecords(
        **counts,
        live=len(live),
        examples=tuple([*live, *examples][:_EXAMPLES]),
        whole=since is None,
    )


async def _put(records: Sequence[DoneRecord], target: RecordTarget) -> int:
    """How many the target took, but for those that are still claimed."""
    count = 0
    for start in range(0, len(records), _AT_ONCE):
        part = records[start : start + _AT_ONCE]
        taken = await asyncio.gather(*map(target.put_record, part))
        count += sum(took and not item.live for took, item in zip(taken, part, strict=True))
    return count


async def catch_up(
    source: RecordSource, target: RecordTarget, *, whole: bool = False
) -> MovedRecords:
    """Copy again what ended during a copy, until there is little of it, or it gets no less.

    Each pass takes as long as what the one before left, so that under load the last one leaves
    what ended within moments. Told is what all of them copied, and else what the last one saw.

    Raises:
        BrokerUnreachableError: one of both is away; nothing has to be undone.
    """
    moved = await move_records(source, target, whole=whole)
    copied, compared = moved.copied, moved.whole
    for _ in range(_PASSES):
        last = moved.copied
        if last <= _FEW:
            break
        moved = await move_records(source, target)
        copied += moved.copied
        compared |= moved.whole
        if moved.copied > last // 2:
            break
    return msgspec.structs.replace(moved, copied=copied, whole=compared)


async def find_unmoved(
    source: RecordSource, target: RecordTarget, *, whole: bool = False
) -> Unmoved:
    """Which tasks have ended, or are claimed, without the target knowing; nothing is written.

    With ``whole`` all records are compared, unless what changed last tells enough already.

    Raises:
        BrokerUnreachableError: one of both is away.
    """
    since = await _since_the_mark(source, target)
    if since is not None:
        mark, changes = since
        changed = source.records_of({*mark.open, *changes.ages_s})
        missing = await _missing(source, changed, target)
        if missing or not whole:
            found = {task: changes.ages_s.get(task, math.inf) for task in missing}
            return Unmoved(ages_s=found, whole=False)
    missing = await _missing(source, source.records(), target)
    return Unmoved(ages_s=dict.fromkeys(missing, math.inf), whole=True)


async def _missing(
    source: RecordSource, parts: AsyncIterator[Sequence[DoneRecord]], target: RecordTarget
) -> set[uuid.UUID]:
    missing: set[uuid.UUID] = set()
    async for group in _in_groups(parts):
        done = {record.task_id for record in group if record.done}
        missing |= done - await target.are_done(done)
        missing |= await _claimed_alone(source, group, target)
    return missing


async def _claimed_alone(
    source: RecordSource, group: Sequence[DoneRecord], target: RecordTarget
) -> set[uuid.UUID]:
    """Those that are claimed on the source, and neither claimed nor ended on the target.

    A claim that ends while it is looked at is none: so the source is asked once more.
    """
    tokens = {record.task_id: record.token for record in group if record.live}
    async for part in target.records_of([*tokens]):
        for record in part:
            if record.live or record.done:
                tokens.pop(record.task_id, None)
    still: set[uuid.UUID] = set()
    async for part in source.records_of([*tokens]):
        still |= {item.task_id for item in part if item.live and item.token == tokens[item.task_id]}
    return still
