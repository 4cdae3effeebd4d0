"""What a worker with a lease has in hand: deliveries, and how each of them ends."""

from collections import Counter

from hookbench.errors import BrokerUnreachableError, LeaseLostError
from hookbench.ledger.events import Broker
from hookbench.queues.redis_client import RedisClient
from hookbench.queues.redis_errors import broker_errors
from hookbench.queues.redis_lease import RedisLease
from hookbench.queues.redis_scripts import NAK, SETTLE

__all__ = ["RedisHands", "RedisLeasedDelivery"]


class RedisHands:
    """The deliveries of one lease, and what could not be settled yet.

    Args:
        client: the commands.
        lease: whose list they are in.
        pending: the key that a task goes back to.
        attempts: the key of the deliveries that came to nothing.
    """

    def __init__(
        self, client: RedisClient, lease: RedisLease, *, pending: str, attempts: str
    ) -> None:
        self._client = client
        self._lease = lease
        self._pending = pending
        self._attempts = attempts
        self._held: Counter[bytes] = Counter()
        self._owed: dict[RedisLeasedDelivery, bool] = {}

    def take(self, payload: bytes, *, attempt: int) -> "RedisLeasedDelivery":
        """What was moved into the list of the lease."""
        self._held[payload] += 1
        return RedisLeasedDelivery(self, payload, work_key=self._lease.work_key, attempt=attempt)

    @property
    def held(self) -> Counter[bytes]:
        """How often each payload is in hand, in a copy."""
        return Counter(self._held)

    def clear(self) -> int:
        """Nothing is in hand any more; how much was."""
        count = self._held.total()
        self._held.clear()
        self._owed.clear()
        return count

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
            if delivery.work_key == self._lease.work_key:
                self._owed[delivery] = again
            raise
        self.let_go(delivery)
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
                held = await self._client.eval(self._lease.script(NAK), 3, *keys, payload)
            elif delivery.attempt > 1:
                held = await self._client.eval(
                    self._lease.script(SETTLE), 2, work_key, self._attempts, payload
                )
            else:
                held = await self._client.lrem(work_key, 1, payload)
        return int(held)

    async def pay(self) -> None:
        """Settle what is owed; what the list no longer holds was settled without an answer."""
        for delivery, again in list(self._owed.items()):
            await self._remove(delivery, again=again)
            self.let_go(delivery)

    async def _is_alive(self, delivery: "RedisLeasedDelivery") -> bool:
        """Whether the lease of a delivery still lasts; it is renewed."""
        self._lease.make_due()
        await self.tend()
        return delivery.work_key == self._lease.work_key

    def let_go(self, delivery: "RedisLeasedDelivery") -> None:
        """It is in hand no more: settled, given back, or lost."""
        delivery.settled = True
        self._owed.pop(delivery, None)
        if delivery.work_key == self._lease.work_key:
            self._held[delivery.payload] -= 1
            if self._held[delivery.payload] <= 0:
                del self._held[delivery.payload]

    async def ensure_held(self, delivery: "RedisLeasedDelivery") -> None:
        """Renew the lease of a delivery.

        Raises:
            LeaseLostError: it has ended, and the task was put back.
            BrokerUnreachableError: no answer.
        """
        if not await self._is_alive(delivery):
            raise _lost(delivery)

    async def tend(self) -> None:
        """See ``RedisLease``."""
        await self._lease.tend()


class RedisLeasedDelivery:
    """A task in the list of a lease."""

    broker = Broker.REDIS
    sequence = 0
    __slots__ = ("_hands", "attempt", "payload", "settled", "work_key")

    def __init__(self, hands: RedisHands, payload: bytes, *, work_key: str, attempt: int) -> None:
        self._hands = hands
        self.payload = payload
        self.work_key = work_key
        self.attempt = attempt
        self.settled = False

    async def ack(self) -> None:
        """LREM from the list of the lease.

        Raises:
            LeaseLostError: the lease has ended, and another worker has the task.
        """
        await self._hands.settle(self, again=False)

    async def nak(self, delay_s: float = 0.0) -> None:  # noqa: ARG002 - see capabilities
        """Back to the queue at once, unless the lease has ended; a list cannot delay."""
        await self._hands.settle(self, again=True)

    async def term(self, reason: str) -> None:  # noqa: ARG002 - the dead letter holds it
        """As ``ack``: the dead letter is stored already."""
        await self._hands.settle(self, again=False)

    async def in_progress(self) -> None:
        """Renew the lease if that is due; a worker that runs ``keep`` need not."""
        await self._hands.tend()

    async def ensure_held(self) -> None:
        """See ``Leased``."""
        await self._hands.ensure_held(self)


def _lost(delivery: RedisLeasedDelivery) -> LeaseLostError:
    return LeaseLostError(
        f"a task is not in {delivery.work_key} any more: its lease has ended, and another worker"
        " has it; if that comes often, use a longer lease"
    )
