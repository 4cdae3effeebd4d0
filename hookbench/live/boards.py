"""Opens the boards of the places that are used, over connections of their own."""

from collections.abc import Iterable

from hookbench.brokers.probe import probe_redis
from hookbench.clock import Clock
from hookbench.errors import SettingError
from hookbench.live.file_board import FileBoard
from hookbench.live.nats_board import NatsBoard
from hookbench.live.places import FILE, LEASE_S, NATS, REDIS, Board, Place
from hookbench.live.redis_board import RedisBoard
from hookbench.queues.dialing import NETWORK
from hookbench.queues.jetstream import StreamSettings
from hookbench.queues.reading import (
    ReadingDialer,
    connect_reading_nats,
    connect_reading_redis,
)
from hookbench.queues.redis_client import RedisClient, connect_redis
from hookbench.queues.transport import AppTransport
from hookbench.task import Names

__all__ = ["Boards"]


class Boards:
    """The boards that some places need.

    Args:
        redis_url, nats_url: of the brokers.
        names: of the queue.
        stream: settings of the hook stream; buckets are stored alike.
        clock: of the connections.
        reads_only: over connections that refuse to write.
        lease_s: for which an operator holds a place on a broker.
    """

    def __init__(
        self,
        redis_url: str | None,
        nats_url: str | None,
        names: Names,
        *,
        stream: StreamSettings,
        clock: Clock,
        reads_only: bool = False,
        lease_s: float = LEASE_S,
    ) -> None:
        self.lease_s = lease_s
        self._urls = {REDIS: redis_url, NATS: nats_url}
        self._names = names
        self._stream = stream
        self._clock = clock
        self._reads_only = reads_only
        self._boards: dict[str, Board] = {FILE: FileBoard()}
        self._redis: RedisClient | None = None
        self._transport: AppTransport | None = None

    def check(self, places: Iterable[Place]) -> None:
        """Refuse places on a broker that has no URL.

        Raises:
            SettingError: the text names the option.
        """
        for place in places:
            if place.kind in self._urls and not self._urls[place.kind]:
                raise SettingError(f"{place.text} is on a broker: give --{place.kind}-url")

    async def of(self, place: Place) -> Board:
        """The board of a place; it is connected when it is first asked for.

        Raises:
            SettingError: no URL was given for it.
            BrokerUnreachableError: the broker does not answer.
        """
        self.check([place])
        board = self._boards.get(place.kind)
        if board is None:
            board = await self._open(place.kind)
            self._boards[place.kind] = board
        return board

    async def _open(self, kind: str) -> Board:
        url = self._urls[kind] or ""
        if kind == REDIS:
            # Its errors say which Redis it is, and what to do.
            await probe_redis(url, dialer=ReadingDialer() if self._reads_only else NETWORK)
            connect = connect_reading_redis if self._reads_only else connect_redis
            self._redis = connect(url)
            return RedisBoard(self._redis, self._names, lease_s=self.lease_s)
        open_nats = connect_reading_nats if self._reads_only else AppTransport.connect
        self._transport = await open_nats(url, names=self._names, clock=self._clock)
        return NatsBoard(self._transport, self._stream, lease_s=self.lease_s)

    async def close(self) -> None:
        """Disconnect."""
        if self._transport is not None:
            await self._transport.close()
        if self._redis is not None:
            await self._redis.aclose()
