"""What goes wrong with a Redis command, as errors that callers above the client know."""

from types import TracebackType

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MaxConnectionsError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from hookbench.errors import (
    BrokerUnreachableError,
    OversizeError,
    PublishRefusedError,
    PublishUnknownError,
)
from hookbench.queues.closed_transport import is_closed_transport

__all__ = ["MAX_BULK_BYTES", "NeverSentError", "broker_errors", "put_errors"]

# Redis' proto-max-bulk-len: a larger string is refused (https://redis.io, redis.conf).
MAX_BULK_BYTES = 512 * 1024 * 1024


class NeverSentError(RedisConnectionError):
    """There was no connection or no node for a command, so that no server can have run it."""


def _never_sent(error: BaseException | None) -> bool:
    """Whether there was no connection, so that no command can have reached the broker."""
    while error is not None:
        if isinstance(error, ConnectionRefusedError | MaxConnectionsError | NeverSentError):
            return True
        error = error.__cause__ or error.__context__
    return False


class broker_errors:  # noqa: N801 - used as the function that contextlib would make of it
    """A command without a usable answer, as an error that callers above the client know.

    A class, for contextlib's generators cost three times as much, with every command.
    """

    __slots__ = ("_what",)

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, _kind: object, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if error is None:
            return
        error = _closed_as_never_sent(error)
        if isinstance(error, RedisError | OSError):
            raise BrokerUnreachableError(f"Redis did not answer {self._what}: {error}") from error


class put_errors:  # noqa: N801 - as above
    """The outcome of a write that stores ``payload``: ``command`` names it in error texts.

    Raises:
        OversizeError: larger than a Redis string can be; nothing was sent.
        PublishRefusedError: Redis said no, or there was no connection; nothing was stored.
        PublishUnknownError: no answer; it may be stored.
    """

    __slots__ = ("_command", "_size")

    def __init__(self, command: str, payload: bytes) -> None:
        self._command = command
        self._size = len(payload)

    def __enter__(self) -> None:
        if self._size > MAX_BULK_BYTES:
            raise OversizeError(f"task of {self._size} bytes: Redis takes {MAX_BULK_BYTES}")

    def __exit__(
        self, _kind: object, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if error is None:
            return
        error = _closed_as_never_sent(error)
        if isinstance(error, ResponseError):
            raise PublishRefusedError(f"Redis refused {self._command}: {error}") from error
        if isinstance(error, RedisConnectionError | RedisTimeoutError | OSError):
            if _never_sent(error):
                raise PublishRefusedError(f"Redis is not reachable: {error}") from error
            raise PublishUnknownError(f"no answer to {self._command}: {error}") from error


def _closed_as_never_sent(error: BaseException) -> BaseException:
    """What uvloop raises for a write to a connection that the other side has just closed.

    redis-py lets it pass where it happens between the connect and the first command.
    """
    if not isinstance(error, RuntimeError) or not is_closed_transport(error):
        return error
    found = NeverSentError(f"the connection was closed meanwhile: {error}")
    found.__cause__ = error
    return found
