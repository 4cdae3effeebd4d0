"""Who takes part: names, environments and modules. What they are, they say themselves."""

import msgspec

__all__ = ["CONTENDERS", "MODULES", "Contender"]

MODULES = "tests.bench.peers.contenders"


class Contender(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table.

    Attributes:
        environment: folder of its virtual environment and name of its requirements; empty for the
            reference, which runs where hookbench is installed.
        queue: what holds its tasks, by the names of hookbench.
        variant: handed on to its module.
    """

    name: str
    environment: str
    module: str
    queue: str
    variant: str = ""

    @property
    def is_reference(self) -> bool:
        return not self.environment

    @property
    def broker(self) -> str:
        """``nats`` or ``redis``."""
        return "nats" if self.queue == "jetstream" else "redis"


def _peer(name: str, queue: str, module: str = "", variant: str = "") -> Contender:
    module = module or name
    return Contender(
        name=name,
        environment=module,
        module=module.replace("-", "_"),
        queue=queue,
        variant=variant,
    )


def _reference(design: str, queue: str) -> Contender:
    return Contender(
        name=f"hookbench {design}, {queue}",
        environment="",
        module="reference",
        queue=queue,
        variant=f"{design} {queue}",
    )


CONTENDERS = (
    _peer("taskiq-nats", "jetstream"),
    _peer("faststream", "jetstream"),
    _reference("guide", "jetstream"),
    _reference("hardened", "jetstream"),
    _peer("taskiq-redis list", "redis_list", "taskiq-redis", "list"),
    _peer("taskiq-redis stream", "redis_stream", "taskiq-redis", "stream"),
    _peer("dramatiq", "redis_list"),
    _peer("arq", "redis_list"),
    _peer("saq", "redis_list"),
    _peer("streaq", "redis_stream"),
    _peer("rq", "redis_list"),
    _peer("celery", "redis_list"),
    _reference("guide", "redis_list"),
    _reference("hardened", "redis_list"),
    _reference("guide", "redis_stream"),
)
