"""Depths of the brokers that an observer saw from outside, one JSON object a line."""

from pathlib import Path

import msgspec

from hookbench.errors import ResultsError

__all__ = ["SAMPLES_NAME", "Sample", "read_samples"]

SAMPLES_NAME = "samples.jsonl"


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """Depths at one moment (monotonic ns); ``None`` where a broker did not answer or has none.

    Of Redis, lists and stream together; an entry that is pending in the stream's group is a lease.
    """

    time_ns: int
    redis_pending: int | None = None
    redis_work: int | None = None
    redis_leases: int | None = None
    stream: int | None = None
    consumer_pending: int | None = None
    ack_pending: int | None = None
    redelivered: int | None = None

    @property
    def nats_waiting(self) -> int:
        """What no consumer has got yet: all of the stream while there is none."""
        waiting = self.stream if self.consumer_pending is None else self.consumer_pending
        return waiting or 0


def read_samples(run: Path) -> list[Sample]:
    """The samples of the run in a folder; none where it was cut off before the first.

    A last line that was cut off in its write is left out.

    Raises:
        ResultsError: another line is no sample.
    """
    path = run / SAMPLES_NAME
    try:
        lines = path.read_bytes().split(b"\n") if path.exists() else [b""]
    except OSError as error:
        raise ResultsError(f"samples {path}: {error.strerror}") from error
    decoder = msgspec.json.Decoder(Sample)
    samples = []
    for number, line in enumerate(lines[:-1], start=1):  # one that is whole ends in a newline
        try:
            samples.append(decoder.decode(line))
        except msgspec.MsgspecError as error:
            raise ResultsError(
                f"samples {path}, line {number}: {error}; copy the run again, or remove the file:"
                " its depths are then unknown"
            ) from error
    return samples
