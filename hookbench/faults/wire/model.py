"""What is said over the control socket: rules in, statistics out."""

import msgspec

__all__ = [
    "OPAQUE",
    "Hit",
    "LinkSettings",
    "LinkStats",
    "ProxyStats",
    "Rule",
    "RuleStats",
    "Trouble",
]


OPAQUE = "tcp"
"""A protocol that is not parsed, as between the nodes of a broker: only rules on the whole link."""


class LinkSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One listening port and the broker behind it.

    Attributes:
        name: how rules name it.
        protocol: ``resp``, ``nats`` or ``tcp``.
        upstream_port: of the broker, on loopback.
        listen_port: 0 for a free one.
    """

    name: str
    protocol: str
    upstream_port: int
    listen_port: int = 0


class Rule(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """A fault on one link: which frames it meets, and what becomes of them.

    The frame that meets ``reset``, ``half_open``, ``cut`` or ``drop`` is not forwarded; what was
    before it is. Several rules may match a frame: each counts it, and the one that was added first
    of those that fire decides. A frame of which a part was forwarded before the direction had any
    rule is passed, and counts for none.

    Attributes:
        action: ``pass`` (only counts), ``delay``, ``drop``, ``duplicate``, ``reset`` (RST to both
            sides), ``half_open`` (nothing more is forwarded, the sockets stay), ``trickle``, or
            ``cut`` (both sides closed in order); on the whole link until it is removed:
            ``bandwidth``, ``latency``, ``partition``.
        link: by name; may be left out where there is only one.
        direction: ``request`` or ``reply``; of a link-wide action, both if left out.
        command: a Redis command (of a reply: the one it answers), a NATS verb, or ``PubAck``,
            ``Ack`` (a publish to ``$JS.ACK.``) and ``Fetch`` (a pull request).
        key: glob of the first Redis key; ``subject`` is the same for NATS. Of a reply or a PubAck,
            that of its request.
        nth: the first match that may fire, from 1.
        count: how many matches from there on, 0 for all; where an earlier rule decides over one of
            them, the next one stands in for it.
        probability: of each of them.
        seed: of the probability and the jitter.
        delay_ms: of ``delay`` (the frame and what is behind it on its connection) and ``latency``.
        jitter_ms: up to so much is added to the delay, evenly.
        bytes_per_s: of ``trickle`` (that frame) and ``bandwidth`` (all connections together).
        then: after a dropped Redis reply, for a client that misses one can never be in step again:
            ``half_open`` or ``reset``.
        refuse: new connections meet a closed port in a ``partition``, not a silent one; they are
            silent also if only one direction is cut, for a connection needs both.
    """

    action: str
    link: str = ""
    direction: str | None = None
    command: str | None = None
    key: str | None = None
    subject: str | None = None
    nth: int = 1
    count: int = 1
    probability: float = 1.0
    seed: int = 0
    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    bytes_per_s: float = 0.0
    then: str = "half_open"
    refuse: bool = False


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """One firing.

    Attributes:
        n: the number of the match, from 1.
        connection: the number of the connection on its link, from 1; 0 for none.
        what: the command, verb or pseudo-frame.
        key: the Redis key or NATS subject.
        time_ns: monotonic.
    """

    n: int
    connection: int
    what: str
    key: str
    time_ns: int


class RuleStats(msgspec.Struct, kw_only=True):
    """A rule and whether it fired. It stays after the rule was removed.

    Attributes:
        matches: frames that it met; of a link-wide rule, pieces of input.
        firings: how often it acted.
        overruled: firings that an earlier rule left nothing to do.
        first_ns: monotonic time of the first firing, 0 before it.
        last_ns: of the last one.
        affected_bytes: in the frames and pieces that it acted on.
        hits: the first firings.
        hits_left_out: further ones.
        removed_ns: when it was removed, 0 while it stands.
    """

    id: int
    rule: Rule
    added_ns: int
    matches: int = 0
    firings: int = 0
    overruled: int = 0
    first_ns: int = 0
    last_ns: int = 0
    affected_bytes: int = 0
    hits: list[Hit] = []
    hits_left_out: int = 0
    removed_ns: int = 0


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """What a run should know: rules can do less on this connection than they promise."""

    connection: int
    text: str
    time_ns: int


class LinkStats(msgspec.Struct, kw_only=True):
    """One link.

    Attributes:
        port: where clients connect.
        accepted: connections so far.
        open: of them, those that are open to the client or the broker.
        half_open: of those, the ones over which nothing is forwarded.
        upstream_failures: connections that the broker did not take.
        request_bytes: received from clients; ``reply_bytes`` from the broker.
        request_frames: whole frames seen in them; ``reply_frames`` likewise.
        discarded_bytes: received and, by a rule, not forwarded.
        transparent: connections that pass unparsed, for their bytes were no frames.
        troubles: the first of what a run should know.
        troubles_left_out: further ones.
    """

    name: str
    protocol: str
    port: int
    upstream_port: int
    accepted: int = 0
    open: int = 0
    half_open: int = 0
    upstream_failures: int = 0
    request_bytes: int = 0
    reply_bytes: int = 0
    request_frames: int = 0
    reply_frames: int = 0
    discarded_bytes: int = 0
    transparent: int = 0
    troubles: list[Trouble] = []
    troubles_left_out: int = 0


class ProxyStats(msgspec.Struct, kw_only=True):
    """Everything that the proxy counts; ``now_ns`` is its monotonic clock."""

    now_ns: int
    links: list[LinkStats]
    rules: list[RuleStats]
