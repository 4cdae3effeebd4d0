"""No queue at all: it takes every task at once, and has none to give.

What a harness reaches over it is its own ceiling: no figure of a real queue can be better.
"""

__all__ = ["NullPublish"]


class NullPublish:
    """An injected ``nats_publish`` that nothing is behind."""

    def __init__(self) -> None:
        self.count = 0

    async def __call__(self, subject: str, payload: bytes) -> int:  # noqa: ARG002 - a NatsPublishFn
        """The number of the task, as a sequence."""
        self.count += 1
        return self.count
