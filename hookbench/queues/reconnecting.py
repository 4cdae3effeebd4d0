"""nats-py's client, which goes on reconnecting also where a connection is reset at once.

It also calls who listens as soon as a message is read, where nats-py has a queue and a task of each
subscription in between.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.aio.transport import TcpTransport, Transport
from nats.errors import ProtocolError, SecureConnWantedError

from hookbench.queues.closed_transport import is_closed_transport
from hookbench.queues.nats_frames import FrameParser, Listener, Message
from hookbench.queues.nats_requests import Requests

__all__ = [
    "WEB_SOCKET",
    "ReconnectingClient",
    "connect_client",
    "connect_or_abandon",
    "publish_at_once",
    "subscribe_at_once",
]

WEB_SOCKET = "ws"
_SENDS = (Client.CONNECTED, Client.DRAINING_SUBS)


@contextmanager
def _closed_is_reset() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if not is_closed_transport(error):
            raise
        raise ConnectionResetError(f"the connection was closed: {error}") from error


class _TcpTransport(TcpTransport):
    """nats-py's; a write to a closed connection is an OSError, which it takes for what it is.

    Attributes:
        at_the_end: the client is being closed, and writes what it has left. If that does not go
            out any more, whoever waits for an answer to it is told so by the end of its time.
    """

    at_the_end = False

    def write(self, payload: bytes) -> None:
        """As nats-py's."""
        with _closed_is_reset():
            super().write(payload)  # type: ignore[no-untyped-call]  # nats-py

    def writelines(self, payload: list[bytes]) -> None:
        """As nats-py's, in one piece: a hundred small ones cost the kernel more than the copy."""
        try:
            self.write(b"".join(payload))
        except OSError:
            if not self.at_the_end:
                raise

    async def drain(self) -> None:
        """As nats-py's."""
        try:
            await super().drain()  # type: ignore[no-untyped-call]  # nats-py
        except OSError:
            if not self.at_the_end:
                raise

    def __bool__(self) -> bool:
        # nats-py puts one of its own in the place of one that is not connected yet.
        return True


