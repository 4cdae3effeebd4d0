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
from collections import Counter, deque
from typing import Self

from redis.exceptions import OutOfMemoryError

from hookbench.clock import NS_PER_S, Clock, SystemClock
from hookbench.errors import BrokerUnreachableError, LeaseLostError, SettingError
from hookbench.ledger.events import Broker, Event, NullRecorder, Recorder
from hookbench.queues.base import Capabilities, Delivery, Depth
from hookbench.queues.redis_client import RedisClient, broker_errors, put_errors
from hookbench.queues.redis_reaper import RedisReaper, RedisSurvey, task_ids
from hookbench.queues.redis_scripts import (
    CLAIM,
    LOST,
    MAY_REAP,
    NAK,
    RETURN,
    SETTLE,
    TEND,
    at_maxmemory,
)
from hookbench.task import Names

__all__ = ["DEFAULT_LEASE_S", "RedisLeasedDelivery", "RedisLeasedQueue"]

_log = logging.getLogger(__name__)

DEFAULT_LEASE_S = 10.0
MINIMUM_LEASE_S = 0.1
_TENDED_PER_LEASE = 3
_MS_PER_S = 1000
_FULL_POLL_S = 0.05
_MAX_OWNERS = 100
_MAX_STRAYS = 1000


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
        if lease_s < MINIMUM_LEASE_S:
            raise SettingError(f"lease of {lease_s} s: use {MINIMUM_LEASE_S} s or more")
        self._client = client
        self._names = names or Names()
        self._task_type = task_type
        self._pending = self._names.pending_key(task_type)
        self._leases = self._names.leases_key(task_type)
        self._attempts = self._names.attempts_key(task_type)
        self._base_owner = owner
        self._lease_s = lease_s
        self._tend_every_ns = int(lease_s * NS_PER_S / _TENDED_PER_LEASE)
        self._allow_oom = allow_oom
        self._recorder = recorder or NullRecorder()
        self._clock = clock or SystemClock()
        self._reaper = RedisReaper(
            client,
            names=self._names,
            task_type=task_type,
            adopt_after_s=lease_s if adopt_after_s is None else adopt_after_s,
            allow_oom=allow_oom,
            requeued=self._record,
        )
        self._survey = RedisSurvey(client, names=self._names, task_type=task_type)
        self._generation = 0
        self._held: Counter[bytes] = Counter()
        self._registered = False
        self._due_ns = 0
        self._tending = asyncio.Lock()
        self._owed: dict[RedisLeasedDelivery, bool] = {}
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
        return f"{self._base_owner}.{self._generation}"

    @property
    def work_key(self) -> str:
        """The list of the present lease."""
        return self._names.own_work_key(self._task_type, self.owner)

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

    async def _read(self, limit: int, wait_s: float) -> list["RedisLeasedDelivery"]:
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

    async def _read_once(self, limit: int, deadline_ns: int) -> list["RedisLeasedDelivery"] | None:
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
        first = await self._wait(min(left_s, self._tend_every_ns / NS_PER_S))
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
        pipeline.eval(self._script(TEND), 2, self._leases, self.work_key, *self._lease(), 0)
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
            self._due_ns = 0
        payload: bytes | None = first
        return payload

    async def _claim(self, limit: int, first: bytes | None = None) -> list["RedisLeasedDelivery"]:
        """Move what is there, up to ``limit``, beside ``first`` that was moved already."""
        work_key = self.work_key
        with broker_errors(f"claim from {self._pending}"):
            status, *found = await self._client.eval(
                self._script(CLAIM),
                4,
                self._pending,
                work_key,
                self._leases,
                self._attempts,
                self.owner,
                limit,
                "0" if first is None else "1",
                b"" if first is None else first,
            )
        if status == LOST or work_key != self.work_key:
            # What was moved lies in a list that is reaped: it is not ours to hand out.
            self._due_ns = 0
            return []
        payloads, attempts = found[::2], found[1::2]
        self._held.update(payloads)
        return [
            RedisLeasedDelivery(self, payload, work_key=work_key, attempt=attempt)
            for payload, attempt in zip(payloads, attempts, strict=True)
        ]

    async def tend(self) -> None:
        """If it is due: renew the lease, and put back what workers that are gone had in hand.

        Raises:
            BrokerUnreachableError: no answer. A lease that was not renewed stays due; what else was
                left undone is due when the lease is.
        """
        async with self._tending:
            if self._clock.monotonic_ns() < self._due_ns:
                return
            begun_ns = self._clock.monotonic_ns()
            with broker_errors(f"renewal of {self._leases}"):
                status, length, *ended = await self._client.eval(
                    self._script(TEND), 2, self._leases, self.work_key, *self._lease(), _MAX_OWNERS
                )
            if status == LOST:
                self._go_on_anew()
                return
            self._registered = True
            self._due_ns = begun_ns + self._tend_every_ns
            # A task that is moved just now looks like one, which costs a look at the list.
            self._strays = self._strays or length > self._held.total()
            await self._pay()
            if status == MAY_REAP:
                await self._reaper.reap(ended)

    def _lease(self) -> tuple[str, int, str]:
        """What ``TEND`` is told of the lease."""
        return self.owner, round(self._lease_s * _MS_PER_S), "0" if self._registered else "1"

    def _go_on_anew(self) -> None:
        _log.warning(
            "the lease of %s has ended: %d tasks in hand are put back by other workers",
            self.owner,
            self._held.total(),
        )
        self._generation += 1
        self._registered = False
        self._held.clear()
        self._owed.clear()
        self._due_ns = 0

    async def _return_strays(self) -> None:
        """Put back what lies in the own list without being in hand.

        Nothing is claimed meanwhile. What is acknowledged meanwhile is not in the list any more.
        """
        work_key = self.work_key
        with broker_errors(f"LRANGE {work_key}"):
            lying = await self._client.lrange(work_key, 0, _MAX_STRAYS - 1)
        if work_key != self.work_key:
            return
        hands = Counter(self._held)
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
                self._script(RETURN), 2, work_key, self._pending, *payloads
            )
        self._record(task_ids(returned))

    def _record(self, tasks: list[bytes]) -> None:
        for task in tasks:
            self._recorder.record(Event.REQUEUED, task, broker=Broker.REDIS)
        if tasks:
            _log.warning("%d tasks that no worker had in hand are put back", len(tasks))

    async def settle(self, delivery: "RedisLeasedDelivery", *, again: bool) -> None:
        """Remove a delivery from its list, and put it back for another one if ``again``.

        Where no answer comes it is owed: it is tried again when the lease is tended, for nobody
        else may do it while the worker lives.

        Raises:
            LeaseLostError: it is not there any more, and was not put back.
            BrokerUnreachableError: no answer.
        """
        if delivery in self._owed:
            await self._demand(delivery)
        if delivery.settled:
            return
        try:
            held = await self._remove(delivery, again=again)
        except BrokerUnreachableError:
            if delivery.work_key == self.work_key:
                self._owed[delivery] = again
            raise
        self._let_go(delivery)
        if not held:
            raise _lost(delivery)

    async def _demand(self, delivery: "RedisLeasedDelivery") -> None:
        """Settle what is owed now: in its turn, for two tries at once could undo each other."""
        if not await self._is_alive(delivery):
            raise _lost(delivery)
        if not delivery.settled:
            raise BrokerUnreachableError(f"no answer yet to LREM {delivery.work_key}")

    async def _remove(self, delivery: "RedisLeasedDelivery", *, again: bool) -> int:
        """How many entries the list held: one or none."""
        payload, work_key = delivery.payload, delivery.work_key
        with broker_errors(f"LREM {work_key}"):
            if again:
                keys = (work_key, self._pending, self._attempts)
                held = await self._client.eval(self._script(NAK), 3, *keys, payload)
            elif delivery.attempt > 1:
                held = await self._client.eval(
                    self._script(SETTLE), 2, work_key, self._attempts, payload
                )
            else:
                held = await self._client.lrem(work_key, 1, payload)
        return int(held)

    async def _pay(self) -> None:
        """Settle what is owed; what the list no longer holds was settled without an answer."""
        for delivery, again in list(self._owed.items()):
            await self._remove(delivery, again=again)
            self._let_go(delivery)

    async def _is_alive(self, delivery: "RedisLeasedDelivery") -> bool:
        """Whether the lease of a delivery still lasts; it is renewed."""
        self._due_ns = 0
        await self.tend()
        return delivery.work_key == self.work_key

    def _let_go(self, delivery: "RedisLeasedDelivery") -> None:
        delivery.settled = True
        self._owed.pop(delivery, None)
        if delivery.work_key == self.work_key:
            self._held -= Counter([delivery.payload])  # an in-place difference keeps no zeros

    async def ensure_held(self, delivery: "RedisLeasedDelivery") -> None:
        """Renew the lease of a delivery.

        Raises:
            LeaseLostError: it has ended, and the task was put back.
            BrokerUnreachableError: no answer.
        """
        if not await self._is_alive(delivery):
            raise _lost(delivery)

    async def depth(self) -> Depth:
        """What is not yet read, and what is in all work lists."""
        return await self._survey.depth()

    async def keep(self, stopping: asyncio.Event) -> None:
        """Tend the lease until ``stopping``, whether or not somebody receives."""
        pause_s = self._tend_every_ns / NS_PER_S
        while not stopping.is_set():
            try:
                await self.tend()
                if self._strays and self._reading is None:
                    async with self._claiming:
                        await self._return_strays()
            except BrokerUnreachableError as error:
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
                self._let_go(item)
        except BrokerUnreachableError as error:
            self._doubts = True
            _log.warning("what was read last stays in %s: %s", self.work_key, error)

    async def release(self) -> None:
        """Give back all that is left in the own list, and end the lease: after the last ack."""
        try:
            await self._pay()
            if self._registered:
                # A read without an answer may still wait on the server: then the reaper looks on.
                await self._reaper.release(self.owner, forget=not self._doubts)
                self._registered = False
        except BrokerUnreachableError as error:
            _log.warning("the lease of %s stays until it ends: %s", self.owner, error)

    def _script(self, script: str) -> str:
        return at_maxmemory(script) if self._allow_oom else script

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()


