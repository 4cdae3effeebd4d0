"""What came of holding the metrics of a run against its ledger."""

import msgspec

__all__ = ["MetricsCheck"]


class MetricsCheck(msgspec.Struct, frozen=True, kw_only=True):
    """What came of the comparison.

    Attributes:
        compared: processes whose metrics were held against the ledger, by their writers' names.
        not_compared: those that had none to compare, and why.
        samples: how many figures were compared.
        totals: of each outcome and queue over all that were compared, as scraped.
        differences: one text per figure that differs; empty where all agree.
    """

    compared: list[str]
    not_compared: dict[str, str]
    samples: int
    totals: dict[str, int]
    differences: list[str]

    @property
    def line(self) -> str:
        """For a person."""
        if self.differences:
            return f"metrics differ from the ledger: {self.differences[0]}"
        left = f"; not compared: {', '.join(self.not_compared)}" if self.not_compared else ""
        return (
            f"metrics of {len(self.compared)} processes agree with the ledger in"
            f" {self.samples:,} figures{left}"
        )
