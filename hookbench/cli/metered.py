"""Metrics of a process, as worker and produce serve them; off unless an address is given."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hookbench.metrics.process import ProcessMetrics

__all__ = ["Metered", "metered"]

Announce = Callable[[dict[str, Any]], None]


class Metered:
    """What a process is given in the place of its own parts; the same ones with metrics off.

    Attributes:
        recorder: of events, ``None`` for nobody.
        announce: is told what the process does.
        guide: the guide's counters, ``None`` for those that nobody reads.
    """

    def __init__(
        self,
        recorder: Any,
        announce: Announce,
        served: "ProcessMetrics | None" = None,
        linger_s: float = 0.0,
    ) -> None:
        self._served = served
        self._linger_s = linger_s
        self.recorder = recorder if served is None else served.meter
        self.announce = announce if served is None else served.listening(announce)
        self.guide = None if served is None else served.guide

    def timed(self, handler: Any) -> Any:
        """The handler, measured."""
        return handler if self._served is None else self._served.timed(handler)

    async def linger(self) -> None:
        """Once the work is done, let a last scrape have all of it."""
        if self._served is not None:
            await self._served.linger(self._linger_s)


@contextlib.contextmanager
def metered(
    address: str | None,
    linger_s: float,
    recorder: Any,
    announce: Announce,
    *,
    role: str,
    writer: int,
    urls: tuple[str | None, str | None],
    names: Any,
    task_types: Sequence[str],
    redis_kind: Any,
    clock: Any,
) -> Iterator[Metered]:
    """Serve what a process counts, and announce where; without an address nothing.

    Raises:
        SettingError: the address is none, or cannot be listened on.
    """
    if address is None:
        yield Metered(recorder, announce)
        return
    from hookbench import __version__
    from hookbench.metrics.process import serve_metrics
    from hookbench.metrics.server import parse_endpoint

    with serve_metrics(
        parse_endpoint(address),
        recorder,
        role=role,
        version=__version__,
        urls=urls,
        names=names,
        task_types=task_types,
        redis_kind=redis_kind,
        clock=clock,
    ) as served:
        announce({"event": "metrics", "metrics_url": served.server.endpoint.url, "writer": writer})
        yield Metered(recorder, announce, served, linger_s)
