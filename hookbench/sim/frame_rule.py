"""Rules for messages by what they are: a command of Redis, a frame of NATS."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hookbench.sim.connection import Direction
from hookbench.sim.wire_rules import WireAction, WireRule

if TYPE_CHECKING:
    from hookbench.sim.connection import Connection

__all__ = ["FrameRule", "frame_name"]

_ACKNOWLEDGEMENT = b"$JS.ACK."
_FETCH = b"$JS.API.CONSUMER.MSG.NEXT."
_PUBLISHES = (b"PUB", b"HPUB")
_MESSAGES = (b"MSG", b"HMSG")
_STORED = b'{"stream":'


def frame_name(way: Direction, message: Any) -> str:
    """What a message is.

    ``LPUSH`` for a request to Redis, the first one of a pipeline; empty for a reply of Redis,
    which does not say what it answers. Of NATS ``Ack``, ``Fetch``, ``publish`` for other publishes,
    ``PubAck``, ``MSG`` for other messages, and else the verb.
    """
    if isinstance(message, list):
        is_request = way is Direction.TO_SERVER and message and isinstance(message[0], list)
        return message[0][0].decode().upper() if is_request else ""
    if not isinstance(message, bytes):
        return ""
    verb, _, rest = message.partition(b" ")
    if way is Direction.TO_SERVER and verb in _PUBLISHES:
        if rest.startswith(_ACKNOWLEDGEMENT):
            return "Ack"
        return "Fetch" if rest.startswith(_FETCH) else "publish"
    if way is Direction.TO_CLIENT and verb in _MESSAGES:
        _line, _, payload = rest.partition(b"\r\n")
        return "PubAck" if _STORED in payload[: len(_STORED) + 1] else "MSG"
    return verb.strip().decode()


class FrameRule(WireRule):
    """A rule for the messages of one name; a reply of Redis has that of its request.

    Args:
        action: what is done, ``None`` for nothing but ``then``.
        way: of which direction.
        command: which messages, see ``frame_name``; empty for any.
        nth: which of them.
        then: called with the name of the message that it meets.
        hold_ns: of ``HOLD``.
    """

    def __init__(
        self,
        action: WireAction | None,
        way: Direction,
        *,
        command: str = "",
        nth: int = 1,
        then: Callable[[str], None],
        hold_ns: int = 0,
    ) -> None:
        super().__init__(action or WireAction.HOLD, way, skip=nth - 1, hold_ns=hold_ns)
        self._acts = action is not None
        self._command = command
        self._then = then
        self._asked: dict[Connection, str] = {}

    def applies(self, way: Direction, message: Any, connection: "Connection") -> bool:
        """See ``WireRule``."""
        if self.hits:
            return False
        name = frame_name(way, message)
        if way is Direction.TO_SERVER:
            self._asked[connection] = name
        elif not name:
            name = self._asked.get(connection, "")
        if self._command not in ("", name) or not super().applies(way, message, connection):
            return False
        self._then(name)
        return self._acts
