"""What a worker asks the authority before it starts a task, and what it tells it afterwards."""

import itertools
import logging
from collections.abc import Awaitable, Callable

import msgspec

from hookbench.clock import NS_PER_S, Clock
from hookbench.errors import BrokerUnreachableError
from hookbench.ledger.events import Event, NullRecorder, Recorder
from hookbench.migration.done_store import Claim, ClaimOutcome, DoneStore, HeldClaim
from hookbench.migration.received import Received
from hookbench.task import HookTask

__all__ = ["ClaimSettings", "Claims", "complete", "give_back", "release"]

_log = logging.getLogger(__name__)

_COMPLETE_TRIES = 5
_COMPLETE_PAUSE_S = 0.2


class ClaimSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of claims.

    Attributes:
        lease_s: how long a claim is held without a word of its worker.
        wait_s: how long a delivery waits in the worker for a claim of another one to end, or for
            an authority that is away; then it is given back. It has a slot all the while.
        first_pause_s: between two questions, doubled from one to the next.
        give_back_s: the longest delay of a delivery that is given back.
    """

    lease_s: float = 10.0
    wait_s: float = 0.5
    first_pause_s: float = 0.01
    give_back_s: float = 2.0


class Claims:
    """Claims tasks for one worker.

    Args:
        store: the authority.
        owner: names the worker; each claim has a number of its own behind it.
        clock: of the waits.
        settings: the bounds.
        recorder: is told of each granted claim.
        ordered_type: tasks of this type are ended unexecuted when a later one of their repository
            is done, see ``Measures``.
    """

    def __init__(
        self,
        store: DoneStore,
        *,
        owner: str,
        clock: Clock,
        settings: ClaimSettings | None = None,
        recorder: Recorder | None = None,
        ordered_type: str | None = None,
    ) -> None:
        self._store = store
        self._ordered_type = ordered_type
        self._owner = owner
        self._clock = clock
        self._recorder = recorder or NullRecorder()
        self._numbers = itertools.count()
        self.settings = settings or ClaimSettings()

    async def take(self, item: Received, task: HookTask, *, most: int = 0) -> Claim | None:
        """The answer of the authority; a granted claim is in ``item`` from then on.

        A claim of another worker is waited for, since it ends soon as a rule: it is the other copy
        of the task. So is an authority that is away; then the answer is ``None``. One that has had
        ``most`` attempts is not superseded.
        """
        settings = self.settings
        owner = f"{self._owner}.{next(self._numbers)}"
        repository = task.repo_id if task.task_type == self._ordered_type else ""
        # Nobody has a delivery any more that was acknowledged early: it can only be waited out.
        wait_s = settings.wait_s if not item.settled else 2 * settings.lease_s + settings.wait_s
        deadline_ns = self._clock.monotonic_ns() + int(wait_s * NS_PER_S)
        pause_s = settings.first_pause_s
        while True:
            claim: Claim | None = None
            try:
                claim = await self._store.claim(
                    task.id, owner, settings.lease_s, repository=repository, most=most
                )
            except BrokerUnreachableError as error:
                _log.warning("task %s cannot be claimed: %s", task.id, error)
            if claim is not None and claim.outcome is not ClaimOutcome.HELD:
                break
            left_s = (deadline_ns - self._clock.monotonic_ns()) / NS_PER_S
            if left_s <= 0:
                return claim
            await self._clock.sleep(min(pause_s, left_s))
            pause_s *= 2
        if claim.outcome is ClaimOutcome.GRANTED:
            item.claim = HeldClaim(self._store, claim, settings.lease_s)
            self._recorder.record(
                Event.CLAIMED,
                task.id.bytes,
                broker=item.delivery.broker,
                value=claim.token,
                attempt=claim.attempt,
            )
        return claim

    def delay_s(self, claim: Claim | None) -> float:
        """How long a delivery is to stay away that was not granted."""
        longest_s = self.settings.give_back_s
        return longest_s if claim is None else min(claim.held_for_s, longest_s)


async def complete(claim: HeldClaim, clock: Clock) -> bool:
    """Whether the task is recorded as ended by this claim; asked again while the store is away.

    ``False`` also where that cannot be known in the end: then somebody else may be given the task.
    """
    for attempt in range(1, _COMPLETE_TRIES + 1):
        try:
            return await claim.complete()
        except BrokerUnreachableError as error:
            _log.warning(
                "task %s done, not recorded (try %d of %d): %s",
                claim.granted.task_id,
                attempt,
                _COMPLETE_TRIES,
                error,
            )
            await clock.sleep(_COMPLETE_PAUSE_S * attempt)
    return False


async def release(claim: HeldClaim | None, *, failure: str = "") -> None:
    """Give a claim up, as far as the store can be told; else its lease ends."""
    if claim is None:
        return
    try:
        await claim.release(failure=failure)
    except BrokerUnreachableError as error:
        _log.warning("claim on task %s is left to its lease: %s", claim.granted.task_id, error)


def give_back(item: Received, delay_s: float) -> Callable[[], Awaitable[None]]:
    """Give back a delivery that was not tried; a queue that counts in the task does not count it.

    Where the queue cannot wait it is there again at once.
    """
    unchanged: Callable[[], Awaitable[None]] | None = getattr(item.delivery, "give_back", None)
    return unchanged or (lambda: item.delivery.nak(delay_s))