class ReconnectingClient(Client):
    """nats-py's, on the transport above."""

    _transport: Transport | None

    def __init__(self) -> None:
        super().__init__()
        self._transport = _TcpTransport()  # type: ignore[no-untyped-call]  # nats-py
        self._ps = FrameParser(self)
        self.listeners: dict[int, Listener] = {}
        """Of subscriptions, by their number; see ``subscribe_at_once``."""
        self.requests = Requests(self)

    async def _process_info(self, info: Any, initial_connection: bool = False) -> None:
        """As nats-py's, which would go on in plain text, password and all, where none has TLS.

        Raises:
            nats.errors.SecureConnWantedError: TLS was asked for, and the server offers none.
        """
        if not isinstance(info, dict):
            raise ProtocolError("nats: INFO is no object")
        if initial_connection and self.options.get("tls") is not None:
            if not (info.get("tls_required") or info.get("tls_available")):
                raise SecureConnWantedError
            info["tls_required"] = True  # of a server that leaves it to its clients
        await super()._process_info(info, initial_connection)

    async def tell_error(self, error: Exception) -> None:
        """Tell whoever opened the connection what a listener raised."""
        await self._error_cb(error)

    async def close(self) -> None:
        """As nats-py's, which does not end where something is left to send and cannot be."""
        if isinstance(self._transport, _TcpTransport):
            self._transport.at_the_end = True
        await super().close()

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        timeout: float = 0.5,  # noqa: ASYNC109 - nats-py's name
        old_style: bool = False,
        headers: dict[str, Any] | None = None,
    ) -> Msg:
        """As nats-py's, see ``nats_requests``."""
        if old_style:
            return await super().request(subject, payload, timeout, old_style, headers)
        answer: Msg = await self.requests.ask(subject, payload, timeout, headers)
        return answer

    async def subscribe_at_once(self, subject: str, listener: Listener) -> Subscription:
        """Have a listener called as soon as a message is read."""

        async def from_nats_py(msg: Any) -> None:
            listener(msg)

        subscription = await self.subscribe(subject, cb=from_nats_py)
        self.listeners[subscription._id] = listener  # noqa: SLF001 - what nats-py's own client does
        return subscription

    def send_now(
        self,
        subject: str,
        payload: bytes = b"",
        reply: bytes = b"",
        headers: dict[str, str] | bytes | None = None,
    ) -> bool:
        """Send a message as ``publish`` does, without its looks at subjects that are known good.

        Args:
            subject: where to.
            payload: the bytes.
            reply: where answers go.
            headers: by name, or as they are sent.

        Returns:
            False if that cannot be done now: use ``publish``, which waits for room or says why not.
        """
        queue, size = self._flush_queue, len(payload)
        if (
            self._status not in _SENDS
            or queue is None
            or size > self._max_payload
            or self._flusher_task is None
            or self._flusher_task.done()
        ):
            return False
        if headers:
            head = headers if isinstance(headers, bytes) else _encoded(headers)
            if head is None:
                return False
            sizes = (len(head), len(head) + size)
            words = (subject.encode(), reply, *sizes, head, payload)
            command = b"HPUB %b %b %d %d\r\n%b%b\r\n" % words
        elif reply:
            command = b"PUB %b %b %d\r\n%b\r\n" % (subject.encode(), reply, size, payload)
        else:
            command = b"PUB %b %d\r\n%b\r\n" % (subject.encode(), size, payload)
        pending = self._pending_data_size + len(command)
        if pending > self._max_pending_size:
            return False
        stats = self.stats
        stats["out_msgs"] += 1
        stats["out_bytes"] += size
        self._pending.append(command)
        self._pending_data_size = pending
        if queue.empty():
            queue.put_nowait(asyncio.get_running_loop().create_future())
        return True

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes
    ) -> None:
        listener = self.listeners.get(sid)
        if listener is None:
            await super()._process_msg(sid, subject, reply, data, headers)
            return
        self.stats["in_msgs"] += 1
        self.stats["in_bytes"] += len(data)
        try:
            listener(Message(self, sid, subject, reply, data, headers or b""))
        except Exception as error:  # noqa: BLE001 - as nats-py does with what a callback raises
            await self._error_cb(error)

    def _remove_sub(self, sid: int, max_msgs: int = 0) -> None:
        super()._remove_sub(sid, max_msgs)
        self.listeners.pop(sid, None)


def _encoded(headers: dict[str, str]) -> bytes | None:
    """Headers as they are sent; ``None`` with a line break in a value, which nats-py deals with."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if lines.count("\n") != len(headers):
        return None
    return f"NATS/1.0\r\n{lines}\r\n".encode()


async def connect_client(servers: str | list[str], **options: Any) -> Client:
    """As ``nats.connect``, which makes the client itself.

    Args:
        servers: one URL or several.
        options: as of ``nats.connect``.
    """
    first = servers if isinstance(servers, str) else servers[0]
    client = Client() if first.startswith(WEB_SOCKET) else ReconnectingClient()
    await connect_or_abandon(client, servers, **options)
    return client


async def connect_or_abandon(client: Client, servers: str | list[str], **options: Any) -> None:
    """As ``client.connect``; an attempt that is cut off leaves no socket open."""
    try:
        await client.connect(servers, **options)
    except BaseException:
        writer = getattr(client._transport, "_io_writer", None)  # noqa: SLF001 - nats-py leaves it
        if writer is not None:
            writer.close()
        raise


async def subscribe_at_once(client: Any, subject: str, listener: Listener) -> Any:
    """``ReconnectingClient.subscribe_at_once``, or ``subscribe`` of a client without it."""
    if isinstance(client, ReconnectingClient):
        return await client.subscribe_at_once(subject, listener)

    async def from_nats_py(msg: Any) -> None:
        listener(msg)

    return await client.subscribe(subject, cb=from_nats_py)


async def publish_at_once(client: Any, subject: str, payload: bytes, reply: str) -> None:
    """``ReconnectingClient.send_now``; ``publish`` where that cannot be done, or is not there."""
    if not isinstance(client, ReconnectingClient) or not client.send_now(
        subject, payload, reply.encode()
    ):
        await client.publish(subject, payload, reply=reply)
