"""Scrapes the processes of a rehearsal when they have done all, and keeps what they say."""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hookbench.errors import ScrapeError
from hookbench.metrics.kept import SCRAPE_SUFFIX
from hookbench.metrics.scrape import scrape

__all__ = ["LINGER_S", "Scrapes"]

LINGER_S = 10.0
"""How long a process waits to be scraped, by a harness that is busy, with brokers that are away."""
_AT_ONCE = 4


class Scrapes:
    """Asks each process once, when it says that it has stopped; it waits for that.

    Counts of a process that still works would be older than its records.

    Args:
        folder: where the answers are kept, by the writers' names.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="scrape")
        self._asked: dict[str, Future[None]] = {}
        self.failures: list[str] = []

    def heard(self, role: str, said: Mapping[str, Any]) -> None:
        """Something that a process said, with all that it said before."""
        if said.get("event") != "stopped" or "metrics_url" not in said:
            return
        writer = f"{role}.{said['writer']:05d}"
        if writer not in self._asked:
            self._asked[writer] = self._threads.submit(self._keep, writer, said["metrics_url"])

    def _keep(self, writer: str, url: str) -> None:
        try:
            (self._folder / f"{writer}{SCRAPE_SUFFIX}").write_text(scrape(url))
        except ScrapeError as error:
            self.failures.append(f"{writer}: {error}")

    def close(self) -> None:
        """Wait for the answers."""
        self._threads.shutdown()
