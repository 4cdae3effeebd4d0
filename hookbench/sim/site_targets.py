"""What a fault of a rehearsal finds at a simulated site: its brokers, and its processes' orders."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

import nats.errors
import redis.exceptions

from hookbench.errors import BrokerUnreachableError, SettingError
from hookbench.faults.memory import FaultMemory
from hookbench.faults.orders import Order, OrderBook
from hookbench.migration.phases import Phase
from hookbench.queues.redis_list import RedisListQueue
from hookbench.sim.clock import SimulatedClock
from hookbench.sim.dialer import SimulatedDialer
from hookbench.sim.network import Network
from hookbench.sim.redis.client import SimulatedRedis, connect_simulated_redis
from hookbench.task import Names

__all__ = ["ADMINISTRATION", "SimulatedTargets", "SiteAdministration", "SiteOrders"]

ADMINISTRATION = "administration"
"""Whose links are used."""
_ASK_S = 2.0
_TASK_TYPE = "sync"


class SiteOrders:
    """One book for all workers, and one for the producers: whoever takes a place has it too."""

    def __init__(self) -> None:
        self.books = {"workers": OrderBook(), "producers": OrderBook()}
        self._in_force: dict[str, dict[int, Order]] = {role: {} for role in self.books}
        self._roles: dict[int, str] = {}

    def give(self, target: str, order: Order) -> int:
        """Tell all processes of a role."""
        number = len(self._roles) + 1
        self._roles[number] = target
        self._in_force[target][number] = order
        self.books[target].obey(self._in_force[target])
        return number

    def withdraw(self, number: int) -> None:
        """Tell them that it is over."""
        role = self._roles[number]
        self._in_force[role].pop(number)
        self.books[role].obey(self._in_force[role])

    def hits(self, number: int) -> list[int]:
        """How often they have obeyed, all together."""
        return [self.books[self._roles[number]].hits(number)]


class SiteAdministration:
    """Commands and requests straight to the brokers, over links of their own.

    Args:
        urls: of Redis and NATS.
        network: to them.
        dialer: of nobody else.
        clock: of the run.
    """

    def __init__(
        self,
        urls: tuple[str, str],
        network: Network,
        dialer: SimulatedDialer,
        clock: SimulatedClock,
    ) -> None:
        self.names = Names()
        self._redis_url, self._nats_url = urls
        self._network = network
        self._dialer = dialer
        self._clock = clock

    def nodes(self, broker: str) -> list[str]:
        """One node each: of a Redis with a replica the master."""
        return [broker]

    async def redis(self, _node: str, *words: str | int) -> Any:
        """One command to Redis.

        Raises:
            BrokerUnreachableError: no answer, or an error.
        """
        nodes = self._redis_url.partition("://")[2].split(",")
        opened = connect_simulated_redis(self._network, ADMINISTRATION, nodes)
        client = cast("SimulatedRedis", opened)  # any command, not only those of the queues
        try:
            return await client.execute_command(*words)
        except (redis.exceptions.RedisError, OSError) as error:
            raise BrokerUnreachableError(f"redis did not answer {words[0]}: {error!r}") from error
        finally:
            await client.aclose()

    async def jetstream(
        self, request: str, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """The answer to a request to ``$JS.API.``.

        Raises:
            BrokerUnreachableError: none within two seconds.
        """
        data = b"" if body is None else json.dumps(body).encode()
        try:
            async with asyncio.timeout(2 * _ASK_S):
                transport = await self._dialer.nats(
                    self._nats_url, names=self.names, clock=self._clock
                )
                try:
                    answer = await transport.client.request(
                        f"$JS.API.{request}", data, timeout=_ASK_S
                    )
                finally:
                    await transport.close()
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise BrokerUnreachableError(f"nats did not answer {request}: {error!r}") from error
        value: dict[str, Any] = json.loads(answer.data)
        return value

    async def put(self, broker: str, payloads: Sequence[bytes]) -> None:
        """Put payloads straight into the hook queue.

        Raises:
            BrokerUnreachableError, PublishRefusedError, PublishUnknownError: not all were taken.
        """
        if broker == "redis":
            client = self._dialer.redis(self._redis_url)
            try:
                queue = RedisListQueue(client, names=self.names, task_type=_TASK_TYPE)
                for payload in payloads:
                    await queue.put(payload)
            finally:
                await client.aclose()
            return
        transport = await self._dialer.nats(self._nats_url, names=self.names, clock=self._clock)
        try:
            for payload in payloads:
                await transport.publish(self.names.subject(_TASK_TYPE), payload)
        finally:
            await transport.close()


class SimulatedTargets:
    """The part of ``hookbench.faults.base.Targets`` that the shared faults use.

    Attributes:
        phase: of the moment.
    """

    def __init__(
        self, administration: SiteAdministration, orders: SiteOrders, clock: SimulatedClock
    ) -> None:
        self.administration = administration
        self.orders = orders
        self.clock = clock
        self.memory = FaultMemory()
        self.phase = Phase.REDIS_ONLY

    def __getattr__(self, name: str) -> Any:
        raise SettingError(f"a simulated site has no {name} for a fault of a rehearsal")
