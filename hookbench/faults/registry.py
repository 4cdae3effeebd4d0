"""Every kind of fault, by the name that a scenario gives it."""

import difflib
from collections.abc import Iterable
from typing import Any, get_args

import msgspec

from hookbench.errors import SettingError
from hookbench.faults.consumer_gone import DeleteConsumer, RecreateConsumer
from hookbench.faults.consumer_limits import ConsumerLimits
from hookbench.faults.equal_payloads import EqualPayloads
from hookbench.faults.failing_handler import FailingHandler
from hookbench.faults.hot_repository import HotRepository
from hookbench.faults.maxmemory import MaxMemory
from hookbench.faults.oversize import Oversize
from hookbench.faults.partition import Partition
from hookbench.faults.poison import Poison
from hookbench.faults.power_cut import PowerCut
from hookbench.faults.process import Kill, Pause, Restart
from hookbench.faults.promote import Promote
from hookbench.faults.rolling import RollingRestart
from hookbench.faults.slow_handler import SlowHandler
from hookbench.faults.step import KillAtStep
from hookbench.faults.step_down import StepDown
from hookbench.faults.stream_limits import StreamLimits
from hookbench.faults.wire_fault import Wire

__all__ = ["FAULTS", "AnyFault", "parse_fault"]

AnyFault = (
    Kill
    | Pause
    | Restart
    | RollingRestart
    | KillAtStep
    | Wire
    | Partition
    | MaxMemory
    | StreamLimits
    | ConsumerLimits
    | DeleteConsumer
    | RecreateConsumer
    | StepDown
    | Promote
    | PowerCut
    | SlowHandler
    | FailingHandler
    | Poison
    | EqualPayloads
    | Oversize
    | HotRepository
)

FAULTS: dict[str, type[Any]] = {
    str(kind.__struct_config__.tag): kind for kind in get_args(AnyFault)
}


def kind_of(fault: AnyFault) -> str:
    """The name of its kind."""
    return str(fault.__struct_config__.tag)


def check_kinds(names: Iterable[str], where: str = "--without") -> None:
    """Refuse what is no kind of fault.

    Raises:
        SettingError: the text names the nearest.
    """
    for name in names:
        _kind(name, where)


def _kind(name: str, where: str) -> type[Any]:
    if name not in FAULTS:
        raise SettingError(
            f"{where}: unknown fault {name!r}{_nearest(name, list(FAULTS))}; known are"
            f" {', '.join(FAULTS)}"
        )
    return FAULTS[name]


def parse_fault(data: dict[str, Any], where: str) -> AnyFault:
    """The fault in a table of a scenario.

    Args:
        data: the table; ``kind`` names the fault.
        where: for messages.

    Raises:
        SettingError: an unknown kind or key (the text names the nearest), a missing or wrong value.
    """
    if not isinstance(data, dict) or not isinstance(data.get("kind"), str):
        raise SettingError(f'{where}: say which fault it is, as in kind = "kill"')
    name = data["kind"]
    kind = _kind(name, where)
    fields = [field.encode_name for field in msgspec.structs.fields(kind)]
    rest = {key: value for key, value in data.items() if key != "kind"}
    for key in rest:
        if key not in fields:
            raise SettingError(
                f"{where}: unknown key {key!r} of fault {name!r}{_nearest(key, fields)}; known are"
                f" kind, {', '.join(fields)}"
            )
    try:
        fault: AnyFault = msgspec.convert({**rest, "type": name}, kind, strict=True)
    except msgspec.ValidationError as error:
        raise SettingError(f"{where}: fault {name!r}: {error}") from error
    if fault.at_s < 0 or fault.for_s < 0:
        raise SettingError(f"{where}: {fault.name}: use 0 or more for at_s and for_s")
    if fault.phase_index is not None and fault.phase_index < 0:
        raise SettingError(f"{where}: {fault.name}: use 0 or more for phase_index")
    try:
        fault.check()
    except SettingError as error:
        raise SettingError(f"{where}: {error}") from error
    return fault


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""
