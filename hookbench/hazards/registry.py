"""Every hazard, by its id in the table."""

import difflib
from collections.abc import Sequence

from hookbench.errors import SettingError
from hookbench.hazards.model import Hazard
from hookbench.hazards.rows import (
    cutover_and_back,
    dual_read,
    dual_write,
    early_ack,
    fallback,
    nats_cluster,
    nats_consumer,
    nats_delivery,
    nats_window,
    redis_read,
    redis_server,
    redis_write,
    types_and_sizes,
)

__all__ = ["HAZARDS", "find_hazards"]

_PLACES = "RPNTCBS"
"""Letters of ids, in the order of the table."""


def _place(hazard: Hazard) -> tuple[int, int]:
    return _PLACES.index(hazard.id[0]), int(hazard.id[1:])


_ROWS = (
    redis_read.ROWS,
    redis_write.ROWS,
    redis_server.ROWS,
    types_and_sizes.ROWS,
    dual_write.ROWS,
    dual_read.ROWS,
    fallback.ROWS,
    early_ack.ROWS,
    cutover_and_back.ROWS,
    nats_cluster.ROWS,
    nats_window.ROWS,
    nats_delivery.ROWS,
    nats_consumer.ROWS,
)
HAZARDS: dict[str, Hazard] = {
    hazard.id: hazard for hazard in sorted((row for rows in _ROWS for row in rows), key=_place)
}


def find_hazards(ids: Sequence[str]) -> list[Hazard]:
    """The hazards with these ids, all of them for none, in the order of the table.

    Raises:
        SettingError: an unknown id; the text has the nearest.
    """
    wanted = {item.upper() for item in ids}
    for item in sorted(wanted - set(HAZARDS)):
        close = difflib.get_close_matches(item, HAZARDS, n=1, cutoff=0.0)
        raise SettingError(f"hazard {item}: did you mean {close[0]}? (known: {', '.join(HAZARDS)})")
    return [hazard for hazard in HAZARDS.values() if not wanted or hazard.id in wanted]
