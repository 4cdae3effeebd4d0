"""A write to a connection that was reset, which uvloop answers otherwise than asyncio's own loop.

uvloop raises a RuntimeError, before it sends anything, where a socket has an OSError. Neither
redis-py nor nats-py knows it: the one hands it on, so that a producer ends of it as of a defect,
and the other's reconnecting ends with it for good. A connection that is reset as soon as it was
accepted gets there, as with a broker that was killed behind a proxy.
"""

__all__ = ["is_closed_transport"]

_WORDS = "the handler is closed"


def is_closed_transport(error: RuntimeError) -> bool:
    """Whether this is what uvloop says of a transport that is closed already."""
    return _WORDS in str(error)
