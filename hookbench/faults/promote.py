"""The Redis replica promoted in the master's place (hazard R7)."""

import signal

from hookbench.brokers.embedded import EmbeddedBroker
from hookbench.brokers.redis_nodes import role_of
from hookbench.brokers.roles import Role
from hookbench.errors import SettingError
from hookbench.faults.base import Fault, FaultNotFiredError, Targets, insist
from hookbench.faults.process import end_process

__all__ = ["Promote"]

_NODES = 2
_MASTER_OFFSET, _REPLICA_OFFSET = 1, 4  # in an answer to ROLE


class Promote(Fault, frozen=True, kw_only=True, tag="promote"):
    """The replica becomes the master; the old one follows it when it is healed.

    What the old master acknowledged and the replica had not applied is lost. An old master that
    was not killed follows at once.

    Attributes:
        pause_s: for so long before ``at_s`` the replica applies nothing.
        kill_master: SIGKILL to the old master first; it is down until it is healed.
    """

    pause_s: float = 0.0
    kill_master: bool = False

    @property
    def lead_s(self) -> float:
        """The replication is paused before."""
        return self.pause_s

    @property
    def may_repeat(self) -> bool:
        """What was prepared before is used up by the first try."""
        return False

    @property
    def one_at_a_time(self) -> bool:
        """There are two nodes: without its replica a master could give its place to nobody."""
        return True

    def check(self) -> None:
        """Refuse another target, and a pause that would begin before the load."""
        if self.target != "redis":
            raise SettingError(f"fault {self.name}: target {self.target!r}: use redis")
        if not 0 <= self.pause_s <= self.at_s:
            raise SettingError(
                f"fault {self.name}: pause_s {self.pause_s}: use between 0 and at_s {self.at_s}"
            )

    def needs(self) -> dict[str, int]:
        """A master and a replica."""
        return {"redis": _NODES}

    async def prepare(self, targets: Targets) -> None:
        """Let the replica apply nothing more."""
        await targets.administration.redis_replica().pause_replication()

    async def inject(self, targets: Targets) -> None:
        """Promote the replica, and see that it says so."""
        group = targets.administration.redis_replica()
        old, new = await group.master(), await group.replica()
        behind_bytes = await _offset(targets, old, _MASTER_OFFSET) - await _offset(
            targets, new, _REPLICA_OFFSET
        )
        targets.memory.keep(self, old)
        if self.kill_master:
            await end_process(targets, old.name, signal.SIGKILL)
        await group.promote()
        role = role_of(await targets.administration.redis(new.name, "ROLE"))
        if role is not Role.MASTER:
            raise FaultNotFiredError(f"{new.name} is {role} after its promotion")
        targets.memory.note(self, "promoted", f"{new.name} in place of {old.name}")
        targets.memory.note(self, "not applied bytes", behind_bytes)

    async def heal(self, targets: Targets) -> None:
        """Let the old master follow the new one; without a promotion only end the pause."""
        group = targets.administration.redis_replica()
        old: EmbeddedBroker | None = targets.memory.take(self)

        async def rejoin() -> None:
            if old is not None:
                await group.rejoin(old)
            elif self.pause_s > 0:
                await group.resume_replication()

        await insist(rejoin, targets.clock)


async def _offset(targets: Targets, node: EmbeddedBroker, place: int) -> int:
    """How far a node is in the stream of replication, as ROLE tells."""
    answer = await targets.administration.redis(node.name, "ROLE")
    return int(answer[place])
