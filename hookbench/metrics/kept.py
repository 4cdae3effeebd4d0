"""What the processes of a run served at their end, as it is kept with the run."""

from pathlib import Path

__all__ = ["METRICS_FOLDER", "SCRAPE_SUFFIX", "read_scrapes"]

METRICS_FOLDER = "metrics"
SCRAPE_SUFFIX = ".prom"


def read_scrapes(folder: Path) -> dict[str, str]:
    """What is kept there, by the writers' names."""
    return {path.stem: path.read_text() for path in sorted(folder.glob(f"*{SCRAPE_SUFFIX}"))}
