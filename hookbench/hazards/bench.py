"""What a scenario of a hazard works with: brokers, the reference producer, worker processes."""

import signal
from collections.abc import Sequence
from pathlib import Path

from hookbench.brokers.topology import Topology
from hookbench.clock import Clock
from hookbench.effects.read import read_effects
from hookbench.effects.store import seal_effects
from hookbench.errors import HazardError
from hookbench.faults.wire.client import ProxyControl, start_proxy
from hookbench.faults.wire.model import LinkSettings
from hookbench.hazards.findings import observe
from hookbench.hazards.gated import enter_by_procedure
from hookbench.hazards.model import Observation, Protection
from hookbench.hazards.producer import Producer, fitting_patience, open_producer
from hookbench.hazards.site import REDIS_LEASE_S, WAIT_S, Site
from hookbench.ledger.account import make_account
from hookbench.ledger.events import Event, LedgerWriter
from hookbench.ledger.model import Account, Bounds
from hookbench.migration.phases import AckMode, Design, Phase
from hookbench.migration.publishing import PublishPatience
from hookbench.migration.redis_reads import RedisReads
from hookbench.queues.connections import Connections
from hookbench.queues.jetstream import StreamSettings
from hookbench.rehearsal.fleet import Member
from hookbench.results.steps import plan_steps
from hookbench.task import HookTask, new_task

__all__ = ["Bench"]

_STOP_S = 20.0
_FIRST_WRITER = 1_000
"""Writers below are the fleet's."""
_FILLING = "x" * 32


