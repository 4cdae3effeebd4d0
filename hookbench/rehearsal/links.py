"""The connections of a run's processes to its brokers, through a proxy where a fault needs one."""

from pathlib import Path

from hookbench.clock import Clock
from hookbench.errors import FaultError
from hookbench.faults.base import Fault
from hookbench.faults.wire.client import ProxyControl, start_proxy
from hookbench.faults.wire.model import LinkSettings
from hookbench.faults.wire_fault import Wire
from hookbench.rehearsal.stage import Stage

__all__ = ["Links", "open_links"]


class Links:
    """Where producers and workers find the brokers."""

    def __init__(self, stage: Stage, proxy: ProxyControl | None) -> None:
        self._stage = stage
        self._proxy = proxy
        self._rules: dict[int, int] = {}

    def url(self, role: str, broker: str) -> str:
        """Where the processes of a role (``producers``, ``workers``) find ``redis`` or ``nats``."""
        link = f"{role}-{broker}"
        if self._proxy is not None and link in self._proxy.ports:
            return f"{broker}://127.0.0.1:{self._proxy.ports[link]}"
        return self._stage.redis_url if broker == "redis" else self._stage.nats_url

    def processes(self) -> list[tuple[str, int]]:
        """The proxy, if there is one."""
        return [] if self._proxy is None else [("proxy", self._proxy.pid)]

    async def add(self, fault: Wire) -> int:
        """Put the fault's rule to work; its number."""
        number = await self._running().add(fault.rule)
        self._rules[id(fault)] = number
        return number

    async def firings(self, number: int) -> int:
        """How often a rule has fired."""
        stats = await self._running().stats()
        return next(rule.firings for rule in stats.rules if rule.id == number)

    async def remove(self, fault: Wire) -> None:
        """End the fault's rule; with the last one, also what it left half open."""
        number = self._rules.pop(id(fault), None)
        if number is None:
            return
        await self._running().remove(number)
        if not self._rules:
            await self._running().heal()

    def _running(self) -> ProxyControl:
        if self._proxy is None:
            raise FaultError("no link of this run goes through a proxy")
        return self._proxy

    async def troubles(self) -> list[str]:
        """Why a rule may have done less than it promised."""
        if self._proxy is None:
            return []
        stats = await self._proxy.stats()
        return [
            f"link {link.name}: {trouble.text}" for link in stats.links for trouble in link.troubles
        ]

    async def close(self) -> None:
        """Stop the proxy.

        Raises:
            FaultError: it was gone already.
        """
        if self._proxy is not None:
            await self._proxy.stop()


async def open_links(
    faults: tuple[Fault, ...], stage: Stage, folder: Path, *, clock: Clock
) -> Links:
    """Start a proxy for the links that faults are aimed at, and for no other.

    Raises:
        SettingError: a broker at the end of such a link was not started by the run.
        FaultError: the proxy did not start.
    """
    names = sorted({fault.target for fault in faults if isinstance(fault, Wire)})
    if not names:
        return Links(stage, None)
    settings = [
        LinkSettings(
            name=name,
            protocol="resp" if name.endswith("redis") else "nats",
            upstream_port=stage.owned(name.rpartition("-")[2]).port,
        )
        for name in names
    ]
    return Links(stage, await start_proxy(folder, settings, clock=clock))
