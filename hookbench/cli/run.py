"""``hookbench run`` and ``hookbench list``: scenarios."""

from pathlib import Path
from typing import Annotated

import typer

from hookbench.cli.options import (
    JsonOutput,
    NatsMonitorUrl,
    NatsUrl,
    RedisUrl,
    ResultsFolder,
    announce_json,
)

__all__ = ["list_known", "run"]


def run(
    scenario: Annotated[str, typer.Argument(help="A shipped scenario, or a TOML file.")],
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Change a value: producers.rate_per_s=500.")
    ] = None,
    out: ResultsFolder = Path("results"),
    redis_url: RedisUrl = None,
    nats_url: NatsUrl = None,
    nats_monitor_url: NatsMonitorUrl = None,
    real_names: Annotated[
        bool, typer.Option("--real-names", help="On your brokers, use the real names.")
    ] = False,
    allow_existing: Annotated[
        bool, typer.Option("--allow-existing", help="Accept a broker that holds a hook queue.")
    ] = False,
    json: JsonOutput = False,
) -> None:
    """Rehearse a scenario, as often as it says.

    Exit codes: 0 valid, 1 invalid, 3 unknown; of several repeats the worst.

    Example: hookbench run migration --set timeline.phase_seconds=5 --set design=hardened
    """
    from hookbench.cli.rehearse import carry_out, exit_code
    from hookbench.scenarios.schema import find_scenario, load_scenario, to_settings

    loaded = load_scenario(find_scenario(scenario), changes)
    settings = [
        to_settings(
            loaded,
            out=out,
            repeat=repeat,
            redis_url=redis_url,
            nats_url=nats_url,
            nats_monitor_url=nats_monitor_url,
            own_names=not real_names,
            allow_existing=allow_existing,
        )
        for repeat in range(loaded.repeats)
    ]
    settings[0].check()
    codes = [exit_code([carry_out(item, json=json)], None) for item in settings]
    raise typer.Exit(max(codes))


def list_known(
    what: Annotated[str, typer.Argument(help="scenarios, queues or phases.")],
    json: JsonOutput = False,
) -> None:
    """List what there is.

    Example: hookbench list scenarios --json
    """
    from hookbench.errors import SettingError

    listers = {"scenarios": _scenarios, "queues": _queues, "phases": _phases}
    if what not in listers:
        raise SettingError(f"list {what!r}: use one of {', '.join(listers)}")
    rows = listers[what]()
    if json:
        announce_json({what: [{"name": name, "description": text} for name, text in rows]})
        return
    width = max(len(name) for name, _text in rows)
    for name, text in rows:
        print(f"{name:<{width}}  {text}")


def _scenarios() -> list[tuple[str, str]]:
    from hookbench.scenarios.schema import load_scenario, shipped_scenarios

    loaded = [load_scenario(path) for path in shipped_scenarios()]
    return [(item.name, item.description) for item in loaded]


def _queues() -> list[tuple[str, str]]:
    from hookbench.queues.jetstream import JetStreamQueue
    from hookbench.queues.memory import MemoryQueue
    from hookbench.queues.redis_list import RedisListQueue
    from hookbench.queues.redis_stream import RedisStreamQueue

    rows = []
    for queue in (RedisListQueue, RedisStreamQueue, JetStreamQueue, MemoryQueue):
        able = queue.capabilities
        can = [name for name in able.__struct_fields__ if getattr(able, name)]
        rows.append((queue.name, ", ".join(can)))
    return rows


def _phases() -> list[tuple[str, str]]:
    from hookbench.migration.phases import Phase, read_route, write_route

    return [
        (phase.label, f"{int(phase)}: writes {write_route(phase)}, reads {read_route(phase)}")
        for phase in Phase
    ]
