"""Whom the faults of a rehearsal may be aimed at: what the run has started, and nothing else."""

from hookbench.brokers.embedded import EmbeddedBroker
from hookbench.brokers.topology import has_nats_cluster, has_redis_replica
from hookbench.clock import Clock
from hookbench.errors import SettingError
from hookbench.faults.base import Fault, Process
from hookbench.faults.memory import FaultMemory
from hookbench.faults.partition import Partition
from hookbench.faults.process import Kill, Pause, Restart
from hookbench.faults.rolling import RollingRestart
from hookbench.faults.step import KillAtStep
from hookbench.faults.wire_fault import Wire
from hookbench.migration.phases import Phase, PhaseFile
from hookbench.rehearsal.administration import RunAdministration, check_needs
from hookbench.rehearsal.detours import Detours
from hookbench.rehearsal.fleet import Fleet, Member
from hookbench.rehearsal.links import Links, check_links
from hookbench.rehearsal.orders import FleetOrders
from hookbench.rehearsal.roles import (
    BROKERS,
    ROLES,
    aims,
    broker_of,
    find_node,
    nearest,
    node_named,
)
from hookbench.rehearsal.settings import RehearsalSettings
from hookbench.rehearsal.stage import Stage

__all__ = ["RunTargets", "check_targets"]


_OF_ONE = (Kill, Pause, Restart, KillAtStep, Partition)
"""Faults of one process or node: a broker of several nodes is no target for them."""


class _BrokerProcess:
    """A broker that the run started."""

    replaced = False

    def __init__(self, broker: EmbeddedBroker) -> None:
        self._broker = broker

    @property
    def pid(self) -> int:
        return self._broker.pid

    @property
    def exit_code(self) -> int | None:
        return self._broker.child.exit_code

    def signal(self, number: int) -> None:
        self._broker.child.signal(number)

    def restart(self) -> None:
        self._broker.restart()


class _MemberProcess:
    """A producer or worker, whose place is filled by the fleet."""

    replaced = True

    def __init__(self, member: Member) -> None:
        self._member = member

    @property
    def pid(self) -> int:
        return self._member.child.pid

    @property
    def exit_code(self) -> int | None:
        return self._member.child.exit_code

    def signal(self, number: int) -> None:
        self._member.child.signal(number)

    def restart(self) -> None:
        raise SettingError(f"{self._member.name}: the fleet starts it, or nobody")


class RunTargets:
    """The processes of one run, by name."""

    def __init__(
        self, stage: Stage, fleet: Fleet, links: Links, detours: Detours, *, clock: Clock
    ) -> None:
        self._stage = stage
        self._links = links
        self._detours = detours
        self._fleet = fleet
        self.clock = clock
        self.memory = FaultMemory()
        self.administration = RunAdministration(stage, clock=clock)
        self.orders = FleetOrders(fleet)

    @property
    def phase(self) -> Phase:
        """What the workers are to be in."""
        return PhaseFile(self._fleet.of("worker")[0].phase_file).read()[1]

    def members(self, role: str) -> list[str]:
        """The names of the ``workers`` or ``producers``."""
        return [member.name for member in self._fleet.of(role.removesuffix("s"))]

    def has_entered(self, name: str) -> bool:
        """Whether a worker or producer is in the phase that it was told last."""
        return self._fleet.has_entered(self._member(name))

    async def resolve(self, target: str) -> str:
        """The node that has the role ``target`` now; any other target is what it is.

        Raises:
            HookbenchError: nobody has it, see ``find_node``.
        """
        return (await find_node(self._stage, target)).name if target in ROLES else target

    def process(self, name: str) -> Process:
        """The process with a name.

        Raises:
            SettingError: there is none, or the run did not start it.
        """
        if broker_of(name) is not None:
            return _BrokerProcess(node_named(self._stage, name))
        return _MemberProcess(self._member(name))

    async def add_rule(self, fault: Fault) -> int:
        """Put the rules of a wire fault or a partition to work; their number."""
        if isinstance(fault, Partition):
            return await self._detours.add(fault)
        return await self._links.add(_wire(fault))

    async def firings(self, number: int) -> int:
        """How often the rules of a number have fired."""
        if self._detours.has(number):
            return await self._detours.firings(number)
        return await self._links.firings(number)

    async def remove_rule(self, fault: Fault) -> None:
        """End the rules of a wire fault or a partition, if they are at work."""
        if isinstance(fault, Partition):
            await self._detours.remove(fault)
            return
        await self._links.remove(_wire(fault))

    def die_at(self, name: str, step: str) -> None:
        """Write the step where the worker looks for it, in one piece."""
        path = self._member(name).phase_file.with_suffix(".die")
        aside = path.with_name(f".{path.name}")
        aside.write_text(step)
        aside.replace(path)

    def _member(self, name: str) -> Member:
        for member in self._fleet.members:
            if member.name == name:
                return member
        raise SettingError(
            f"fault target {name!r}: there is none; there are {', '.join(aims(self._stage))} and"
            f" {', '.join(member.name for member in self._fleet.members)}"
        )


def _wire(fault: Fault) -> Wire:
    if not isinstance(fault, Wire):
        raise SettingError(f"fault {fault.name}: it has no rule for the wire")
    return fault


def check_targets(faults: tuple[Fault, ...], settings: RehearsalSettings, stage: Stage) -> None:
    """Refuse a fault that is aimed at nobody, or at what the run did not start.

    Raises:
        SettingError: the text names the fault and what could be aimed at.
    """
    nodes = aims(stage)
    members = [f"worker-{number}" for number in range(settings.workers)]
    members += [f"producer-{number}" for number in range(settings.producers)]
    for fault in faults:
        if check_needs(fault, stage):
            continue
        broker = fault.target.rpartition("-")[2] if isinstance(fault, Wire) else None
        if (broker := broker or broker_of(fault.target)) is not None:
            stage.nodes(broker)  # refuses somebody else's
        if isinstance(fault, Wire | RollingRestart):
            continue
        if isinstance(fault, Partition):
            _check_partition(fault, settings.topology)
        known = nodes if isinstance(fault, Partition) else nodes + members
        whole = fault.target in BROKERS and not isinstance(fault, _OF_ONE)
        if not whole and fault.target not in known:
            raise SettingError(
                f"fault {fault.name}: no such target{nearest(fault.target, known)}: use"
                f" {', '.join(nodes)}, worker-0 to {members[settings.workers - 1]} or producer-0 to"
                f" {members[-1]}"
            )
    check_links(faults, settings.topology)


def _check_partition(fault: Partition, topology: str) -> None:
    broker = broker_of(fault.target)
    several = {"redis": has_redis_replica(topology), "nats": has_nats_cluster(topology)}
    if broker is not None and not several[broker]:
        raise SettingError(
            f"fault {fault.name}: topology {topology} has no connections between nodes of {broker}"
            " that could be cut: use redis_replica, nats_cluster or replicated"
        )
