"""A Redis that runs out of memory (hazard R6)."""

from typing import Any

from hookbench.errors import SettingError
from hookbench.faults.base import Fault, FaultNotFiredError, Targets, insist

__all__ = ["POLICIES", "MaxMemory"]

POLICIES = (
    "noeviction",
    "allkeys-lru",
    "allkeys-lfu",
    "allkeys-random",
    "volatile-lru",
    "volatile-lfu",
    "volatile-random",
    "volatile-ttl",
)
"""https://redis.io/docs/latest/develop/reference/eviction/"""

_LIMIT, _POLICY = "maxmemory", "maxmemory-policy"


class MaxMemory(Fault, frozen=True, kw_only=True, tag="maxmemory"):
    """``CONFIG SET maxmemory`` and its policy on every node, put back after ``for_s``.

    What was evicted stays gone.

    Attributes:
        maxmemory_bytes: the limit; or
        headroom_bytes: how much above what each node uses now, 0 and below included.
        policy: what a full Redis does.
    """

    maxmemory_bytes: int | None = None
    headroom_bytes: int | None = None
    policy: str = "noeviction"

    def check(self) -> None:
        """Refuse another target, no end, no limit or two, and an unknown policy."""
        if self.target != "redis":
            raise SettingError(f"fault {self.name}: target {self.target!r}: use redis")
        if self.for_s <= 0:
            raise SettingError(f"fault {self.name}: for_s {self.for_s}: use more than 0")
        if (self.maxmemory_bytes is None) == (self.headroom_bytes is None):
            raise SettingError(
                f"fault {self.name}: give either maxmemory_bytes or headroom_bytes, not both and"
                " not neither"
            )
        if self.maxmemory_bytes is not None and self.maxmemory_bytes < 1:
            raise SettingError(
                f"fault {self.name}: maxmemory_bytes {self.maxmemory_bytes}: use 1 or more (0 is"
                " no limit)"
            )
        if self.policy not in POLICIES:
            raise SettingError(
                f"fault {self.name}: policy {self.policy!r}: use one of {', '.join(POLICIES)}"
            )

    @property
    def what(self) -> str:
        """The memory settings of Redis."""
        return "redis memory"

    def needs(self) -> dict[str, int]:
        """Redis."""
        return {"redis": 1}

    async def inject(self, targets: Targets) -> None:
        """Set both on every node, and read them back."""
        for node in targets.administration.nodes("redis"):
            used_bytes = int((await _info(targets, node, "memory"))["used_memory"])
            limit_bytes = self.maxmemory_bytes
            if limit_bytes is None:
                limit_bytes = max(1, used_bytes + (self.headroom_bytes or 0))
            # The policy first: a node that is full already acts on the limit at once.
            wanted = {_POLICY: self.policy, _LIMIT: str(limit_bytes)}
            for name in wanted:
                targets.memory.hold(self, f"{node} {name}", await _read(targets, node, name))
            targets.memory.note(self, f"{node} used_bytes before", used_bytes)
            targets.memory.note(self, f"{node} maxmemory_bytes", limit_bytes)
            targets.memory.note(self, f"{node} evicted before", await _evicted(targets, node))
            await _set(targets, node, wanted)

    async def heal(self, targets: Targets) -> None:
        """Put both back on every node, and read that back."""
        held = targets.memory.release(self)
        nodes: dict[str, dict[str, str]] = {}
        for setting, value in held.items():
            node, name = setting.split(" ")
            nodes.setdefault(node, {})[name] = value
        for node, former in nodes.items():

            async def put_back(node: str = node, former: dict[str, str] = former) -> None:
                evicted = await _evicted(targets, node)
                targets.memory.note(self, f"{node} evicted at its end", evicted)
                # The limit first: under the former policy it could do harm.
                await _set(targets, node, dict(sorted(former.items())))

            await insist(put_back, targets.clock)


async def _info(targets: Targets, node: str, section: str) -> dict[str, Any]:
    answer: dict[str, Any] = await targets.administration.redis(node, "INFO", section)
    return answer


async def _evicted(targets: Targets, node: str) -> int:
    """Keys that the node has evicted since its start."""
    return int((await _info(targets, node, "stats"))["evicted_keys"])


async def _read(targets: Targets, node: str, name: str) -> str:
    answer = await targets.administration.redis(node, "CONFIG", "GET", name)
    value: bytes = answer[1]
    return value.decode()


async def _set(targets: Targets, node: str, settings: dict[str, str]) -> None:
    for name, value in settings.items():
        await targets.administration.redis(node, "CONFIG", "SET", name, value)
    for name, value in settings.items():
        found = await _read(targets, node, name)
        if found != value:
            raise FaultNotFiredError(f"{node}: {name} is {found} after CONFIG SET {value}")
