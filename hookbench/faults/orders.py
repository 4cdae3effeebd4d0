"""How a process is told to misbehave: a file that it watches, and one in which it answers.

Both are JSON objects by the number of the order, replaced in one piece. A process that takes the
place of another finds the orders in force.
"""

import os
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec

from hookbench.clock import Clock
from hookbench.errors import SettingError

__all__ = [
    "FailOrder",
    "Order",
    "OrderBook",
    "Orders",
    "OversizeOrder",
    "RedirectOrder",
    "SlowOrder",
    "hits_file",
    "read_hits",
    "replace_json",
]

_WATCH_S = 0.02


class SlowOrder(msgspec.Struct, frozen=True, kw_only=True, tag="slow"):
    """Each execution takes ``service_ms`` longer."""

    service_ms: float


class FailOrder(msgspec.Struct, frozen=True, kw_only=True, tag="fail"):
    """A share of the executions fails, all of them of one handler class or of any."""

    probability: float
    seed: int
    handler_class: str | None = None


class OversizeOrder(msgspec.Struct, frozen=True, kw_only=True, tag="oversize"):
    """The next ``count`` tasks have payloads of ``payload_bytes``."""

    count: int
    payload_bytes: int


class RedirectOrder(msgspec.Struct, frozen=True, kw_only=True, tag="redirect"):
    """A share of the tasks goes to one repository."""

    share: float
    seed: int
    repository: str


Order = SlowOrder | FailOrder | OversizeOrder | RedirectOrder
Kind = TypeVar("Kind", SlowOrder, FailOrder, OversizeOrder, RedirectOrder)

_orders_decoder = msgspec.json.Decoder(dict[int, Order])
_hits_decoder = msgspec.json.Decoder(dict[int, int])


class Orders(Protocol):
    """The orders of a run, as a fault gives them."""

    def give(self, target: str, order: Order) -> int:
        """Tell a process, or all ``workers`` or ``producers``; the number of the order.

        Raises:
            SettingError: there is no such target.
        """
        ...

    def withdraw(self, number: int) -> None:
        """Tell them that it is over."""
        ...

    def hits(self, number: int) -> list[int]:
        """How often each of the processes has obeyed."""
        ...


def hits_file(path: Path) -> Path:
    """Where the process that watches ``path`` says how often it obeyed."""
    return path.with_suffix(".hits")


def read_hits(path: Path) -> dict[int, int]:
    """Hits by the number of the order, none from a process that has not obeyed yet."""
    try:
        return _hits_decoder.decode(hits_file(path).read_bytes())
    except FileNotFoundError:
        return {}


def replace_json(path: Path, data: object) -> None:
    """Write JSON to ``path`` in one piece."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_bytes(msgspec.json.encode(data))
    aside.replace(path)


class OrderBook:
    """The orders in force in one process, and how often each was obeyed."""

    def __init__(self) -> None:
        self._orders: dict[int, Order] = {}
        self._hits: dict[int, int] = {}
        self._told: dict[int, int] = {}
        self._seen: tuple[int, int] | None = None

    def of(self, kind: type[Kind]) -> list[tuple[int, Kind]]:
        """The orders of one kind, by number."""
        if not self._orders:  # each task asks
            return []
        return [(number, order) for number, order in self._orders.items() if type(order) is kind]

    def obey(self, orders: dict[int, Order]) -> None:
        """Let these be the orders in force."""
        self._orders = orders

    def hit(self, number: int) -> None:
        """Count an order as obeyed once more."""
        self._hits[number] = self._hits.get(number, 0) + 1

    def hits(self, number: int) -> int:
        """How often an order was obeyed here."""
        return self._hits.get(number, 0)

    def look(self, path: Path) -> None:
        """Read the orders in ``path`` if they have changed, and answer if there is news.

        Raises:
            SettingError: something else is written there.
        """
        try:
            status = path.stat()
        except FileNotFoundError:
            return
        if (status.st_ino, status.st_mtime_ns) != self._seen:
            self._seen = (status.st_ino, status.st_mtime_ns)
            try:
                self.obey(_orders_decoder.decode(path.read_bytes()))
            except msgspec.MsgspecError as error:
                raise SettingError(f"fault file {path}: {error}; a run writes it") from error
        if self._hits != self._told:
            self._told = dict(self._hits)
            replace_json(hits_file(path), self._told)

    async def watch(self, path: Path, clock: Clock) -> None:
        """Look again and again, until cancelled; errors as of ``look``."""
        while True:
            self.look(path)
            await clock.sleep(_WATCH_S)