class RedisLeasedDelivery:
    """A task in the list of a lease."""

    broker = Broker.REDIS
    sequence = 0
    __slots__ = ("_queue", "attempt", "payload", "settled", "work_key")

    def __init__(
        self, queue: RedisLeasedQueue, payload: bytes, *, work_key: str, attempt: int
    ) -> None:
        self._queue = queue
        self.payload = payload
        self.work_key = work_key
        self.attempt = attempt
        self.settled = False

    async def ack(self) -> None:
        """LREM from the list of the lease.

        Raises:
            LeaseLostError: the lease has ended, and another worker has the task.
        """
        await self._queue.settle(self, again=False)

    async def nak(self, delay_s: float = 0.0) -> None:  # noqa: ARG002 - see capabilities
        """Back to the queue at once, unless the lease has ended; a list cannot delay."""
        await self._queue.settle(self, again=True)

    async def term(self, reason: str) -> None:  # noqa: ARG002 - the dead letter holds it
        """As ``ack``: the dead letter is stored already."""
        await self._queue.settle(self, again=False)

    async def in_progress(self) -> None:
        """Renew the lease if that is due; a worker that runs ``keep`` need not."""
        await self._queue.tend()

    async def ensure_held(self) -> None:
        """See ``Leased``."""
        await self._queue.ensure_held(self)


def _lost(delivery: RedisLeasedDelivery) -> LeaseLostError:
    return LeaseLostError(
        f"a task is not in {delivery.work_key} any more: its lease has ended, and another worker has"
        " it; if that comes often, use a longer lease"
    )
