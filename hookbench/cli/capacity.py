"""``hookbench capacity``: the highest rate that meets an objective."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hookbench.cli.model import (
    Answers,
    Cores,
    Hours,
    MaxMemory,
    ModelFolders,
    Outages,
    RoundTrip,
    SiteFlag,
    StreamMaxAge,
    Validate,
    WaitingBytes,
)
from hookbench.cli.options import JsonOutput

if TYPE_CHECKING:
    from hookbench.load.search import Trial
    from hookbench.rehearsal.capacity import CapacityAnswer, CapacitySearch

__all__ = ["capacity"]

NO_ANSWER = 3


def capacity(
    queue: Annotated[
        str,
        typer.Option(
            help="redis_list, redis_stream, jetstream, or null for the harness; of --model a phase"
            " too."
        ),
    ] = "",
    slo: Annotated[
        str, typer.Option(help="p99<50ms,backlog=flat,lost=0: any percentile; us, ms or s.")
    ] = "p99<50ms,backlog=flat",
    durability: Annotated[str, typer.Option(help="memory, lazy or fsync.")] = "lazy",
    design: Annotated[str, typer.Option(help="guide or hardened.")] = "guide",
    rate: Annotated[float, typer.Option(help="Where the search begins, tasks per second.")] = 500.0,
    width: Annotated[float, typer.Option(help="Of the interval; a wider one is no answer.")] = 0.1,
    seconds: Annotated[float, typer.Option(min=1.0, max=600.0, help="Length of a trial.")] = 8.0,
    warm_up: Annotated[float, typer.Option(min=0.0, help="Of it, what does not count.")] = 2.0,
    arrivals: Annotated[str, typer.Option(help="As of produce.")] = "poisson",
    payload: Annotated[str, typer.Option(help="As of produce.")] = "256",
    producers: Annotated[int, typer.Option(help="Producer processes.")] = 1,
    workers: Annotated[int, typer.Option(help="Worker processes.")] = 1,
    concurrency: Annotated[int, typer.Option(help="Tasks at once in a worker.")] = 32,
    service_ms: Annotated[float, typer.Option(help="Time a task takes.")] = 0.0,
    least_speed: Annotated[
        float,
        typer.Option(
            min=0.0,
            help="Share of its memory's speed, below which a second does not count; 0: all do.",
        ),
    ] = 0.8,
    seed: Annotated[int, typer.Option(help="Of the first trial.")] = 7,
    out: Annotated[Path, typer.Option(help="Folder of the answer and of kept runs.")] = Path(
        "results/capacity"
    ),
    keep: Annotated[bool, typer.Option("--keep", help="Keep the run of every trial.")] = False,
    model: ModelFolders = None,
    answers: Answers = None,
    rtt_ms: RoundTrip = None,
    cores: Cores = None,
    outage: Outages = None,
    hours: Hours = None,
    max_age: StreamMaxAge = None,
    maxmemory_mib: MaxMemory = None,
    waiting_bytes: WaitingBytes = None,
    validate: Validate = False,
    site: SiteFlag = False,
    json: JsonOutput = False,
) -> None:
    """Search the highest rate that a queue sustains under an objective, on this machine.

    Each trial is a short rehearsal of one phase, on brokers of its own. A percentile has to be met
    in at least half of its seconds. A rate is judged by repeats: of at most five trials one answer
    has to lead by two, and by three for both ends of the interval. Seconds count in which the
    memory of the machine was at its speed.

    With --model nothing is measured: what a matrix came to is fitted, and says what other
    conditions, a day with outages or a site of many brokers would come to, see docs/model.md.

    Exit codes: 0 an interval, or what a model says, 3 unknown: it is too wide, or trials say
    nothing.

    Example: hookbench capacity --queue jetstream --slo 'p99<50ms,backlog=flat'
    """
    from hookbench.cli.model import ModelQuestion, answer_by_model, refuse_without_model

    if model:
        question = ModelQuestion(
            folders=model,
            answers=answers,
            queue=queue,
            durability=durability,
            design=design,
            rate_per_s=rate,
            producers=producers,
            workers=workers,
            concurrency=concurrency,
            service_ms=service_ms,
            payload=payload,
            arrivals=arrivals,
            seed=seed,
            rtt_ms=rtt_ms or 0.0,
            cores=cores,
            outages=outage or [],
            hours=hours,
            max_age_s=max_age,
            maxmemory_mib=maxmemory_mib,
            waiting_bytes=waiting_bytes,
            validate=validate,
            site=site,
        )
        answer_by_model(question, json=json)
        return
    refuse_without_model(
        answers=answers,
        rtt_ms=rtt_ms,
        cores=cores,
        outage=outage,
        hours=hours,
        max_age=max_age,
        maxmemory_mib=maxmemory_mib,
        waiting_bytes=waiting_bytes,
        validate=validate,
        site=site,
    )
    from hookbench.brokers.durability import Durability
    from hookbench.cli.worker import choice
    from hookbench.clock import SystemClock
    from hookbench.load.objectives import parse_objective
    from hookbench.migration.phases import Design
    from hookbench.rehearsal.capacity import NULL, CapacitySearch, route_of
    from hookbench.rehearsal.settings import RehearsalSettings
    from hookbench.scenarios.resolved import scenario_toml

    phase, redis_kind = route_of(queue)
    settings = RehearsalSettings(
        scenario="capacity",
        design=choice(Design, design, "--design"),
        phases=(phase,),
        redis_kind=redis_kind,
        phase_seconds=seconds,
        rate_per_s=rate,
        producers=producers,
        workers=workers,
        concurrency=concurrency,
        arrivals=arrivals,
        payload=payload,
        service_ms=service_ms,
        mix="plain=1",
        repositories=1,
        push_interval_s=3600.0,
        durability=choice(Durability, durability, "--durability"),
        seed=seed,
        out=out,
    )
    search = CapacitySearch(
        settings,
        parse_objective(slo),
        null=queue == NULL,
        warm_up_s=warm_up,
        least_speed=least_speed,
        clock=SystemClock(),
        as_scenario=scenario_toml if keep else None,
        tell=_tell,
        say=_say,
    )
    label = queue if queue == NULL else f"{queue}-{settings.durability}-{settings.design}"
    _conclude(search, label, width, json=json)


def _conclude(search: "CapacitySearch", label: str, width: float, *, json: bool) -> None:
    import asyncio
    import sys

    import msgspec

    from hookbench.cli.rehearse import run_or_cancel

    try:
        answer = run_or_cancel(search.run(label, width))
    except asyncio.CancelledError:
        print("hookbench: interrupted; there is no answer", file=sys.stderr)
        raise typer.Exit(130) from None
    if json:
        sys.stdout.write(msgspec.json.encode(answer).decode() + "\n")
    else:
        print(_line(answer))
        print(f"trials in {search.path_of(label)}")
    raise typer.Exit(NO_ANSWER if answer.unknown_because else 0)


def _tell(trial: "Trial") -> None:
    import sys

    word = {True: "sustained", False: "not sustained", None: "says nothing"}[trial.sustained]
    figures = "  ".join(f"{name} {value:,.1f}" for name, value in trial.figures.items())
    why = f" ({trial.why})" if trial.why else ""
    print(f"{trial.rate_per_s:>10,.0f}/s  {word}{why}  {figures}", file=sys.stderr, flush=True)


def _say(text: str) -> None:
    import sys

    print(text, file=sys.stderr, flush=True)


def _line(answer: "CapacityAnswer") -> str:
    found = answer.capacity
    if answer.unknown_because:
        low, high = found.low_per_s, found.high_per_s
        known = f"{low:,.0f} to " + (f"{high:,.0f}" if high is not None else "?")
        return f"{answer.label}: UNKNOWN, {known} tasks/s: {answer.unknown_because}"
    return (
        f"{answer.label}: {found.low_per_s:,.0f} to {found.high_per_s:,.0f} tasks/s"
        f" ({found.width:.1%} wide) under {answer.slo}; beyond it {answer.limit}"
    )
