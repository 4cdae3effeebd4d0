"""What a fault may do with the brokers that the run started."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from hookbench.task import Names

if TYPE_CHECKING:
    from hookbench.brokers.redis_replica import RedisReplica

__all__ = ["Administration"]


class Administration(Protocol):
    """The administrative side of a run's brokers: no traffic of the run goes this way."""

    @property
    def names(self) -> Names:
        """What the run uses on them."""
        ...

    def nodes(self, broker: str) -> list[str]:
        """The names of the nodes of ``redis`` or ``nats``, as ``Targets.process`` takes them.

        Raises:
            SettingError: the run did not start it.
        """
        ...

    def data_folder(self, node: str) -> Path:
        """Where a node keeps its data."""
        ...

    async def redis(self, node: str, *words: str | int) -> Any:
        """One command to one Redis node; texts of the answer are ``bytes``.

        Raises:
            BrokerUnreachableError: no answer, or an error.
        """
        ...

    async def jetstream(
        self, request: str, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """The answer of the first NATS node that gives one to ``$JS.API.`` and ``request``.

        Raises:
            BrokerUnreachableError: none does.
        """
        ...

    async def put(self, broker: str, payloads: Sequence[bytes]) -> None:
        """Put payloads straight into the hook queue of ``redis`` or ``nats``, in order.

        Raises:
            BrokerUnreachableError, PublishRefusedError, PublishUnknownError: not all were taken.
        """
        ...

    def redis_replica(self) -> "RedisReplica":
        """The Redis master and its replica.

        Raises:
            SettingError: this run has none.
        """
        ...
