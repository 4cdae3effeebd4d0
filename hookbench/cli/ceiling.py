"""``hookbench ceiling``: what the harness itself can do."""

from typing import TYPE_CHECKING, Annotated

import typer

from hookbench.cli.options import JsonOutput

if TYPE_CHECKING:
    from hookbench.load.ceiling import Ceiling

__all__ = ["ceiling"]


def ceiling(
    rate: Annotated[float, typer.Option(help="Of the open loop, tasks per second.")] = 5000.0,
    seconds: Annotated[
        float, typer.Option(min=0.1, max=600.0, help="Length of each repeat at that rate.")
    ] = 3.0,
    count: Annotated[
        int, typer.Option(min=1, help="Tasks of each repeat as fast as it goes.")
    ] = 100_000,
    repeats: Annotated[int, typer.Option(min=1, max=100, help="Medians are shown.")] = 3,
    json: JsonOutput = False,
) -> None:
    """Measure the harness against no queue at all: its highest rate, and how late it is.

    One producer process, with a ledger. What it reaches here bounds what it can show of a queue.

    Example: hookbench ceiling --rate 5000
    """
    import logging

    import msgspec
    import uvloop

    from hookbench.load.arrivals import check_rate
    from hookbench.load.ceiling import measure_ceiling

    check_rate(rate)
    logging.basicConfig(level=logging.WARNING)

    async def measure() -> "list[Ceiling]":
        return [
            await measure_ceiling(loop="windowed", count=count, repeats=repeats),
            await measure_ceiling(
                loop="open",
                rate_per_s=rate,
                count=max(1, round(rate * seconds)),
                repeats=repeats,
            ),
        ]

    found = uvloop.run(measure())
    if json:
        print(msgspec.json.encode(found).decode())
        return
    print(f"one producer process, no queue behind it; medians of {repeats}")
    for item in found:
        asked = f"open loop at {item.rate_per_s:,.0f}/s" if item.rate_per_s else "windowed"
        line = f"{asked:<24}{item.tasks_per_s:>10,.0f} tasks/s  {item.cores:4.2f} cores"
        if item.rate_per_s:
            line += f"  schedule lag p50 {item.lag_p50_us:,.0f} us  p99 {item.lag_p99_us:,.0f} us"
        print(line)
