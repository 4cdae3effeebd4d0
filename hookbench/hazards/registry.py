"""Every hazard, by its id in the table."""

import difflib
from collections.abc import Sequence

from hookbench.errors import SettingError
from hookbench.hazards.model import Hazard
from hookbench.hazards.rows import nats_consumer, nats_delivery, redis_read

__all__ = ["HAZARDS", "find_hazards"]

HAZARDS: dict[str, Hazard] = {
    hazard.id: hazard
    for rows in (redis_read.ROWS, nats_delivery.ROWS, nats_consumer.ROWS)
    for hazard in rows
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
