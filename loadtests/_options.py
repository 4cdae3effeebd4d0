"""The options of a load test: on the command line and in Locust's web form."""

import argparse
import enum
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from _run_options import HandlerChoice, ModeChoice, QueueChoice, RunOptions, WireChoice
from _timeline import parse_timeline

from hookbench.brokers.durability import Durability
from hookbench.brokers.resolve import NATS_URL_VARIABLE, REDIS_URL_VARIABLE
from hookbench.errors import SettingError
from hookbench.faults.texts import parse_fault_texts
from hookbench.load.payloads import parse_payload
from hookbench.load.thresholds import parse_thresholds
from hookbench.migration.phases import Design

__all__ = ["TICKET_OPTION", "add_options", "read_options"]

TICKET_OPTION = "hookbench_ticket"
"""Carries the run from the master to its workers among the parsed options."""

DEFAULT_USERS = 20


class _Number(NamedTuple):
    """One number in the form: its field in ``RunOptions``, bounds and help."""

    field: str
    low: float
    high: float
    text: str


_NUMBERS = {
    "rate": _Number(
        "rate_per_s", 0, 100_000, "Tasks per second of each user (open loop); 0: closed loop."
    ),
    "burst": _Number("burst", 1, 1_000, "Tasks that a user sends at once in a closed loop."),
    "hook_workers": _Number("hook_workers", 0, 64, "Processes of 'hookbench worker'."),
    "work_ms": _Number("work_ms", 0, 60_000, "Service time of each task in the worker."),
    "drain_seconds": _Number(
        "drain_s", 0, 3_600, "Longest wait for an empty queue after the users stopped."
    ),
    "max_tasks": _Number("max_tasks", 1, 20_000_000, "The run stops after so many tasks."),
}
_MAX_PAYLOAD_BYTES = 1_000_000
_PUBLISH_TIMES = ("publish_p50", "publish_p99", "publish_max")
_CHOICES: dict[str, tuple[type[enum.StrEnum], str]] = {
    "queue": (QueueChoice, "Where to publish; both: NATS and Redis, read from Redis."),
    "durability": (Durability, "Durability class of the embedded brokers."),
    "design": (Design, "guide: NATS is acknowledged before the work; hardened: after it."),
    "handler": (HandlerChoice, "noop; sleep: takes --work-ms; fail: fails each time."),
    "mode": (ModeChoice, "bridge: each user publishes; engine: a process does for all of them."),
    "wire": (WireChoice, "proxied: faults of the wire can be injected by hand."),
}


class _Text(NamedTuple):
    """One text in the form: what checks it, its name for a user, and its help."""

    check: Callable[[str], object]
    metavar: str
    text: str
    several: bool = False


def _check_payload(text: str) -> None:
    largest = parse_payload(text).largest
    if largest > _MAX_PAYLOAD_BYTES:
        raise SettingError(f"payload of {largest:,} bytes: use up to {_MAX_PAYLOAD_BYTES:,}")


def _check_thresholds(text: str) -> None:
    for item in parse_thresholds(text):
        if item.name.startswith("publish_") and item.name not in _PUBLISH_TIMES:
            raise SettingError(
                f"threshold {item.text!r}: of publishes there are {', '.join(_PUBLISH_TIMES)}"
            )


_TEXTS = {
    "phases": _Text(
        parse_timeline,
        "<timeline>",
        "In place of the queue: phases with seconds, as in redis_only:20,dual_write:20,dual_read.",
    ),
    "faults": _Text(
        parse_fault_texts,
        "<faults>",
        "A schedule, as in 'kill worker-0 at=5; pause nats at=10 for=2'.",
    ),
    "payload": _Text(
        _check_payload,
        "<bytes>",
        "Bytes of filling of each task: 256, uniform:min=64,max=4096 or lognormal:median=512.",
    ),
    "fail_if": _Text(
        _check_thresholds,
        "<thresholds>",
        "Fail beyond these, such as p99>100ms,lost>0 (p99 from the due moment to the end).",
        several=True,
    ),
}


