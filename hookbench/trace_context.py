"""The context of a trace in an encoded task, see ``hookbench.tracing``."""

import msgspec

__all__ = ["TRACEPARENT", "trace_headers"]

TRACEPARENT = "traceparent"
"""Key of the payload, and name of the NATS header (https://www.w3.org/TR/trace-context/)."""


class _Carried(msgspec.Struct, frozen=True):
    traceparent: str | None = None


class _Traced(msgspec.Struct, frozen=True):
    payload: _Carried = _Carried()


_decoder = msgspec.json.Decoder(_Traced)


def trace_headers(data: bytes) -> dict[str, str]:
    """The context in an encoded task, as a header; none without one."""
    try:
        found = _decoder.decode(data).payload.traceparent
    except (msgspec.MsgspecError, UnicodeDecodeError):  # of a payload with a key of its own
        return {}
    return {} if found is None else {TRACEPARENT: found}
