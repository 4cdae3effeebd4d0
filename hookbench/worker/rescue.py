"""Tasks that are about to be too old for the stream go to the dead letters (hazard P7).

Any worker may do it at any time, and several at once: a letter carries a ``Nats-Msg-Id`` of its
task, what a letter holds already gets no second one, and what a worker may have in hand is left
alone. Who has it is known by the claim in the done-store; without one, only what the consumer has
never delivered is taken, and a task that is handed over at that very moment may be done as well.
"""

import contextlib
import logging
import uuid
from collections.abc import Callable
from typing import Any

import msgspec
import nats.errors
import nats.js.errors

from hookbench.clock import NS_PER_S, Clock
from hookbench.errors import BrokerUnreachableError, HookbenchError
from hookbench.ledger.events import Broker, Event, Recorder
from hookbench.migration.done_store import Claim, ClaimOutcome, DoneStore
from hookbench.queues.stream_windows import Stored, read_windows
from hookbench.queues.transport import AppTransport
from hookbench.queues.watermark import id_of_payload
from hookbench.worker.dead_letters import DeadLetter, NatsDeadLetters
from hookbench.worker.letter_ids import dead_in_nats

__all__ = ["AgeLimits", "Rescue", "RescueTotals"]

_log = logging.getLogger(__name__)

_LEASE_S = 30.0
_LONGEST_PAUSE_S = 60.0
_SHORTEST_PAUSE_S = 0.1
_PASSES_PER_AGE = 40
"""A task comes by several times between the alarm and the end of its time."""
_MOST_ALARM_WINDOWS = 64
"""Windows of tasks that are only counted, per pass; what is due is looked at in full, once."""


class AgeLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Parts of max-age: at which it is told, and at which a task is copied.

    Attributes:
        max_age_s: of the hook stream.
        alarm: a warning.
        rescue: a dead letter.
    """

    max_age_s: float
    alarm: float = 0.5
    rescue: float = 0.8

    @property
    def pause_s(self) -> float:
        """Between two passes."""
        pause_s = self.max_age_s / _PASSES_PER_AGE
        return min(_LONGEST_PAUSE_S, max(_SHORTEST_PAUSE_S, pause_s))


class RescueTotals(msgspec.Struct):
    """What one pass saw: tasks that age, and those that were copied now."""

    aging: int = 0
    rescued: int = 0
    oldest_s: float = 0.0


class Rescue:
    """Looks through the oldest tasks of a type, again and again.

    Args:
        transport: the connection.
        limits: ages.
        task_type: of the tasks.
        done: the authority on what is done; without it every task up to the last one that the
            consumer delivered is taken for done or in hand.
        clock: its wall clock is compared with the server's.
        recorder: is told of each task that is dead.
        announce: is told what ages, for whoever watches.
    """

    def __init__(
        self,
        transport: AppTransport,
        limits: AgeLimits,
        *,
        task_type: str,
        done: DoneStore | None,
        clock: Clock,
        recorder: Recorder,
        announce: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self._transport = transport
        self._limits = limits
        self._task_type = task_type
        self._done = done
        self._clock = clock
        self._recorder = recorder
        self._announce = announce or (lambda _event: None)
        self._letters = NatsDeadLetters(transport)
        self._owner = f"rescue-{transport.client.new_inbox().rpartition('.')[2]}"
        self._settled_below = 1
        """Every task of this type below this sequence has ended, or has been rescued."""

    async def keep(self) -> None:
        """Look, again and again, until cancelled; a look that fails is made again."""
        while True:
            try:
                totals = await self.look()
                if totals.aging:
                    self._announce({"event": "aging", **msgspec.structs.asdict(totals)})
            except HookbenchError as error:
                _log.warning("aging tasks are looked for again later: %s", error)
            await self._clock.sleep(self._limits.pause_s)

    async def look(self) -> RescueTotals:
        """One pass over what is older than the alarm, oldest first.

        Raises:
            BrokerUnreachableError, PublishRefusedError, PublishUnknownError: it did not get to
                the end; what was copied stays copied.
        """
        totals = RescueTotals()
        if not await self._has_aged():
            return totals
        first_sequence = await self._first_sequence()
        dead = await dead_in_nats(self._transport, self._task_type)
        names = self._transport.names
        reading = read_windows(
            self._transport,
            names.stream,
            subject=names.subject(self._task_type),
            first_sequence=first_sequence,
        )
        left, settled = _MOST_ALARM_WINDOWS, True
        async with contextlib.aclosing(reading) as windows:
            async for stored in windows:
                old = [item for item in stored if self._age_s(item) >= self._alarm_s]
                due = [item for item in old if self._age_s(item) >= self._rescue_s]
                in_hand = await self._handle(await self._open(old), dead, totals)
                settled = settled and not in_hand
                if settled and due:
                    self._settled_below = due[-1].sequence + 1
                left -= not due
                if len(old) < len(stored) or left == 0:
                    break
        if totals.aging:
            _log.warning(
                "%d tasks of %s are older than %g of max-age (%.0f s), the oldest %.0f s; %d copied"
                " to the dead letters",
                totals.aging,
                self._task_type,
                self._limits.alarm,
                self._limits.max_age_s,
                totals.oldest_s,
                totals.rescued,
            )
        return totals

    @property
    def _alarm_s(self) -> float:
        return self._limits.alarm * self._limits.max_age_s

    @property
    def _rescue_s(self) -> float:
        return self._limits.rescue * self._limits.max_age_s

    def _age_s(self, item: Stored) -> float:
        return (self._clock.wall_ns() - item.stored_ns) / NS_PER_S

    async def _has_aged(self) -> bool:
        """Whether the first task of the stream is old: one question, and mostly the only one."""
        names, jetstream = self._transport.names, self._transport.jetstream
        try:
            state = (await jetstream.stream_info(names.stream)).state
            if state.messages == 0:
                return False
            first = await jetstream.get_msg(names.stream, state.first_seq)
        except nats.js.errors.NotFoundError:
            return False  # no stream, or it has dropped the task meanwhile
        except (nats.errors.Error, TimeoutError) as error:
            raise BrokerUnreachableError(f"stream {names.stream}: {error!r}") from error
        if first.time is None:
            return False
        age_s = self._clock.wall_ns() / NS_PER_S - first.time.timestamp()
        return bool(age_s >= self._alarm_s)

    async def _first_sequence(self) -> int:
        """Where to begin: what lies before it has ended, or may be in the hand of a worker.

        What lies below the consumer's ack floor has ended, unless the consumer may give tasks up.
        Without a done-store nobody knows who has what was delivered.
        """
        names = self._transport.names
        durable = self._transport.consumer_of(names.subject(self._task_type)) or names.consumer
        try:
            info = await self._transport.jetstream.consumer_info(names.stream, durable)
        except nats.js.errors.NotFoundError:
            return self._settled_below
        except (nats.errors.Error, TimeoutError) as error:
            raise BrokerUnreachableError(f"consumer {durable}: {error!r}") from error
        before = 0
        if self._done is None:
            before = info.delivered.stream_seq if info.delivered else 0
        elif (info.config.max_deliver or 0) <= 0:
            before = info.ack_floor.stream_seq if info.ack_floor else 0
        return max(self._settled_below, before + 1)

    async def _open(self, stored: list[Stored]) -> list[tuple[Stored, uuid.UUID]]:
        """Those that are not done, as far as it is known."""
        found = [(item, id_of_payload(item.payload)) for item in stored]
        tasks = [(item, task) for item, task in found if task is not None]
        if self._done is None:
            return tasks
        done = await self._done.are_done([task for _item, task in tasks])
        return [(item, task) for item, task in tasks if task not in done]

    async def _handle(
        self,
        open_items: list[tuple[Stored, uuid.UUID]],
        dead: set[uuid.UUID],
        totals: RescueTotals,
    ) -> int:
        """Count what ages, and rescue what is due; how many a worker has in hand."""
        in_hand = 0
        for item, task in open_items:
            age_s = self._age_s(item)
            has_letter = task in dead
            if not has_letter:
                totals.aging += 1
                totals.oldest_s = max(totals.oldest_s, age_s)
            if age_s < self._rescue_s:
                continue
            if not await self._rescue(item, task, age_s, has_letter=has_letter):
                in_hand += 1
            elif not has_letter:
                totals.rescued += 1
        return in_hand

    async def _rescue(
        self, item: Stored, task: uuid.UUID, age_s: float, *, has_letter: bool
    ) -> bool:
        """Copy a task, and take it out of the stream; ``False`` if a worker has it in hand.

        Nobody can claim it meanwhile, and afterwards it has ended. One with a letter is still in
        the stream where a rescue was interrupted.
        """
        claim: Claim | None = None
        if self._done is not None:
            claim = await self._done.claim(task, self._owner, _LEASE_S)
            if claim.outcome is not ClaimOutcome.GRANTED:
                return False
        if not has_letter:
            await self._bury(item, task, age_s)
        if self._done is not None and claim is not None:
            await self._done.complete(claim)
        await self._remove(item)
        return True

    async def _bury(self, item: Stored, task: uuid.UUID, age_s: float) -> None:
        letter = DeadLetter.of(
            item.payload,
            task_type=self._task_type,
            reason=f"aged: {age_s:.1f} s of a max-age of {self._limits.max_age_s:g} s",
            broker=Broker.NATS,
            attempts=0,
            died_at_ns=self._clock.wall_ns(),
        )
        await self._letters.bury(letter, msg_id=f"aged-{task}")
        self._recorder.record(Event.DEAD, task.bytes, broker=Broker.NATS)

    async def _remove(self, item: Stored) -> None:
        """Its letter holds it, and no consumer is to deliver it."""
        stream = self._transport.names.stream
        try:
            await self._transport.jetstream.delete_msg(stream, item.sequence)
        except nats.js.errors.APIError:
            return  # it is gone, or the stream keeps what it has: the letter is what counts
        except (nats.errors.Error, TimeoutError) as error:
            raise BrokerUnreachableError(f"stream {stream}: {error!r}") from error
