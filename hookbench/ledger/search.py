"""The neighbour of an event in another event's column, key by key."""

import numpy as np

from hookbench.ledger.columns import Bools, Ints

__all__ = ["first_after", "last_before"]


def first_after(keys: Ints, times: Ints, event_keys: Ints, event_times: Ints) -> Ints:
    """For each (key, time) the row of the first event of the same key at that time or later.

    Args:
        keys: shape (n,).
        times: shape (n,).
        event_keys: shape (m,), in any order.
        event_times: shape (m,).

    Returns:
        Shape (n,), rows of the events, -1 where there is none.
    """
    order, is_event = _merge(keys, times, event_keys, event_times, events_last=True)
    place = np.where(is_event, np.arange(len(order)), len(order))
    following = np.minimum.accumulate(place[::-1])[::-1]
    return _matched(order, following, keys, event_keys)


def last_before(keys: Ints, times: Ints, event_keys: Ints, event_times: Ints) -> Ints:
    """For each (key, time) the row of the last event of the same key at that time or earlier."""
    order, is_event = _merge(keys, times, event_keys, event_times, events_last=False)
    place = np.where(is_event, np.arange(len(order)), -1)
    preceding = np.maximum.accumulate(place)
    return _matched(order, preceding, keys, event_keys)


def _merge(
    keys: Ints, times: Ints, event_keys: Ints, event_times: Ints, *, events_last: bool
) -> tuple[Ints, Bools]:
    """Order of both, by key and time; at equal times the events come first or last."""
    count = len(keys)
    kind = np.zeros(count + len(event_keys), dtype=np.int8)
    kind[count:] = 1 if events_last else -1
    order = np.lexsort(
        (kind, np.concatenate((times, event_times)), np.concatenate((keys, event_keys)))
    )
    return order, order >= count


def _matched(order: Ints, neighbour: Ints, keys: Ints, event_keys: Ints) -> Ints:
    """Rows of the neighbours that have the same key."""
    count = len(keys)
    out = np.full(count, -1, dtype=np.int64)
    queries = np.flatnonzero(order < count)
    places = neighbour[queries]
    valid = (places >= 0) & (places < len(order))
    asked = order[queries[valid]]
    rows = order[places[valid]] - count
    same = event_keys[rows] == keys[asked]
    out[asked[same]] = rows[same]
    return out
