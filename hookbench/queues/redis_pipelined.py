"""Commands of many coroutines over one connection, in one write per turn of the event loop.

Whatever is asked in one turn of the loop leaves in one write, and the answers are handed out in the
order of the commands (https://redis.io/docs/latest/develop/using-commands/pipelining/). Each is a
command of its own for the server. When the connection ends, or does not answer, the outcome of
every command that was under way over it is unknown: of more of them than with a connection each.

What waits on the server (BLMOVE, XREADGROUP with BLOCK, WAIT), and what may have a long answer, has
a connection of redis-py's pool to itself, as without this.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

import hiredis
import redis.asyncio as redis_asyncio
from redis.asyncio.client import Pipeline
from redis.asyncio.connection import DefaultParser
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, ReadOnlyError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from hookbench.cancellation import cancel
from hookbench.queues.closed_transport import is_closed_transport
from hookbench.queues.redis_errors import NeverSentError

__all__ = ["SHARED_COMMANDS", "PipelinedConnection", "PipelinedRedis"]

SHARED_COMMANDS = frozenset(
    ("LPUSH", "LREM", "LLEN", "LMOVE", "XADD", "XACK", "XDEL", "XLEN", "EVAL", "EVALSHA")
)
"""Commands that answer at once and shortly; there are one or some of them for each task."""

_NOT_YET = object()
_Answer = asyncio.Future[Any]


class PipelinedConnection(asyncio.Protocol):
    """The commands of everybody, over one connection of a pool; it connects when it is needed.

    Args:
        pool: where the connection comes from, and goes back to when it has ended.
        answer_timeout_s: how long the oldest command waits for its answer before the connection is
            given up.
    """

    def __init__(self, pool: redis_asyncio.ConnectionPool, answer_timeout_s: float) -> None:
        self._pool = pool
        self._answer_timeout_s = answer_timeout_s
        self._unsent: list[tuple[bytes, _Answer]] = []
        self._sent: deque[tuple[_Answer, float]] = deque()
        """Commands under way, the oldest first, and when they left by the loop's clock."""
        self._life: asyncio.Task[None] | None = None
        self._transport: asyncio.WriteTransport | None = None
        self._ended = asyncio.Event()
        self._flushing = False
        self._paused = False
        self._leaving = False
        self._timer: asyncio.TimerHandle | None = None
        self._reader = _new_reader()

    def ask(self, command: Sequence[Any]) -> _Answer:
        """A future of the answer.

        It fails with redis-py's errors: a ``ResponseError`` where Redis says no, a
        ``ConnectionError`` where the connection ended or could not be made, a ``TimeoutError``
        where nothing was answered in time.
        """
        loop = asyncio.get_running_loop()
        answer = loop.create_future()
        self._unsent.append((hiredis.pack_command(tuple(command)), answer))
        if not self._flushing:
            self._flushing = True
            loop.call_soon(self._flush)
        return answer

    def _flush(self) -> None:
        """Send everything that waits, in one write, which a transaction relies on."""
        self._flushing = False
        transport = self._transport
        if transport is None:
            if self._life is None:
                self._life = asyncio.get_running_loop().create_task(self._live())
            return
        if not self._unsent or self._paused or self._leaving or transport.is_closing():
            return
        waiting, self._unsent = self._unsent, []
        try:
            transport.write(b"".join([packed for packed, _answer in waiting]))
        except RuntimeError as error:
            if not is_closed_transport(error):
                raise
            self._unsent = waiting + self._unsent  # nothing left; its end is told in a moment
            return
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        self._sent.extend([(answer, now_s) for _packed, answer in waiting])
        if self._timer is None:
            self._timer = loop.call_later(self._answer_timeout_s, self._check_oldest)

    async def _live(self) -> None:
        """Connect, and serve until the connection ends; again while there is something to send."""
        try:
            while self._unsent:
                try:
                    await self._serve_one()
                except (RedisError, OSError) as error:  # there was no connection: nothing was sent
                    self._fail_unsent(error)
        finally:
            self._life = None
            self._fail_unsent(NeverSentError("this client was closed"))

    async def _serve_one(self) -> None:
        connection: Any = await self._pool.get_connection()  # type: ignore[no-untyped-call]  # redis-py
        try:
            self._reader = _new_reader()
            self._paused = self._leaving = False
            self._ended.clear()
            self._transport = connection.lend(self)
            self._flush()
            await self._ended.wait()
        finally:
            if self._transport is not None:
                self._transport.abort()
                self._end(RedisConnectionError("this client was closed"))
            await connection.disconnect(nowait=True)
            await self._pool.release(connection)

    def _fail_unsent(self, error: Exception) -> None:
        waiting, self._unsent = self._unsent, []
        for _packed, answer in waiting:
            if not answer.done():
                answer.set_exception(error)

    def data_received(self, data: bytes) -> None:
        """Hand the answers out."""
        try:
            self._reader.feed(data)
            self._hand_out()
        except InvalidResponse as error:
            self._give_up(RedisConnectionError(f"an answer that makes no sense: {error}"))
        if self._leaving and not self._sent and self._transport is not None:
            self._transport.abort()

    def _hand_out(self) -> None:
        gets, sent = self._reader.gets, self._sent
        while (reply := gets()) is not _NOT_YET:
            answer, _sent_at_s = sent.popleft()
            if answer.done():  # its caller was cancelled
                continue
            if isinstance(reply, Exception):
                # A master that has become a replica: whoever connects anew finds the new one.
                self._leaving = self._leaving or isinstance(reply, ReadOnlyError)
                answer.set_exception(reply)
            else:
                answer.set_result(reply)

    def pause_writing(self) -> None:
        """The server reads more slowly than we write: the rest waits here."""
        self._paused = True

    def resume_writing(self) -> None:
        """Send what has waited."""
        self._paused = False
        self._flush()

    def connection_lost(self, error: Exception | None) -> None:
        """What was under way has no answer any more."""
        self._end(RedisConnectionError(f"the connection ended: {error or 'closed by the server'}"))

    def _check_oldest(self) -> None:
        self._timer = None
        if not self._sent:
            return
        loop = asyncio.get_running_loop()
        left_s = self._sent[0][1] + self._answer_timeout_s - loop.time()
        if left_s > 0:
            self._timer = loop.call_later(left_s, self._check_oldest)
        else:
            self._give_up(RedisTimeoutError(f"no answer in {self._answer_timeout_s:g} s"))

    def _give_up(self, error: RedisError) -> None:
        if self._transport is not None:
            self._transport.abort()
        self._end(error)

    def _end(self, error: RedisError) -> None:
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        sent, self._sent = self._sent, deque()
        for answer, _sent_at_s in sent:
            if not answer.done():
                answer.set_exception(error)
        self._ended.set()

    async def aclose(self) -> None:
        """End the connection; what is under way has no answer."""
        if self._life is not None:
            await cancel(self._life)


