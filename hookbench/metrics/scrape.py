"""Asks a process of this machine for its metrics, as Prometheus does."""

import http.client
import urllib.parse
from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

from hookbench.errors import ScrapeError

__all__ = ["SCRAPE_TIMEOUT_S", "Samples", "parse_samples", "scrape"]

SCRAPE_TIMEOUT_S = 5.0
"""Longer than a look at brokers that do not answer."""
_OK = 200

Samples = Mapping[tuple[str, tuple[tuple[str, str], ...]], float]
"""By name and sorted labels."""


def scrape(url: str, timeout_s: float = SCRAPE_TIMEOUT_S) -> str:
    """What is served at an ``http://host:port/path``.

    Raises:
        ScrapeError: no answer, or one that is none.
    """
    place = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(place.netloc, timeout=timeout_s)
    try:
        connection.request("GET", place.path)
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise ScrapeError(f"metrics at {url}: no answer ({error!r})") from error
    finally:
        connection.close()
    if answer.status != _OK:
        raise ScrapeError(f"metrics at {url}: status {answer.status} {answer.reason}")
    return body.decode()


def parse_samples(text: str) -> Samples:
    """The samples of a scrape.

    Raises:
        ScrapeError: the text is none.
    """
    try:
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
    except ValueError as error:
        raise ScrapeError(f"metrics of {len(text)} characters cannot be read: {error}") from error
