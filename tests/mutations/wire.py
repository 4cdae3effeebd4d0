"""A wire to Redis that fails at chosen commands."""

import asyncio
import contextlib
from typing import Self
from urllib.parse import urlsplit

__all__ = ["Wire"]

_CHUNK_BYTES = 65_536


class Wire:
    """Forwards to a Redis, except for some LPUSHes.

    Args:
        url: the Redis behind it.
        drop_commands: so many LPUSHes are not forwarded: the connection ends instead.
        drop_replies: so many LPUSHes are forwarded, and their replies are not.
    """

    def __init__(self, url: str, *, drop_commands: int = 0, drop_replies: int = 0) -> None:
        self._host, self._port = urlsplit(url).hostname, urlsplit(url).port
        self._drop_commands = drop_commands
        self._drop_replies = drop_replies
        self._server: asyncio.Server | None = None
        self.url = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self._server.close()

    async def _serve(self, reader, writer) -> None:
        redis_reader, redis_writer = await asyncio.open_connection(self._host, self._port)
        back = asyncio.ensure_future(_copy(redis_reader, writer))
        try:
            while chunk := await reader.read(_CHUNK_BYTES):
                pushes = b"LPUSH" in chunk
                if pushes and self._drop_commands > 0:
                    self._drop_commands -= 1
                    return
                if pushes and self._drop_replies > 0:
                    self._drop_replies -= 1
                    back.cancel()
                    redis_writer.write(chunk)
                    await redis_reader.read(_CHUNK_BYTES)
                    return
                redis_writer.write(chunk)
                await redis_writer.drain()
        except ConnectionError:
            return
        finally:
            back.cancel()
            redis_writer.close()
            writer.close()


async def _copy(reader, writer) -> None:
    with contextlib.suppress(ConnectionError):
        while chunk := await reader.read(_CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()
