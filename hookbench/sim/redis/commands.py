"""All commands on keys: importing this fills the table."""

from hookbench.sim.redis import (
    groups,
    hashes,
    keys,
    lists,
    sets,
    sorted_sets,
    stream_info,
    streams,
)

__all__ = ["MODULES"]

MODULES = (groups, hashes, keys, lists, sets, sorted_sets, stream_info, streams)
