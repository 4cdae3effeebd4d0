"""Depths that an observer saw from outside, as a frame."""

from pathlib import Path

import msgspec
import pandas as pd

from hookbench.clock import NS_PER_S
from hookbench.errors import ResultsError
from hookbench.rehearsal.equipment import SAMPLES_NAME
from hookbench.rehearsal.observer import Sample

__all__ = ["read_samples"]


def read_samples(folder: Path, origin_ns: int) -> pd.DataFrame:
    """The samples of the run in ``folder``; no rows where it was cut off before the first.

    Columns: the fields of ``Sample`` as ``Int64``, ``time_s`` since ``origin_ns``, and
    ``stream_unread``: what lies in the stream and was not delivered to the consumer yet, all of
    it while there is no consumer. A last line that was cut off in its write is left out.

    Raises:
        ResultsError: another line is no sample.
    """
    path = folder / SAMPLES_NAME
    try:
        lines = path.read_bytes().split(b"\n") if path.exists() else [b""]
    except OSError as error:
        raise ResultsError(f"samples {path}: {error.strerror}") from error
    decoder = msgspec.json.Decoder(Sample)
    whole = lines[:-1]  # a line that was written in full ends in a newline
    samples = []
    for number, line in enumerate(whole, start=1):
        try:
            samples.append(decoder.decode(line))
        except msgspec.MsgspecError as error:
            raise ResultsError(f"samples {path}, line {number}: {error}") from error
    columns = {
        name: pd.array([getattr(sample, name) for sample in samples], dtype="Int64")
        for name in Sample.__struct_fields__
    }
    frame = pd.DataFrame(columns)
    frame["time_ns"] = frame["time_ns"].astype("int64")
    frame["time_s"] = (frame["time_ns"] - origin_ns) / NS_PER_S
    frame["stream_unread"] = frame["consumer_pending"].fillna(frame["stream"])
    return frame
