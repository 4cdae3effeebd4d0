"""What a scenario finds: brokers and connections to them, processes, and what they recorded."""

import random
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from hookbench.brokers.topology import Topology
from hookbench.clock import NS_PER_S, Clock
from hookbench.errors import BrokerUnreachableError, HazardError
from hookbench.ledger.events import Event
from hookbench.ledger.model import Residue
from hookbench.ledger.read import Ledger, read_ledger
from hookbench.migration.measures import Measures, measures_of, parse_measures
from hookbench.migration.phases import AckMode, Design, Phase
from hookbench.queues.redis_client import RedisClient, connect_redis
from hookbench.queues.transport import AppTransport
from hookbench.rehearsal.fleet import Fleet
from hookbench.rehearsal.observer import Observer
from hookbench.task import Names

__all__ = ["REDIS_LEASE_S", "WAIT_S", "Site"]

WAIT_S = 30.0
REDIS_LEASE_S = 2.0
_POLL_S = 0.02


class Site:
    """Looks, waits and counts; what is done there is the bench's.

    Args:
        topology: brokers that nobody else uses.
        folder: an empty one.
        design: whose behaviour is looked at.
        switches: measures that are on although the design has them off, see ``has``.
        changes: further changes to the measures, see ``parse_measures``.
        clock: of everything in this process.
        seed: of the task ids.

    Attributes:
        steps: what was done so far, with its time.
    """

    def __init__(
        self,
        topology: Topology,
        folder: Path,
        *,
        design: Design,
        switches: Sequence[str] = (),
        changes: str = "",
        clock: Clock,
        seed: int = 0,
    ) -> None:
        self.topology = topology
        self.folder = folder
        self.design = design
        self.clock = clock
        self.names = Names()
        self.stream = topology.stream
        self.steps: list[str] = []
        self.phases: list[Phase] = []
        self._switches = frozenset(switches)
        self._changes = changes
        self._entropy = random.Random(seed)
        self._begin_ns = clock.monotonic_ns()
        for name in ("ledger", "logs", "control"):
            (folder / name).mkdir()
        self.ledger_folder = folder / "ledger"
        self.effects = folder / "effects.sqlite"
        self.fleet = Fleet(
            clock=clock,
            ledger=self.ledger_folder,
            logs=folder / "logs",
            control=folder / "control",
        )
        self.redis: RedisClient = connect_redis(topology.redis_url)
        self._transport: AppTransport | None = None

    def has(self, switch: str) -> bool:
        """Whether a measure is on for this row, such as ``ack_after``."""
        return switch in self._switches

    @property
    def measures(self) -> Measures:
        """Those of the design, and those that the row switches on."""
        on = [switch for switch in self._switches if switch in Measures.__struct_fields__]
        return parse_measures(self._changes, parse_measures(",".join(on), measures_of(self.design)))

    @property
    def ack(self) -> AckMode:
        """When workers acknowledge NATS."""
        return self.measures.ack_mode

    def note(self, text: str) -> None:
        """Write down what was done or seen."""
        seconds = (self.clock.monotonic_ns() - self._begin_ns) / NS_PER_S
        self.steps.append(f"{seconds:6.2f} s  {text}")

    async def nats(self) -> AppTransport:
        """A connection for injecting and observing; the reference code has its own."""
        if self._transport is None:
            self._transport = await AppTransport.connect(
                self.topology.nats_url, names=self.names, clock=self.clock
            )
        return self._transport

    async def wait_until(
        self, condition: Callable[[], Awaitable[bool]], what: str, *, timeout_s: float = WAIT_S
    ) -> None:
        """Ask until it is so.

        Raises:
            HazardError: not in time; the text names ``what``.
        """
        deadline_ns = self.clock.monotonic_ns() + int(timeout_s * NS_PER_S)
        while not await condition():
            self.fleet.poll()
            if self.clock.monotonic_ns() > deadline_ns:
                raise HazardError(f"not within {timeout_s:g} s: {what}")
            await self.clock.sleep(_POLL_S)

    async def wait_until_done(self, count: int, *, timeout_s: float = WAIT_S) -> None:
        """Until the workers say so many executions."""

        async def enough() -> bool:
            return self.count(Event.DONE) >= count

        await self.wait_until(enough, f"{count} tasks are done", timeout_s=timeout_s)

    def ledger(self) -> Ledger:
        """All records so far."""
        return read_ledger(
            self.ledger_folder, same_boot=True, lenient=True, steps=max(1, len(self.phases))
        )

    def count(self, event: Event) -> int:
        """How many such records there are so far."""
        return int((self.ledger().records["event"] == event).sum())

    async def quiesce(self, *, quiet_s: float = 1.0, timeout_s: float = WAIT_S) -> None:
        """Wait until nothing happens any more: no new record for ``quiet_s``.

        With leases on Redis lists, for so long that one that has ended would have been noticed.
        Puts in vain do not count: an outbox repeats them for as long as a broker is away.
        """
        if self.measures.leases:
            quiet_s = max(quiet_s, 2 * REDIS_LEASE_S)
        deadline_ns = self.clock.monotonic_ns() + int(timeout_s * NS_PER_S)
        seen, still_ns = -1, self.clock.monotonic_ns()
        while True:
            self.fleet.poll()
            now_ns = self.clock.monotonic_ns()
            events = self.ledger().records["event"]
            in_vain = (events == Event.PUT_FAIL) | (events == Event.PUT_UNKNOWN)
            records = int((~in_vain).sum())
            if records != seen:
                seen, still_ns = records, now_ns
            if now_ns - still_ns > quiet_s * NS_PER_S:
                return
            if now_ns > deadline_ns:
                raise HazardError(f"something still happens after {timeout_s:g} s")
            await self.clock.sleep(_POLL_S * 2)

    async def residue(self, spooled: Sequence[str] = ()) -> Residue:
        """What lies on the brokers; after a fault one of them may be electing for a while.

        Args:
            spooled: ids of the tasks in outboxes.
        """
        deadline_ns = self.clock.monotonic_ns() + int(WAIT_S * NS_PER_S)
        urls = (self.topology.redis_url, self.topology.nats_url)
        while True:
            observer = Observer(*urls, self.names, clock=self.clock)
            try:
                return await observer.residue([*spooled])
            except BrokerUnreachableError:
                if self.clock.monotonic_ns() > deadline_ns:
                    raise
                await self.clock.sleep(_POLL_S)
            finally:
                await observer.close()
