"""The settings of a simulated consumer."""

import msgspec

__all__ = ["ConsumerConfig"]

_DEFAULT_ACK_WAIT_NS = 30_000_000_000


class ConsumerConfig(msgspec.Struct, kw_only=True):
    """The settings, as the API has them; times in ns."""

    name: str = ""
    durable_name: str = ""
    deliver_policy: str = "all"
    opt_start_seq: int = 0
    ack_policy: str = "explicit"
    ack_wait: int = 0
    max_deliver: int = 0
    filter_subject: str = ""
    replay_policy: str = "instant"
    max_waiting: int = 512
    max_ack_pending: int = 0
    inactive_threshold: int = 0
    num_replicas: int = 0
    mem_storage: bool = False
    metadata: dict[str, str] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Fill in what the server fills in."""
        if self.ack_policy == "none":
            self.ack_wait = self.max_ack_pending = 0
        else:
            self.ack_wait = self.ack_wait or _DEFAULT_ACK_WAIT_NS
            self.max_ack_pending = self.max_ack_pending or 1000
        self.max_deliver = self.max_deliver or -1
