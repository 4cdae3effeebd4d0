"""What a Locust process and its engine tell each other, as lines of JSON in two files.

The engine is told to ``Open`` a run, how many ``Users`` there are, to ``EnterPhase`` and to
``Close``; it says what it has published every half second.
"""

import msgspec
from _protocol import Histogram, ProducerTotals, Ticket

__all__ = [
    "COMMANDS_NAME",
    "EVENTS_NAME",
    "LOG_NAME",
    "Close",
    "Closed",
    "Delta",
    "EnterPhase",
    "Open",
    "Opened",
    "Users",
    "command_decoder",
    "event_decoder",
]

COMMANDS_NAME = "engine-{}-commands.jsonl"
EVENTS_NAME = "engine-{}-events.jsonl"
LOG_NAME = "engine-{}.log"


class Open(msgspec.Struct, frozen=True, kw_only=True, tag="open"):
    """Connect to the brokers of a run; ``writer`` is the number of the ledger's writer."""

    ticket: Ticket
    writer: int


class Users(msgspec.Struct, frozen=True, kw_only=True, tag="users"):
    """So many users there are now: they set the rate, or how many callers there are."""

    count: int


class EnterPhase(msgspec.Struct, frozen=True, kw_only=True, tag="enter"):
    """Publish as another phase has it; answered with ``Opened``."""

    index: int
    phase: str


class Close(msgspec.Struct, frozen=True, kw_only=True, tag="close"):
    """Send nothing more, wait for the outcomes of what is on its way, and say ``Closed``."""


class Opened(msgspec.Struct, frozen=True, kw_only=True, tag="opened"):
    """A phase was entered, the first one or another; or why it was not."""

    index: int
    phase: str
    problem: str = ""


class Delta(msgspec.Struct, frozen=True, kw_only=True, tag="delta"):
    """What was published since the last one.

    Attributes:
        phase: of all of it.
        latency: of acknowledged and of failed tasks, from the moment when they were due.
        payload_bytes: sum.
        errors: how many failed, by text.
        totals: since the run began.
    """

    phase: str
    latency: Histogram
    payload_bytes: int
    errors: dict[str, int]
    totals: ProducerTotals


class Closed(msgspec.Struct, frozen=True, kw_only=True, tag="closed"):
    """It ends."""

    totals: ProducerTotals


Command = Open | Users | EnterPhase | Close
Event = Opened | Delta | Closed


def command_decoder() -> "msgspec.json.Decoder[Command]":
    """Decodes one line for the engine."""
    return msgspec.json.Decoder(Command)


def event_decoder() -> "msgspec.json.Decoder[Event]":
    """Decodes one line of the engine."""
    return msgspec.json.Decoder(Event)