class Bench(Site):
    """Everything that one scenario may use; all of it ends with ``close``.

    Phases are entered with ``enter``, in order; producers and workers that are started afterwards
    are in that phase, and workers that run change to it one after the other.

    Args:
        gated: with the measure ``gates``, phases are entered by procedure.

    The other arguments are those of ``Site``.
    """

    def __init__(
        self,
        topology: Topology,
        folder: Path,
        *,
        design: Design,
        switches: Sequence[str] = (),
        changes: str = "",
        gated: bool = False,
        clock: Clock,
        seed: int = 0,
    ) -> None:
        super().__init__(
            topology,
            folder,
            design=design,
            switches=switches,
            changes=changes,
            clock=clock,
            seed=seed,
        )
        self._gated = gated
        self._starts_ns: list[int] = []
        self._writers = 0
        self._proxy: ProxyControl | None = None
        self._producers: list[Producer] = []

    @property
    def _monitors(self) -> str:
        """Monitoring of each NATS node, for ``synced_only``."""
        return ",".join(node.monitor_url or "" for node in self.topology.nats.nodes)

    @property
    def gated(self) -> bool:
        """Whether phases are entered through their gates."""
        return self._gated and self.measures.gates

    @property
    def producers(self) -> Sequence[Producer]:
        """All that were started."""
        return self._producers

    async def enter(
        self, phase: Phase, *, workers: Sequence[Member] | None = None, asked: bool = True
    ) -> None:
        """Begin a phase; running workers change to it (only ``workers``, if given).

        Raises:
            HeldBackError: the bench is gated, and the procedure of the change is held back.
        """
        if self.gated and asked and self.phases:
            await enter_by_procedure(self, phase, workers=workers)
            return
        self.begin(phase)
        for member in self.fleet.of("worker") if workers is None else workers:
            if member.expected_end:
                continue
            self.fleet.enter(member, len(self.phases) - 1, phase)
            if not await self.fleet.wait_until_in(member, len(self.phases) - 1, WAIT_S):
                raise HazardError(f"{member.name} did not enter {phase.label}")

    def begin(self, phase: Phase) -> None:
        """A new step of the timeline, of which nobody has been told yet."""
        self.phases.append(phase)
        self._starts_ns.append(self.clock.monotonic_ns())
        index = len(self.phases) - 1
        self.note(f"phase {phase.label}")
        for producer in self._producers:
            producer.ledger.phase = index

    def tasks(
        self, count: int, *, repository: str = "synthetic/plain/repo-0", filling: str = _FILLING
    ) -> list[HookTask]:
        """New tasks of one synthetic repository, numbered from 0."""
        return [
            new_task(
                repo_id=repository,
                task_type="sync",
                payload={"number": number, "filling": filling},
                clock=self.clock,
                entropy=self._entropy,
            )
            for number in range(count)
        ]

    async def producer(
        self,
        phase: Phase | None = None,
        *,
        redis_url: str | None = None,
        nats_url: str | None = None,
        patience: PublishPatience | None = None,
        hears: bool = True,
    ) -> Producer:
        """A producer of a phase (the current one), on the brokers or on a link to them.

        One that does not hear stays in its phase, whatever a procedure tells all producers.
        """
        phase = self._current if phase is None else phase
        ledger = self.open_ledger("producer")
        connections = Connections(
            redis_url=redis_url or self.topology.redis_url,
            nats_url=nats_url or self.topology.nats_url,
            names=self.names,
            clock=self.clock,
            stream=self.stream,
            measures=self.measures.nats,
            nats_monitor_url=self._monitors,
        )
        producer = await open_producer(
            phase,
            connections,
            self.names,
            measures=self.measures,
            ledger=ledger,
            spool=self.folder / f"outbox-{self._writers}.sqlite",
            patience=patience or fitting_patience(self.stream.duplicate_window_s),
            hears=hears,
        )
        self._producers.append(producer)
        return producer

    def open_ledger(self, role: str) -> LedgerWriter:
        """A writer of its own, in the current phase; its caller closes it."""
        ledger = LedgerWriter(
            self.ledger_folder, role=role, writer=_FIRST_WRITER + self._writers, clock=self.clock
        )
        self._writers += 1
        ledger.phase = len(self.phases) - 1
        ledger.record(Event.PHASE, value=ledger.phase)
        return ledger

    async def retire(self, producer: Producer) -> None:
        """End a producer, so that nobody takes it for an old one."""
        self._producers.remove(producer)
        await producer.stop()
        await producer.close()

    @property
    def _current(self) -> Phase:
        if not self.phases:
            raise HazardError("no phase was entered")
        return self.phases[-1]

    async def worker(
        self,
        *options: str,
        handler: str = "noop",
        ack: AckMode | None = None,
        redis_url: str | None = None,
        nats_url: str | None = None,
        concurrency: int = 1,
        replaced: bool = True,
    ) -> Member:
        """Start a worker process in the current phase, and wait until it is in it.

        Args:
            options: further ones of ``hookbench worker``.
            handler: ``noop``, ``sleep`` or ``fail``; each execution is an effect in the store.
            ack: by default as of the bench.
            redis_url: by default the broker itself, likewise NATS.
            nats_url: see above.
            concurrency: tasks in work at once.
            replaced: whether another process takes its place when it dies.
        """
        member = self.launch(
            [
                "--redis-url", redis_url or self.topology.redis_url,
                "--nats-url", nats_url or self.topology.nats_url,
                "--nats-monitor-url", self._monitors,
                "--measures", self.measures.text,
                *([] if ack is None else ["--ack", ack]),
                "--handler", handler,
                "--concurrency", str(concurrency),
                *options,
            ]
        )  # fmt: skip
        if not await self.fleet.wait_until_in(member, len(self.phases) - 1, WAIT_S):
            raise HazardError(f"{member.name} did not start: {self.fleet.log_tail(member)}")
        member.expected_end = not replaced
        self.note(f"{member.name} (pid {member.child.pid}): {handler}, ack {ack or self.ack}")
        return member

    def launch(self, arguments: Sequence[str]) -> Member:
        """Start a worker process in the current phase, whether or not it gets there."""
        common = ["--effects", str(self.effects), "--block-timeout", "0.5"]
        common += ["--redis-lease", str(REDIS_LEASE_S)]
        return self.fleet.start(
            "worker",
            len(self.fleet.of("worker")),
            [*common, *stream_options(self.stream), *arguments],
            (len(self.phases) - 1, self._current),
        )

    def redis_reads(self) -> RedisReads:
        """Redis read in this process as the measures say; the caller closes it."""
        return RedisReads(
            self.redis,
            self.measures,
            names=self.names,
            owner=f"{self._entropy.getrandbits(64):016x}",
            lease_s=REDIS_LEASE_S,
            clock=self.clock,
        )

    async def die_at(self, member: Member, step: str) -> None:
        """Let a worker kill itself after a step, as in ``effect:5``; returns once it knows."""
        path = member.phase_file.with_suffix(".die")
        aside = path.with_name(f".{path.name}")
        aside.write_text(step)
        aside.replace(path)

        async def taken() -> bool:
            return not path.exists()

        await self.wait_until(taken, f"{member.name} is told to die at {step}")
        self.note(f"{member.name} is to die at {step}")

    async def kill(self, member: Member) -> None:
        """SIGKILL, and wait for the end; nobody takes its place."""
        member.expected_end = True
        pid = member.child.pid
        member.child.kill()
        self.note(f"{member.name} (pid {pid}) killed")

    async def stop(self, member: Member) -> None:
        """SIGTERM, so that it finishes what it has."""
        await self.fleet.stop([member], _STOP_S)
        self.note(f"{member.name} stopped")

    async def link(self, *names: str) -> ProxyControl:
        """A frame-aware proxy in front of ``redis``, ``nats`` or both; once per scenario."""
        if self._proxy is not None:
            raise HazardError("this scenario has its proxy already: ask for all links at once")
        nodes = {"redis": self.topology.redis.nodes[0], "nats": self.topology.nats.nodes[0]}
        protocols = {"redis": "resp", "nats": "nats"}
        links = [
            LinkSettings(name=name, protocol=protocols[name], upstream_port=nodes[name].port)
            for name in names
        ]
        self._proxy = await start_proxy(self.folder / "logs", links, clock=self.clock)
        return self._proxy

    async def conclude(self, *, max_inversions: int | None = None) -> list[Observation]:
        """What the checkers say after ``account``; where they find nothing, that it was prevented.

        So a scenario whose trigger did not fire must raise before it comes here.
        """
        account = await self.account(max_inversions=max_inversions)
        effects = read_effects(self.effects) if self.effects.exists() else None
        found = observe(account, effects)
        return found or [_kept(account)]

    async def account(self, *, max_inversions: int | None = None) -> Account:
        """Stop the workers, look at the brokers, and account for every task.

        The brokers must run.

        Args:
            max_inversions: for a row about the order of a repository. Elsewhere many tasks of one
                are begun at once, and some may be the other way round whatever the design.
        """
        workers = [item for item in self.fleet.of("worker") if item.child.exit_code is None]
        for member in workers:
            member.child.signal(signal.SIGCONT)
        killed = await self.fleet.stop(workers, _STOP_S)
        if killed:
            names = ", ".join(member.name for member in killed)
            raise HazardError(f"{names} did not stop within {_STOP_S:g} s")
        spooled = [task for producer in self._producers for task in await producer.stop()]
        residue = await self.residue(spooled)
        effects = None
        if self.effects.exists():
            seal_effects(self.effects)
            effects = read_effects(self.effects)
        return make_account(
            self.ledger(),
            plan_steps(self.phases),
            residue,
            step_starts_ns=self._starts_ns,
            end_ns=self.clock.monotonic_ns(),
            effects=effects,
            bounds=Bounds(max_inversions=max_inversions),
        )

    async def close(self) -> None:
        """End every process and connection; the brokers are the caller's."""
        self.fleet.kill_all()
        for producer in self._producers:
            await producer.close()
        if self._proxy is not None:
            await self._proxy.stop()
        if self._transport is not None:
            await self._transport.close()
        await self.redis.aclose()


def _kept(account: Account) -> Observation:
    """The harm was kept away: every accepted task has its end, and none was executed twice."""
    ended = account.done + account.dead + account.superseded
    text = f"{account.accepted} tasks accepted, {ended} ended, each of them once"
    return Observation(text=text, protection=Protection.PREVENTED, count=ended)


def stream_options(stream: StreamSettings) -> list[str]:
    """The stream as ``hookbench worker`` is told of it."""
    return [
        "--storage", stream.storage,
        "--replicas", str(stream.replicas),
        "--max-age", str(stream.max_age_s),
        "--duplicate-window", str(stream.duplicate_window_s),
    ]  # fmt: skip
