"""Whether the ledger holds the tasks that were offered: no fewer of them, and no more."""

from typing import NamedTuple

__all__ = ["Load", "load_differences"]


class Load(NamedTuple):
    """Synthetic tasks of a run, as three of those who should know count them.

    Attributes:
        held: in the ledger, by distinct ids.
        offered: what the producers say that they offered.
        planned: what the scenario asks for; ``None`` where the length of the timeline says it.
        unfinished: producers that did not get to the end of their load.
        replaced: producers that took another's place; what those before them said last is older
            than what they did last.
    """

    held: int
    offered: int
    planned: int | None
    unfinished: list[str]
    replaced: int


def load_differences(load: Load, *, not_offered: int = 0) -> list[str]:
    """Why the load is not what it was to be, one text each; empty where all counts agree.

    Args:
        load: the counts.
        not_offered: tasks of the plan that a fault kept a producer from offering.
    """
    found = []
    short = load.held < load.offered
    if short or (load.held > load.offered and not load.replaced):
        found.append(
            f"the ledger holds {load.held:,} synthetic tasks, the producers offered"
            f" {load.offered:,}"
        )
    if load.planned is None:
        if load.unfinished:
            found.append(f"{', '.join(load.unfinished)} did not get to the end of the load")
        return found
    if load.held + not_offered < load.planned:
        who = f" ({', '.join(load.unfinished)} did not get to the end)" if load.unfinished else ""
        found.append(
            f"the load was not as planned: {load.held:,} of {load.planned:,} synthetic tasks were"
            f" offered{who}"
        )
    if load.held > load.planned:
        found.append(
            f"the load was not as planned: {load.held:,} synthetic tasks in place of"
            f" {load.planned:,}: some were put under two ids"
        )
    return found
