"""Dead letters put back into the queue: the put is acknowledged before the letter goes."""

import uuid
from collections.abc import Awaitable, Callable, Collection, Sequence

import msgspec

from hookbench.errors import BrokerUnreachableError, OversizeError, SendError
from hookbench.migration.producer import Receipt
from hookbench.task import HookTask
from hookbench.worker.letters import LetterBox, StoredLetter

__all__ = ["Requeued", "Requeuer"]

_CUT = " bytes kept)"
"""The end of the reason of a letter that was too large for its stream, see ``NatsDeadLetters``."""

Forget = Callable[[Collection[uuid.UUID]], Awaitable[int]]
"""Of a done-store: removes the records of tasks that have ended, so that they can run again."""

Send = Callable[[HookTask], Awaitable[Receipt]]
"""``ReceiveSyncService.send``."""


class Requeued(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one letter.

    Attributes:
        put: whether the task was acknowledged by the brokers of the route.
        removed: whether the letter is gone.
        problem: why one of both is not so; empty otherwise.
    """

    id: str
    task_id: str
    put: bool
    removed: bool
    problem: str = ""


class Requeuer:
    """Puts tasks of dead letters back, with no retry counted and under their own id.

    Two letters about one task are one put. A crash between put and removal repeats the put when
    the letter is requeued again: never lost, perhaps executed once more. A task that is dead has
    ended, so a done-store that keeps that would have its copies skipped: it must forget it before
    the put.

    Args:
        boxes: where the letters lie.
        send: puts a task.
        forget: of the done-store, ``None`` without one.
        newest_sequence: the highest sequence that the hook stream has given now; ``None`` where
            the route does not write to it. A put that is answered with an earlier one was not
            stored: the stream knew the id from the put that the letter came of.
    """

    def __init__(
        self,
        boxes: Sequence[LetterBox],
        send: Send,
        *,
        forget: Forget | None = None,
        newest_sequence: Callable[[], Awaitable[int]] | None = None,
    ) -> None:
        self._boxes = {box.broker: box for box in boxes}
        self._send = send
        self._forget = forget
        self._newest_sequence = newest_sequence

    async def requeue(self, letters: Sequence[StoredLetter]) -> list[Requeued]:
        """One answer for each letter; what could not be put back stays where it is."""
        by_task: dict[str, list[StoredLetter]] = {}
        for stored in letters:
            by_task.setdefault(str(stored.task_id or stored.id), []).append(stored)
        answers = []
        for group in by_task.values():
            problem = await self._put(group[0])
            answers += [await self._finish(stored, problem) for stored in group]
        return answers

    async def _put(self, stored: StoredLetter) -> str:
        """Why the task is not back in the queue, empty if it is."""
        if stored.task is None:
            return _unfit(stored)
        try:
            before = 0 if self._newest_sequence is None else await self._newest_sequence()
            if self._forget is not None:
                await self._forget([stored.task.id])
            receipt = await self._send(msgspec.structs.replace(stored.task, retry_count=0))
        except (SendError, OversizeError, BrokerUnreachableError) as error:
            return str(error)
        if self._newest_sequence is not None and receipt.sequence is not None:
            if receipt.sequence <= before:
                return (
                    f"the stream has the task already, as sequence {receipt.sequence}, and stored"
                    " no other: requeue it when the stream's duplicate window has passed"
                )
        elif self._newest_sequence is not None:
            return "Redis took the task and NATS, which is read, did not: requeue it again"
        return ""

    async def _finish(self, stored: StoredLetter, problem: str) -> Requeued:
        task_id = str(stored.task_id or "-")
        if problem:
            return Requeued(
                id=stored.id, task_id=task_id, put=False, removed=False, problem=problem
            )
        try:
            removed = await self._boxes[stored.broker].remove(stored)
        except BrokerUnreachableError as error:
            return Requeued(
                id=stored.id, task_id=task_id, put=True, removed=False, problem=str(error)
            )
        problem = "" if removed else "somebody else removed the letter meanwhile"
        return Requeued(id=stored.id, task_id=task_id, put=True, removed=removed, problem=problem)


def _unfit(stored: StoredLetter) -> str:
    letter = stored.letter
    if letter is not None and letter.reason.endswith(_CUT):
        return "the letter holds a part of the task only: push or put it again at its source"
    return f"{stored.problem}: this is no task and stays a dead letter"
