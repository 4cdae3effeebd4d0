"""The latency histograms of a run, beside its manifest."""

from pathlib import Path

import msgspec

from hookbench.decoding import decode_json, read_document
from hookbench.errors import ResultsError
from hookbench.ledger.latency import LatencyHistogram
from hookbench.results.store import write_aside

__all__ = ["HISTOGRAMS_NAME", "load_histograms", "save_histograms"]

HISTOGRAMS_NAME = "histograms.json"


def save_histograms(run: Path, histograms: list[LatencyHistogram]) -> None:
    """Write them, aside and renamed."""
    data = msgspec.json.format(msgspec.json.encode(histograms), indent=2)
    write_aside(run / HISTOGRAMS_NAME, data + b"\n")


def load_histograms(run: Path) -> list[LatencyHistogram]:
    """The histograms of a stored run.

    Raises:
        ResultsError: missing or damaged.
    """
    path = run / HISTOGRAMS_NAME
    try:
        return decode_json(read_document(path), list[LatencyHistogram])
    except OSError as error:
        raise ResultsError(f"histograms {path}: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise ResultsError(f"histograms {path}: damaged ({error})") from error
