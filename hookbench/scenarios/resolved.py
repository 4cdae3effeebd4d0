"""The scenario behind a run's settings, as a TOML file that carries the run out again."""

from typing import Any

import msgspec
import tomli_w

from hookbench.faults.registry import AnyFault
from hookbench.load.mix import parse_mix
from hookbench.rehearsal.settings import RehearsalSettings
from hookbench.scenarios.schema import (
    Brokers,
    Drain,
    Limits,
    Producers,
    Pushes,
    Scenario,
    Tasks,
    Timeline,
    Workers,
)

__all__ = ["resolve_scenario", "scenario_toml"]


def resolve_scenario(settings: RehearsalSettings) -> Scenario:
    """Every value of the scenario, defaults and changes included; one repeat, its own seed."""
    return Scenario(
        name=settings.scenario,
        description="As it was carried out, every value written down.",
        design=settings.design,
        measures=tuple(name for name in settings.measures.split(",") if name),
        seed=settings.seed,
        metrics=settings.metrics,
        timeline=Timeline(
            phases=tuple(phase.label for phase in settings.phases),
            phase_seconds=settings.phase_seconds,
        ),
        brokers=Brokers(
            topology=settings.topology,
            durability=settings.durability,
            redis_queue=settings.redis_kind,
        ),
        producers=Producers(
            processes=settings.producers,
            rate_per_s=settings.rate_per_s,
            loop=settings.loop,
            callers=settings.callers,
            arrivals=settings.arrivals,
            payload=int(settings.payload) if settings.payload.isdigit() else settings.payload,
            repositories=settings.synthetic_repositories,
            skew=settings.skew,
        ),
        workers=Workers(
            processes=settings.workers,
            concurrency=settings.concurrency,
            service_ms=settings.service_ms,
            block_timeout_s=settings.block_timeout_secs,
        ),
        tasks=Tasks(**parse_mix(settings.mix).weights),
        pushes=Pushes(repositories=settings.repositories, interval_s=settings.push_interval_s),
        faults=tuple(_as_written(fault) for fault in settings.faults),
        drain=Drain(timeout_s=settings.drain_timeout_s),
        bounds=Limits(
            max_attempts=settings.max_attempts,
            max_inversions=settings.max_inversions,
            max_lag_ms=settings.max_lag_ms,
        ),
    )


def scenario_toml(settings: RehearsalSettings) -> str:
    """The resolved scenario as ``load_scenario`` reads it."""
    return tomli_w.dumps(_without_none(msgspec.to_builtins(resolve_scenario(settings))))


def _as_written(fault: AnyFault) -> dict[str, Any]:
    """The table of a fault as a scenario has it."""
    values: dict[str, Any] = msgspec.to_builtins(fault)
    return _without_none({"kind": values.pop("type"), **values})


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    """TOML has no null: a key that is left out means the same."""
    return {
        name: _without_none(value) if isinstance(value, dict) else value
        for name, value in values.items()
        if value is not None
    }
