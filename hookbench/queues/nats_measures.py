"""Which measures of the hardened design a NATS connection carries out; see ``Measures``."""

import msgspec

__all__ = ["GUIDE_NATS", "NatsMeasures"]


class NatsMeasures(msgspec.Struct, frozen=True, kw_only=True):
    """Those of ``Measures`` that concern stream, consumer and connection; by default none.

    Attributes:
        confirmed_acks: acknowledgements are confirmed by the server.
        epoch_consumer: one consumer per entry into reading NATS, from the watermark.
        consumer_per_type: one consumer per task type.
        short_pings: a half-open connection is noticed within seconds.
        sized_pending: max-ack-pending follows the slots of the workers.
        advisories: advisories are captured in a stream.
    """

    confirmed_acks: bool = False
    epoch_consumer: bool = False
    consumer_per_type: bool = False
    short_pings: bool = False
    sized_pending: bool = False
    advisories: bool = False


GUIDE_NATS = NatsMeasures()