class PipelinedRedis(redis_asyncio.Redis):
    """redis-py's client whose short commands share one connection."""

    def __init__(self, pool: redis_asyncio.ConnectionPool, *, answer_timeout_s: float) -> None:
        """A client that closes its pool when it is closed.

        Args:
            pool: of connections that can ``lend`` their socket; one of them is taken for long.
            answer_timeout_s: see ``PipelinedConnection``.
        """
        super().__init__(connection_pool=pool)
        self.auto_close_connection_pool = True
        self._shared = PipelinedConnection(pool, answer_timeout_s)

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """As redis-py's; an awaitable of the answer."""
        if args[0] in SHARED_COMMANDS:
            return self._shared.ask(args)
        return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        """As redis-py's."""
        pipeline = _SharedPipeline(
            self.connection_pool, self.response_callbacks, transaction, shard_hint
        )
        pipeline.shared = self._shared
        return pipeline

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Close all connections."""
        await self._shared.aclose()
        await super().aclose(close_connection_pool)


class _SharedPipeline(Pipeline):
    """redis-py's, over the shared connection if all of its commands may go there."""

    shared: PipelinedConnection

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """As redis-py's."""
        commands = [command for command, _options in self.command_stack]
        if not commands or not SHARED_COMMANDS.issuperset(command[0] for command in commands):
            return await super().execute(raise_on_error)
        transaction = self.is_transaction
        self.command_stack = []
        if transaction:
            commands = [("MULTI",), *commands, ("EXEC",)]
        answers: list[Any] = await asyncio.gather(
            *(self.shared.ask(command) for command in commands), return_exceptions=True
        )
        if transaction:
            *queued, executed = answers
            if isinstance(executed, BaseException):  # a command was refused, or no connection
                raise next((item for item in queued if isinstance(item, BaseException)), executed)
            answers = executed
        for answer in answers:
            if isinstance(answer, BaseException) and (
                raise_on_error or not isinstance(answer, ResponseError)
            ):
                raise answer
        return answers


def _new_reader() -> hiredis.Reader:
    return hiredis.Reader(
        protocolError=InvalidResponse,
        replyError=DefaultParser.parse_error,
        notEnoughData=_NOT_YET,
    )
