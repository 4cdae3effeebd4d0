"""``hookbench config``: which settings are in force, and where each comes from."""

from pathlib import Path
from typing import Annotated, Any

import typer

from hookbench.cli.options import JsonOutput

__all__ = ["app"]

app = typer.Typer(help="Settings of the verbs that run on your brokers.", no_args_is_help=True)


@app.callback()
def _config() -> None:
    """Settings of the verbs that run on your brokers."""


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def show(
    ctx: typer.Context,
    verb: Annotated[
        str | None, typer.Argument(help="A verb, and after it options as it would be given them.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="A TOML file [HOOKBENCH_CONFIG, or hookbench.toml in this folder]."),
    ] = None,
    changed: Annotated[bool, typer.Option("--changed", help="Only what is no default.")] = False,
    json: JsonOutput = False,
) -> None:
    """Show each setting with its value and its origin; users and passwords in URLs are hidden.

    Options come before variables, variables before the file. Without a verb the shared settings and
    those of every verb are shown.

    Examples: hookbench config show

    hookbench config show worker --concurrency 32 --json

    hookbench config show gate --config site.toml
    """
    import sys

    import msgspec

    from hookbench.settings import DEFAULT_ORIGIN, TABLES, find_settings

    if verb is None:
        if ctx.args:
            raise _no_such(ctx.args[0])
        tables = find_settings(config)
        found = {name or "shared": table for name, table in tables.items()}
    elif verb in TABLES:
        more = [] if config is None else [f"--config={config}"]
        found = {verb: _of_verb(ctx, verb, [*more, *ctx.args])}
    else:
        raise _no_such(verb)
    rows = [
        {"table": name, **row}
        for name, table in found.items()
        for row in _rows(table)
        if not changed or row["origin"] != DEFAULT_ORIGIN
    ]
    if json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(rows), indent=2).decode() + "\n")
        return
    _print(rows)


def _no_such(word: str) -> Exception:
    from hookbench.errors import SettingError
    from hookbench.settings import TABLES

    return SettingError(f"{word!r} has no settings: use one of {', '.join(TABLES)}")


def _of_verb(ctx: typer.Context, verb: str, arguments: list[str]) -> dict[str, Any]:
    """What a verb would be called with, by its own reading of the options."""
    from hookbench.settings import DEFAULT_ORIGIN, Found

    root = ctx.find_root()
    command = root.command.get_command(root, verb)  # type: ignore[attr-defined]  # a group
    # Positional arguments are no settings, and need not be given here.
    command.params = [item for item in command.params if item.param_type_name == "option"]
    with command.make_context(verb, arguments, parent=root) as inner:
        settings: dict[str, Found] = dict(inner.obj)
        for key, found in settings.items():
            source = inner.get_parameter_source(key)
            if source is not None and source.name == "COMMANDLINE":
                settings[key] = Found(value=inner.params[key], origin="option")
            elif source is not None and source.name == "DEFAULT":
                settings[key] = Found(value=found.value, origin=DEFAULT_ORIGIN)
        return settings


def _rows(table: dict[str, Any]) -> list[dict[str, Any]]:
    from hookbench.settings import shown

    return [
        {"key": key, "value": shown(key, found.value), "origin": found.origin}
        for key, found in table.items()
    ]


def _print(rows: list[dict[str, Any]]) -> None:
    table = ""
    width = max((len(row["key"]) for row in rows), default=0)
    for row in rows:
        if row["table"] != table:
            table = row["table"]
            print(f"[{table}]")
        value = "-" if row["value"] is None else row["value"]
        print(f"  {row['key']:<{width}}  {value!s:<28} {row['origin']}")
