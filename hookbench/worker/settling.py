"""How a worker tells a broker that does not always answer what became of a delivery."""

import logging
from collections.abc import Awaitable, Callable

from hookbench.clock import Clock
from hookbench.errors import (
    BrokerUnreachableError,
    LeaseLostError,
    PublishRefusedError,
    PublishUnknownError,
)
from hookbench.task import HookTask

__all__ = ["BROKER_TROUBLE", "settle"]

_log = logging.getLogger(__name__)

BROKER_TROUBLE = (BrokerUnreachableError, PublishRefusedError, PublishUnknownError)
"""What a broker that is away, or full, raises: it may be asked again."""
_RETRIES = 5
_PAUSE_S = 0.2


async def settle(
    call: Callable[[], Awaitable[None]], what: str, task: HookTask | None, clock: Clock
) -> bool:
    """Call the broker, again a few times if it does not answer; whether it went through.

    The log says ``what`` was tried, for which ``task``. A lease that is lost is not asked for
    again.
    """
    for attempt in range(1, _RETRIES + 1):
        try:
            await call()
        except BROKER_TROUBLE as error:
            told = _tell(what, task)
            _log.warning("%s, try %d of %d: %s", told, attempt, _RETRIES, error)
            await clock.sleep(_PAUSE_S * attempt)
        except LeaseLostError as error:
            _log.warning("%s: %s", _tell(what, task), error)
            return False
        else:
            return True
    return False


def _tell(what: str, task: HookTask | None) -> str:
    return f"{what} of task {task.id if task else '-'}"
