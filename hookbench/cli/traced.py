"""Spans of a process, as worker and produce send them; off unless an endpoint is given."""

import contextlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hookbench.tracing import Tracing

__all__ = ["traced"]


@contextlib.contextmanager
def traced(url: str | None, *, role: str, names: Any) -> "Iterator[Tracing | None]":
    """Spans for as long as a process runs.

    Raises:
        SettingError: the endpoint cannot be used.
    """
    if url is None:
        yield None
        return
    from hookbench import __version__
    from hookbench.tracing import open_tracing

    tracing = open_tracing(url, role=role, names=names, version=__version__)
    try:
        yield tracing
    finally:
        tracing.close()
