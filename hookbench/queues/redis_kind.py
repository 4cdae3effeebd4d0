"""The two queues that Redis can be to the reference producer and worker."""

import enum

from hookbench.errors import SettingError

__all__ = ["RedisKind", "parse_redis_kind"]


class RedisKind(enum.StrEnum):
    """What holds the tasks on Redis.

    ``list`` is the guide's, which the migration leads away from. ``stream`` is for a comparison:
    only the phase that uses Redis alone has it.
    """

    LIST = "list"
    STREAM = "stream"


def parse_redis_kind(text: str) -> RedisKind:
    """A kind by its name.

    Raises:
        SettingError: there is no such kind.
    """
    try:
        return RedisKind(text)
    except ValueError as error:
        raise SettingError(f"Redis queue {text!r}: use {', '.join(RedisKind)}") from error