def add_options(parser: Any) -> None:
    """Add the options to Locust's parser, and give users and spawn rate a default.

    Added to the parser itself: options in a group do not appear in the web form.
    """
    defaults = RunOptions()
    for name, (kind, help_text) in _CHOICES.items():
        parser.add_argument(
            _flag(name),
            choices=[str(item) for item in kind],
            default=str(getattr(defaults, name)),
            env_var=_variable(name),
            help=help_text,
        )
    for name, number in _NUMBERS.items():
        parser.add_argument(
            _flag(name),
            type=_parser_of(name),
            default=getattr(defaults, number.field),
            env_var=_variable(name),
            metavar="<number>",
            help=_text_with_bounds(number),
        )
    for name, text in _TEXTS.items():
        parser.add_argument(
            _flag(name),
            default=getattr(defaults, name),
            type=_text_of(name),
            env_var=_variable(name),
            metavar=text.metavar,
            help=text.text,
            **({"action": _Joined} if text.several else {}),
        )
    parser.add_argument(
        "--engine",
        dest="mode",
        action="store_const",
        const=str(ModeChoice.ENGINE),
        include_in_web_ui=False,
        help="The same as --mode engine.",
    )
    # Not in the form: whoever reaches the web page must not aim the load at other servers.
    for name, variable in (("redis-url", REDIS_URL_VARIABLE), ("nats-url", NATS_URL_VARIABLE)):
        parser.add_argument(
            f"--{name}",
            default="",
            env_var=variable,
            metavar="<url>",
            include_in_web_ui=False,
            help="A broker of yours, instead of an embedded one.",
        )
    parser.add_argument(
        "--allow-existing",
        action="store_true",
        default=False,
        include_in_web_ui=False,
        help="Accept a broker that already holds a hook queue.",
    )
    parser.add_argument(
        _flag(TICKET_OPTION), default="", include_in_web_ui=False, help=argparse.SUPPRESS
    )
    parser.set_defaults(num_users=DEFAULT_USERS, spawn_rate=float(DEFAULT_USERS))


def _text_with_bounds(number: _Number) -> str:
    """The help of a number."""
    return f"{number.text} From {number.low:,} to {number.high:,}."


def read_options(values: Mapping[str, Any]) -> RunOptions:
    """The options in parsed arguments or in the fields of the web form.

    Raises:
        SettingError: the text names the option and what it takes.
    """
    fields: dict[str, Any] = {}
    for name, (kind, _text) in _CHOICES.items():
        value = str(values[name])
        try:
            fields[name] = kind(value)
        except ValueError as error:
            known = ", ".join(str(item) for item in kind)
            raise SettingError(f"{_flag(name)} {value!r}: use one of {known}") from error
    for name, number in _NUMBERS.items():
        fields[number.field] = _number(name, values[name])
    for name, text in _TEXTS.items():
        fields[name] = str(values[name])
        text.check(fields[name])
    _check_handler(fields)
    if fields["burst"] > 1 and (fields["rate_per_s"] or fields["mode"] is ModeChoice.ENGINE):
        raise SettingError(
            f"--burst {fields['burst']}: only users of a closed loop send several tasks at once:"
            " use --rate 0, without an engine"
        )
    return RunOptions(**fields)


def _check_handler(fields: dict[str, Any]) -> None:
    """A time means the handler that takes it."""
    handler, work_ms = fields["handler"], fields["work_ms"]
    if handler is HandlerChoice.SLEEP and not work_ms:
        raise SettingError("--handler sleep: say how long it takes: --work-ms 5")
    if handler is HandlerChoice.FAIL and work_ms:
        raise SettingError(f"--work-ms {work_ms:g}: the handler fail takes no time")
    if work_ms:
        fields["handler"] = HandlerChoice.SLEEP


def _text_of(name: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        try:
            _TEXTS[name].check(text)
        except SettingError as error:
            raise argparse.ArgumentTypeError(str(error)) from error
        return text

    return parse


class _Joined(argparse.Action):
    """An option that may be given several times: all that was given counts."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,  # noqa: ARG002
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,  # noqa: ARG002
    ) -> None:
        before = getattr(namespace, self.dest)
        setattr(namespace, self.dest, f"{before},{values}" if before else values)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _variable(name: str) -> str:
    return f"HOOKBENCH_LOCUST_{name.upper()}"


def _number(name: str, value: Any) -> float:
    spec = _NUMBERS[name]
    convert = type(getattr(RunOptions(), spec.field))
    kind = "a whole number" if convert is int else "a number"
    try:
        number: float = convert(value)
    except ValueError as error:
        raise SettingError(f"{_flag(name)} {value!r}: use {kind}") from error
    if not math.isfinite(number) or not spec.low <= number <= spec.high:
        raise SettingError(
            f"{_flag(name)} {value}: use {kind} between {spec.low:,} and {spec.high:,}"
        )
    return number


def _parser_of(name: str) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            return _number(name, text)
        except SettingError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return parse
