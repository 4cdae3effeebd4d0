"""The hook queue on Redis lists with an owner for each work list: leases, a reaper, fencing.

A worker moves tasks into a work list of its own, ``{hook}:{task_type}:work:<owner>``, and keeps a
lease on it. When it is gone the lease ends, and any other worker puts its tasks back (hazard R3).
An owner that lost its lease never gets it again: the worker goes on under the next name, and what
it still has in hand can be neither acknowledged nor given back.

Reads are never cancelled: whoever cancels a ``receive`` leaves the read going on, and what it
returns goes to the next one (hazard R2). A reply that is lost leaves a task in a list whose owner
is alive; the owner compares the list with what it has in hand and puts the rest back (R1).

Deliveries that came to nothing are counted in a hash by task id; the payload stays as it is.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from typing import Self

from redis.exceptions import OutOfMemoryError

from hookbench.clock import NS_PER_S, Clock, SystemClock
from hookbench.errors import BrokerUnreachableError, SettingError
from hookbench.ledger.events import Recorder
from hookbench.queues.base import Capabilities, Delivery, Depth
from hookbench.queues.redis_client import RedisClient
from hookbench.queues.redis_errors import (
    broker_errors,
    put_errors,
)
from hookbench.queues.redis_hands import RedisHands, RedisLeasedDelivery
from hookbench.queues.redis_lease import DEFAULT_LEASE_S, RedisLease
from hookbench.queues.redis_reaper import RedisSurvey, task_ids
from hookbench.queues.redis_scripts import (
    CLAIM,
    LOST,
    RETURN,
    TEND,
    run_often,
)
from hookbench.task import Names

__all__ = ["RedisLeasedQueue"]

_log = logging.getLogger(__name__)

_FULL_POLL_S = 0.05
_TRIES_PER_RENEWAL = 4


class RedisLeasedQueue:
    """One task type of the hook queue on Redis, read under leases.

    The lease is tended three times in its length: by ``receive`` while it waits, and by ``keep``
    beside it, which a worker runs for as long as it lives.

    Args:
        client: the commands; connections are the client's business.
        owner: a name that no other worker has, ever: put entropy into it.
        names: prefix of the keys.
        task_type: which lists.
        lease_s: how long a worker may be silent before its tasks are put back.
        adopt_after_s: how long an entry lies in the guide's shared work list before it is taken
            for an orphan; by default a lease. It must be longer than a task takes an older worker
            that still runs: nobody can ask that one.
        allow_oom: claim, renew and put back also at maxmemory (hazard R6), from Redis 7 on.
        recorder: is told what is put back.
        clock: for waits, and for when the lease is due.

    Raises:
        SettingError: the lease is too short for the resolution of its renewals.
    """

    name = "redis_leased"
    capabilities = Capabilities(
        redelivery=True, delayed_nak=False, in_progress=True, attempts=True, ordered=True
    )

    def __init__(
        self,
        client: RedisClient,
        *,
        owner: str,
        names: Names | None = None,
        task_type: str = "sync",
        lease_s: float = DEFAULT_LEASE_S,
        adopt_after_s: float | None = None,
        allow_oom: bool = False,
        recorder: Recorder | None = None,
        clock: Clock | None = None,
    ) -> None:
        names = names or Names()
        self._client = client
        self._pending = names.pending_key(task_type)
        self._attempts = names.attempts_key(task_type)
        self._allow_oom = allow_oom
        self._clock = clock or SystemClock()
        self._lease = RedisLease(
            client,
            owner=owner,
            names=names,
            task_type=task_type,
            lease_s=lease_s,
            adopt_after_s=adopt_after_s,
            allow_oom=allow_oom,
            recorder=recorder,
            clock=self._clock,
        )
        self._lease.on_lost = self._lose
        self._lease.on_tended = self._look
        self._survey = RedisSurvey(client, names=names, task_type=task_type)
        self._hands = RedisHands(
            client, self._lease, pending=self._pending, attempts=self._attempts
        )
        self._strays = False
        self._doubts = False
        self._more = True
        self._claiming = asyncio.Lock()
        self._reading: asyncio.Task[list[RedisLeasedDelivery]] | None = None
        self._arrived: deque[RedisLeasedDelivery] = deque()
        self._closed = False

    @property
    def owner(self) -> str:
        """The name of the present lease."""
        return self._lease.owner

    @property
    def work_key(self) -> str:
        """The list of the present lease."""
        return self._lease.work_key

    async def put(self, payload: bytes) -> int:
        """LPUSH, as the guide's producer does; the length of the list afterwards."""
        with put_errors(f"LPUSH {self._pending}", payload):
            return await self._client.lpush(self._pending, payload)

    async def receive(self, limit: int, wait_s: float) -> list[Delivery]:
        """One claim while there is more; else BLMOVE for the first task and a claim for the rest.

        A caller may cancel it: the read goes on, and the next ``receive`` gets what it brings.

        Raises:
            SettingError: no wait (BLMOVE would wait for ever).
            BrokerUnreachableError: no answer; what was moved without one is put back later.
        """
        if wait_s <= 0:
            raise SettingError(f"wait of {wait_s} s: BLMOVE needs more than 0 (0 waits for ever)")
        self._collect()
        if not self._arrived:
            if self._reading is None:
                if self._closed:
                    return []
                self._reading = asyncio.ensure_future(self._read(limit, wait_s))
            await asyncio.wait({self._reading})
            self._collect()
        return [self._arrived.popleft() for _ in range(min(limit, len(self._arrived)))]

    def _collect(self) -> None:
        """What the read brought, if it has ended."""
        reading = self._reading
        if reading is not None and reading.done():
            self._reading = None
            self._arrived.extend(reading.result())

    async def _read(self, limit: int, wait_s: float) -> list[RedisLeasedDelivery]:
        deadline_ns = self._clock.monotonic_ns() + int(wait_s * NS_PER_S)
        try:
            while not self._closed:
                await self.tend()
                async with self._claiming:
                    found = await self._read_once(limit, deadline_ns)
                if found is not None:
                    return found
        except BrokerUnreachableError:
            # Whatever was moved without an answer lies in the list, perhaps only in a while.
            self._strays = self._doubts = True
            raise
        return []

    async def _read_once(self, limit: int, deadline_ns: int) -> list[RedisLeasedDelivery] | None:
        """Deliveries; none when the time is over; ``None`` to go on."""
        if self._strays:
            await self._return_strays()
        if self._more:
            found = await self._claim(limit)
            self._more = len(found) == limit
            if found:
                return found
        left_s = (deadline_ns - self._clock.monotonic_ns()) / NS_PER_S
        if left_s <= 0:
            return []
        first = await self._wait(min(left_s, self._lease.every_s))
        if first is None:
            return None
        found = await self._claim(limit - 1, first)
        self._more = len(found) == limit
        return found or None

    async def _wait(self, wait_s: float) -> bytes | None:
        """BLMOVE into the own list, under a lease that is renewed in the same write.

        So it ends, on the server, well before the reaper forgets the list.
        """
        pipeline = self._client.pipeline(transaction=False)
        pipeline.eval(
            self._lease.script(TEND), 2, self._lease.key, self.work_key, *self._lease.arguments, 0
        )
        pipeline.blmove(self._pending, self.work_key, wait_s, "RIGHT", "LEFT")
        with broker_errors(f"BLMOVE {self._pending}"):
            lease, first = await pipeline.execute(raise_on_error=False)
            if isinstance(first, OutOfMemoryError) and self._allow_oom:
                await self._clock.sleep(min(wait_s, _FULL_POLL_S))
                self._more = True  # the script may do what BLMOVE may not
                return None
            if isinstance(first, Exception):
                raise first
        if isinstance(lease, Exception) or lease[0] == LOST:
            self._lease.make_due()
        payload: bytes | None = first
        return payload

    async def _claim(
        self, limit: int, first: bytes | None = None, *, expected: Sequence[bytes] = ()
    ) -> list[RedisLeasedDelivery]:
        """Move what is there, up to ``limit``, beside ``first`` that was moved already.

        With ``expected``, as many, only as far as it is these that come next.
        """
        work_key = self.work_key
        with broker_errors(f"claim from {self._pending}"):
            status, *found = await run_often(
                self._client,
                self._lease.script(CLAIM),
                (self._pending, work_key, self._lease.key, self._attempts),
                (self.owner, limit, "0" if first is None else "1", first or b"", *expected),
            )
        if status == LOST or work_key != self.work_key:
            # What was moved lies in a list that is reaped: it is not ours to hand out.
            self._lease.make_due()
            return []
        return [
            self._hands.take(payload, attempt=attempt)
            for payload, attempt in zip(found[::2], found[1::2], strict=True)
        ]

    async def oldest(self, count: int) -> list[bytes]:
        """Up to ``count`` tasks that would be taken next, the first of them first; none moves."""
        with broker_errors(f"LRANGE {self._pending}"):
            tail = await self._client.lrange(self._pending, -count, -1)
        return tail[::-1]

    async def take_oldest(self, expected: Sequence[bytes]) -> list[Delivery]:
        """Take these tasks, in order, as far as they are still the oldest; never waits.

        What lies in the own list without being in hand is put back first, as by ``receive``.
        """
        if self._closed or not expected:
            return []
        await self.tend()
        async with self._claiming:
            if self._strays:
                await self._return_strays()
            return [*await self._claim(len(expected), expected=expected)]

    async def tend(self) -> None:
        """If it is due: renew the lease, and put back what workers that are gone had in hand.

        Raises:
            BrokerUnreachableError: no answer; see ``RedisLease``.
        """
        await self._lease.tend()

    async def _look(self, length: int) -> None:
        """A list that is longer than what is in hand has strays; what is owed is settled."""
        # A task that is moved just now looks like one, which costs a look at the list.
        self._strays = self._strays or length > self._hands.held.total()
        await self._hands.pay()

    def _lose(self) -> None:
        _log.warning(
            "the lease of %s has ended: %d tasks in hand are put back by other workers",
            self.owner,
            self._hands.clear(),
        )

    async def _return_strays(self) -> None:
        """Put back what lies in the own list without being in hand.

        Nothing is claimed meanwhile. What is acknowledged meanwhile is not in the list any more.
        """
        work_key = self.work_key
        with broker_errors(f"LRANGE {work_key}"):
            lying = await self._client.lrange(work_key, 0, -1)
        if work_key != self.work_key:
            return
        hands = self._hands.held
        strays = []
        for payload in lying:
            if hands[payload] > 0:
                hands[payload] -= 1
            else:
                strays.append(payload)
        await self._return(work_key, strays)
        self._strays = False
        self._more = self._more or bool(strays)

    async def _return(self, work_key: str, payloads: list[bytes]) -> None:
        """Back to where they are read next, without counting a delivery: nobody had them."""
        if not payloads:
            return
        with broker_errors(f"return from {work_key}"):
            returned = await self._client.eval(
                self._lease.script(RETURN), 2, work_key, self._pending, *payloads
            )
        self._lease.record(task_ids(returned))

    async def depth(self) -> Depth:
        """What is not yet read, and what is in all work lists."""
        return await self._survey.depth()

    async def keep(self, stopping: asyncio.Event) -> None:
        """Tend the lease until ``stopping``, whether or not somebody receives."""
        while not stopping.is_set():
            pause_s = self._lease.every_s
            try:
                await self.tend()
                if self._strays and self._reading is None:
                    async with self._claiming:
                        await self._return_strays()
            except BrokerUnreachableError as error:
                # Soon again: whoever is back first reaps at its second renewal.
                pause_s /= _TRIES_PER_RENEWAL
                _log.warning("the lease of %s could not be renewed: %s", self.owner, error)
            await self._pause(pause_s, stopping)

    async def _pause(self, seconds: float, stopping: asyncio.Event) -> None:
        stop = asyncio.ensure_future(stopping.wait())
        timer = asyncio.ensure_future(self._clock.sleep(seconds))
        try:
            await asyncio.wait({stop, timer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
            timer.cancel()

    async def close(self) -> None:
        """Take nothing more; let a read run out on the server, and give back what it brings."""
        self._closed = True
        if self._reading is not None:
            await asyncio.wait({self._reading})
        try:
            self._collect()
            unread = [item for item in self._arrived if item.work_key == self.work_key]
            self._arrived.clear()
            await self._return(self.work_key, [item.payload for item in reversed(unread)])
            for item in unread:
                self._hands.let_go(item)
        except BrokerUnreachableError as error:
            self._doubts = True
            _log.warning("what was read last stays in %s: %s", self.work_key, error)

    async def release(self) -> None:
        """Give back all that is left in the own list, and end the lease: after the last ack."""
        try:
            await self._hands.pay()
            # A read without an answer may still wait on the server: then the reaper looks on.
            await self._lease.release(forget=not self._doubts)
        except BrokerUnreachableError as error:
            _log.warning("the lease of %s stays until it ends: %s", self.owner, error)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()
