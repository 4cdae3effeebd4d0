"""Handler classes, and one execution of a handler."""

import enum

import msgspec

from hookbench.errors import SettingError

__all__ = ["Execution", "HandlerClass", "mark_of", "parse_handler_class"]


class HandlerClass(enum.IntEnum):
    """What a handler promises about the effects of a task that is executed again.

    - ``transactional``: effect and done-record in one atomic compare-and-set on task id and
      token: exactly one effect;
    - ``idempotent``: any number of executions leaves the state that one leaves;
    - ``plain``: neither: each execution has an effect of its own.
    """

    TRANSACTIONAL = 1
    IDEMPOTENT = 2
    PLAIN = 3

    @property
    def label(self) -> str:
        """``transactional``."""
        return self.name.lower()


_BY_LABEL = {item.label: item for item in HandlerClass}


def parse_handler_class(text: str) -> HandlerClass:
    """The class with a label.

    Raises:
        SettingError: there is none; the text lists them.
    """
    found = _BY_LABEL.get(text)
    if found is None:
        raise SettingError(f"handler class {text!r}: use one of {', '.join(_BY_LABEL)}")
    return found


class Execution(msgspec.Struct, frozen=True, kw_only=True):
    """One execution of a handler.

    Attributes:
        attempt: 1-based number of the delivery.
        token: fencing token of the claim; 0 where nothing was claimed. A transactional effect
            with a lower token than one seen for its task is refused.
    """

    attempt: int = 1
    token: int = 0


def mark_of(task: bytes) -> int:
    """The state that an idempotent synthetic task leaves: the second half of its 16 id bytes.

    It follows from the id alone, so a checker knows it without asking a worker.
    """
    return int.from_bytes(task[8:16], "little", signed=True)
