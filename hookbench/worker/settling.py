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

__all__ = ["BROKER_TROUBLE", "settle"]

_log = logging.getLogger(__name__)

BROKER_TROUBLE = (BrokerUnreachableError, PublishRefusedError, PublishUnknownError)
"""What a broker that is away, or full, raises: it may be asked again."""
_RETRIES = 5
_PAUSE_S = 0.2


async def settle(call: Callable[[], Awaitable[None]], what: str, clock: Clock) -> bool:
    """Call the broker, again a few times if it does not answer; whether it went through.

    ``what`` says in the log what was tried. A lease that is lost is not asked for again.
    """
    for attempt in range(1, _RETRIES + 1):
        try:
            await call()
        except BROKER_TROUBLE as error:
            _log.warning("%s, try %d of %d: %s", what, attempt, _RETRIES, error)
            await clock.sleep(_PAUSE_S * attempt)
        except LeaseLostError as error:
            _log.warning("%s: %s", what, error)
            return False
        else:
            return True
    return False
