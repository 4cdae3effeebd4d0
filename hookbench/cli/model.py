"""``hookbench capacity --model``: what a fitted model says, in place of a search."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from hookbench.model.fitted import Model
    from hookbench.model.observations import Knee, Observation
    from hookbench.model.predict import Prediction
    from hookbench.model.scale import SitePlan
    from hookbench.model.stored import Storage
    from hookbench.model.timeline import Timeline
    from hookbench.model.validate import Validation

__all__ = [
    "Answers",
    "Cores",
    "Hours",
    "MaxMemory",
    "ModelFolders",
    "ModelQuestion",
    "Outages",
    "RoundTrip",
    "SiteFlag",
    "StreamMaxAge",
    "Validate",
    "WaitingBytes",
    "answer_by_model",
    "refuse_without_model",
]

ModelFolders = Annotated[
    list[Path] | None,
    typer.Option("--model", help="Folder of a matrix: predict from it, measure nothing."),
]
Answers = Annotated[
    Path | None,
    typer.Option("--answers", help="Of --model: folder of answers, for sustained rates and waits."),
]
RoundTrip = Annotated[
    float | None, typer.Option("--rtt-ms", help="Of --model: round trip beyond what was measured.")
]
Cores = Annotated[
    int | None, typer.Option("--cores", help="Of --model: of the machine; else as measured.")
]
Outages = Annotated[
    list[str] | None,
    typer.Option("--outage", help="Of --model: nats:60@3600, also redis and workers; a day of it."),
]
Hours = Annotated[
    float | None, typer.Option("--hours", help="Of --model: length of the day, 24 by default.")
]
StreamMaxAge = Annotated[
    float | None, typer.Option("--max-age", help="Of --model: max-age of the stream, seconds.")
]
MaxMemory = Annotated[
    float | None, typer.Option("--maxmemory-mib", help="Of --model: maxmemory of Redis.")
]
WaitingBytes = Annotated[
    str | None,
    typer.Option("--waiting-bytes", help="Of --model: memory per waiting task, redis=300,nats=0."),
]
Validate = Annotated[
    bool, typer.Option("--validate", help="Of --model: fit one half of the cells, tell the other.")
]
SiteFlag = Annotated[
    bool, typer.Option("--site", help="Of --model: --rate and --workers over shards, as a plan.")
]
_MIB = 2**20
_S_PER_HOUR = 3600


@dataclass(frozen=True, slots=True)
class ModelQuestion:
    """The options, as they were given."""

    folders: list[Path]
    answers: Path | None
    queue: str
    durability: str
    design: str
    rate_per_s: float
    producers: int
    workers: int
    concurrency: int
    service_ms: float
    payload: str
    arrivals: str
    seed: int
    rtt_ms: float
    cores: int | None
    outages: list[str]
    hours: float | None
    max_age_s: float | None
    maxmemory_mib: float | None
    waiting_bytes: str | None
    validate: bool
    site: bool


def refuse_without_model(**given: object) -> None:
    """Refuse options that only a model takes.

    Raises:
        SettingError: one was given; the text names it.
    """
    from hookbench.errors import SettingError

    for name, value in given.items():
        if value:
            option = "--" + name.replace("_", "-")
            raise SettingError(f"{option}: it goes with --model, the folder of a matrix")


def answer_by_model(question: ModelQuestion, *, json: bool) -> None:
    """Fit, predict what is asked for, and print it.

    Raises:
        HookbenchError: what cannot be read, fitted or predicted; the text names it.
    """
    import sys

    import msgspec

    from hookbench.model.fit import fit_model
    from hookbench.model.observations import knees_of, read_observations
    from hookbench.model.validate import validate
    from hookbench.rehearsal.answers import load_answers

    observations = read_observations(question.folders)
    _check_design(question, observations)
    knees = knees_of(load_answers(question.answers)) if question.answers else []
    checked = validate(observations, knees) if question.validate else None
    plan = day = found = None
    if question.queue or question.site:
        model = fit_model(observations, knees)
        if question.site:
            plan = _site(model, question)
        if question.queue:
            found = _prediction(model, question)
            if question.outages or question.hours is not None:
                day = _day(question, found)
    elif checked is None:
        _refuse_nothing(observations)
    if json:
        out = _as_data(observations, knees, checked, found, day, plan)
        sys.stdout.write(msgspec.json.encode(out).decode() + "\n")
    else:
        _print(checked, found, day, plan)


def _refuse_nothing(observations: "list[Observation]") -> None:
    from hookbench.errors import SettingError

    routes = ", ".join(sorted({item.route for item in observations}))
    raise SettingError(f"--model: nothing is asked for: use --queue ({routes}), --site, --validate")


def _check_design(question: ModelQuestion, observations: "list[Observation]") -> None:
    """Tasks cost what they do in the design that was measured.

    Raises:
        SettingError: another one is asked for.
    """
    from hookbench.errors import SettingError

    measured = observations[0].design
    if question.design != measured:
        raise SettingError(
            f"--design {question.design}: the matrix is of {measured}; measure one of the other:"
            f" hookbench matrix --design {question.design}"
        )


def _prediction(model: "Model", question: ModelQuestion) -> "Prediction":
    import msgspec

    from hookbench.model.observations import mean_payload_bytes
    from hookbench.model.predict import Conditions, predict

    setup = msgspec.structs.replace(
        model.setup,
        producers=question.producers,
        workers=question.workers,
        concurrency=question.concurrency,
        service_ms=question.service_ms,
        cores=model.setup.cores if question.cores is None else question.cores,
    )
    return predict(
        model,
        Conditions(
            route=_route(question.queue),
            durability=question.durability,
            payload_bytes=mean_payload_bytes(question.payload),
            rate_per_s=question.rate_per_s,
            setup=setup,
            rtt_ms=question.rtt_ms,
        ),
    )


def _route(queue: str) -> str:
    """The route that a queue or a phase is measured as: ``nats_only`` is ``jetstream`` alone."""
    from hookbench.rehearsal.capacity import QUEUES

    alone = {phase.label: name for name, (phase, _kind) in reversed(QUEUES.items())}
    return alone.get(queue, queue)


def _day(question: ModelQuestion, found: "Prediction") -> "Timeline":
    from hookbench.brokers.durability import Durability
    from hookbench.cli.worker import choice
    from hookbench.migration.phases import Design, parse_phase
    from hookbench.model.timeline import DAY_S, Day, parse_outage, simulate_day
    from hookbench.queues.jetstream import SEVEN_DAYS_S
    from hookbench.rehearsal.capacity import QUEUES

    alone = question.queue in QUEUES
    phase = QUEUES[question.queue][0] if alone else parse_phase(question.queue)
    limits = found.limits_per_s
    return simulate_day(
        Day(
            phase=phase,
            design=choice(Design, question.design, "--design"),
            rate_per_s=question.rate_per_s,
            arrivals=question.arrivals,
            seconds=DAY_S if question.hours is None else question.hours * _S_PER_HOUR,
            capacity_per_s=found.capacity_per_s,
            put_per_s=min(limits["producer"], limits["broker"]),
            outages=tuple(parse_outage(text) for text in question.outages),
            payload_bytes=found.conditions.payload_bytes,
            durability=choice(Durability, question.durability, "--durability"),
            max_age_s=SEVEN_DAYS_S if question.max_age_s is None else question.max_age_s,
            maxmemory_bytes=(question.maxmemory_mib or 0.0) * _MIB,
            storage=_storage(question.waiting_bytes),
            seed=question.seed,
        )
    )


def _storage(text: str | None) -> "Storage":
    """The bytes per waiting task that are given, in place of the defaults.

    Raises:
        SettingError: another form, or no number.
    """
    from hookbench.errors import SettingError
    from hookbench.load.parameters import number_of
    from hookbench.model.stored import Storage

    given: dict[str, float] = {}
    for part in (text or "").split(",") if text else ():
        broker, equals, value = part.partition("=")
        if not equals or broker not in ("redis", "nats"):
            raise SettingError(f"--waiting-bytes {text!r}: use redis=300,nats=0")
        given[f"{broker}_waiting_bytes"] = number_of(f"--waiting-bytes of {broker}", value)
    return Storage(**given)


def _site(model: "Model", question: ModelQuestion) -> "SitePlan":
    from hookbench.brokers.durability import Durability
    from hookbench.cli.worker import choice
    from hookbench.migration.phases import Design
    from hookbench.model.observations import mean_payload_bytes
    from hookbench.model.scale import Site, plan_site
    from hookbench.model.timeline import parse_outage
    from hookbench.queues.jetstream import SEVEN_DAYS_S

    defaults = Site()
    lengths = [parse_outage(text).length_s for text in question.outages]
    hours = question.hours
    site = Site(
        rate_per_s=question.rate_per_s,
        workers=question.workers,
        concurrency=question.concurrency,
        service_ms=question.service_ms,
        rtt_ms=question.rtt_ms,
        payload_bytes=mean_payload_bytes(question.payload),
        durability=choice(Durability, question.durability, "--durability"),
        design=choice(Design, question.design, "--design"),
        node_cores=defaults.node_cores if question.cores is None else question.cores,
        outage_s=max(lengths, default=defaults.outage_s),
        phase_s=defaults.phase_s if hours is None else hours * _S_PER_HOUR,
        max_age_s=SEVEN_DAYS_S if question.max_age_s is None else question.max_age_s,
        storage=_storage(question.waiting_bytes),
    )
    return plan_site(model, site)


def _as_data(
    observations: "list[Observation]",
    knees: "list[Knee]",
    checked: "Validation | None",
    found: "Prediction | None",
    day: "Timeline | None",
    plan: "SitePlan | None",
) -> dict[str, Any]:
    """Everything that was asked for, with units in the names."""
    import math

    import msgspec

    out: dict[str, Any] = {
        "fitted_on": [item.label for item in observations],
        "answers": [" ".join(item.pair) for item in knees],
    }
    if checked is not None:
        out["validation"] = msgspec.to_builtins(checked)
    if found is not None:
        out["prediction"] = msgspec.to_builtins(found)
    if day is not None:
        out["day"] = {
            "steps": day.day.steps,
            "offered": float(day.offered.sum()),
            "done": float(day.done.sum()),
            "peak_waiting": float(day.waiting.max()),
            "oldest_s": float(day.oldest_s.max()),
            "peak_memory_bytes": {k: float(v.max()) for k, v in day.memory_bytes.items()},
            "peak_disk_bytes": {k: float(v.max()) for k, v in day.disk_bytes.items()},
            "max_age_at_s": day.max_age_at_s,
            "aged_out": day.aged_out,
            "maxmemory_at_s": day.maxmemory_at_s,
            "outages": msgspec.to_builtins(day.effects),
        }
    if plan is not None:
        rows = msgspec.to_builtins(plan)
        for row in rows["phases"]:  # JSON has no infinity
            row["catch_up_s"] = None if math.isinf(row["catch_up_s"]) else row["catch_up_s"]
        out["site"] = rows
    return out


def _print(
    checked: "Validation | None",
    found: "Prediction | None",
    day: "Timeline | None",
    plan: "SitePlan | None",
) -> None:
    from rich.console import Console

    from hookbench.model import texts

    console = Console()

    def say(lines: list[str]) -> None:
        for line in lines:
            console.print(line, highlight=False, markup=False, soft_wrap=True)

    if checked is not None:
        first, second = checked.halves
        say([f"fitted on {first} cells and held against {second} others, and the other way round"])
        _print_rows(console, texts.error_rows(checked))
    if found is not None:
        say(texts.prediction_lines(found))
    if day is not None:
        say(texts.day_lines(day))
        _print_across(console, texts.effect_rows(day), "away")
    if plan is not None:
        say(texts.site_lines(plan))
        _print_across(console, texts.site_rows(plan), "phase")


def _print_rows(console: Any, rows: list[dict[str, str]]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for index, name in enumerate(rows[0]):
        last = index == len(rows[0]) - 1
        table.add_column(name, justify="right" if index and not last else "left", no_wrap=not last)
    for row in rows:
        table.add_row(*row.values())
    console.print(table, highlight=False)


def _print_across(console: Any, rows: list[dict[str, str]], first: str) -> None:
    """A column for each row, so that many figures fit 80 columns."""
    from rich.table import Table

    if not rows:
        return
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column(first)
    for row in rows:
        table.add_column(row[first], justify="right")
    for name in rows[0]:
        if name != first:
            table.add_row(name, *(row[name] for row in rows))
    console.print(table, highlight=False)
