"""Publishing with a task's id: again and again, within the time in which the stream knows it.

A publish without an answer may be stored, and one that nobody took is not; with the id as
``Nats-Msg-Id`` both may be sent again, for the stream stores a repeat within its duplicate window
once (https://docs.nats.io/using-nats/developer/develop_jetstream/model_deep_dive). The window is
counted from the first one that was stored, so what is sent again must all arrive before it ends.
What comes later, from a caller that sends the same task once more or from an outbox after a long
outage, is stored again: the done-store is the authority about that.
"""

import msgspec

from hookbench.clock import NS_PER_S, Clock
from hookbench.errors import (
    PublishRefusedError,
    PublishUnavailableError,
    PublishUnknownError,
    SettingError,
)
from hookbench.ledger.events import Broker, Event, NullRecorder, Recorder
from hookbench.queues.base import NatsPublishFn
from hookbench.task import task_id_of

__all__ = ["PatientPublish", "PublishPatience", "check_pauses"]


class PublishPatience(msgspec.Struct, frozen=True, kw_only=True):
    """How long, and how often, a publish is tried.

    Attributes:
        horizon_s: no try ends later than this after the first one began.
        timeout_s: how long the acknowledgement of one try is waited for.
        pause_s: wait before the second try, doubled up to ``pause_max_s``.
        pause_max_s: the longest such wait.
    """

    horizon_s: float = 60.0
    timeout_s: float = 5.0
    pause_s: float = 0.05
    pause_max_s: float = 2.0

    def check(self, duplicate_window_s: float) -> None:
        """Refuse a horizon that reaches beyond the stream's duplicate window.

        Raises:
            SettingError: the text has both; or a wait that is none.
        """
        if not 0 < self.pause_s <= self.pause_max_s or self.timeout_s <= 0:
            raise SettingError(
                f"pauses of {self.pause_s:g} to {self.pause_max_s:g} s and a timeout of"
                f" {self.timeout_s:g} s: use more than 0, and no longer pause first than last"
            )
        if self.horizon_s >= duplicate_window_s:
            raise SettingError(
                f"retry horizon of {self.horizon_s:g} s with a duplicate window of"
                f" {duplicate_window_s:g} s: a retry could come after the window and be stored"
                " twice; shorten the horizon (--retry-horizon) or widen the window"
                " (--duplicate-window)"
            )


def check_pauses(patience: PublishPatience, pause_max_s: float, duplicate_window_s: float) -> None:
    """Refuse an outbox whose sweeps lie so far apart that the stream never knows a repeat.

    Raises:
        SettingError: the text has the time from one put to the next, and the window.
    """
    longest_s = patience.timeout_s + pause_max_s
    if longest_s >= duplicate_window_s:
        raise SettingError(
            f"up to {longest_s:g} s from one put of an outbox to the next with a duplicate window"
            f" of {duplicate_window_s:g} s: a repeat would be stored twice; widen the window"
            " (--duplicate-window)"
        )


class PatientPublish:
    """The guide's ``nats_publish`` over another one that sends the id along; it is called again.

    Tries that are followed by another one are recorded here, the last one is the caller's affair.
    """

    def __init__(
        self,
        publish: NatsPublishFn,
        patience: PublishPatience,
        *,
        clock: Clock,
        recorder: Recorder | None = None,
    ) -> None:
        self._publish = publish
        self._patience = patience
        self._clock = clock
        self._recorder = recorder or NullRecorder()

    async def __call__(self, subject: str, payload: bytes) -> int:
        """Publish until it is acknowledged; the sequence of the first that was stored.

        Raises:
            OversizeError, PublishRefusedError: see the function below.
            PublishUnavailableError, PublishUnknownError: not within the horizon. Unknown as soon as
                one try had no answer, for that one may be stored.
        """
        patience = self._patience
        last_ns = self._clock.monotonic_ns() + int(
            (patience.horizon_s - patience.timeout_s) * NS_PER_S
        )
        pause_s = patience.pause_s
        doubt: PublishUnknownError | None = None
        while True:
            try:
                return await self._publish(subject, payload)
            except (PublishUnavailableError, PublishUnknownError) as error:
                trouble: PublishRefusedError | PublishUnknownError = error
            except PublishRefusedError as error:
                if doubt is not None:
                    raise doubt from error
                raise
            except TimeoutError as error:  # from an injected function that is not ours
                trouble = PublishUnknownError(f"no answer in time: {error}")
            if isinstance(trouble, PublishUnknownError):
                doubt = trouble
            if self._clock.monotonic_ns() + int(pause_s * NS_PER_S) > last_ns:
                raise trouble if doubt is None else doubt
            unknown = isinstance(trouble, PublishUnknownError)
            self._recorder.record(
                Event.PUT_UNKNOWN if unknown else Event.PUT_FAIL,
                task_id_of(payload).bytes,
                broker=Broker.NATS,
            )
            await self._clock.sleep(pause_s)
            pause_s = min(2 * pause_s, patience.pause_max_s)
