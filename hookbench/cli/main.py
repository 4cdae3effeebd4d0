"""The ``hookbench`` command: verbs, and what exit codes mean."""

import contextlib
import errno
import sys
import traceback
from collections.abc import Iterator
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from hookbench import __version__
from hookbench.cli import (
    acl,
    brokers,
    capacity,
    ceiling,
    compare,
    config,
    dead,
    doctor,
    gate,
    hazards,
    hook,
    matrix,
    migrate,
    phase,
    produce,
    proxy,
    reconcile,
    rehearse,
    report,
    run,
    scan,
    secrets,
    show,
    sim,
    soak,
    trace,
    watch,
    worker,
)
from hookbench.errors import HookbenchError, SettingError
from hookbench.secrets import redact

__all__ = [
    "EXIT_INTERNAL",
    "EXIT_INTERRUPTED",
    "EXIT_INVALID",
    "EXIT_UNKNOWN",
    "EXIT_USAGE",
    "EXIT_VALID",
    "main",
]

EXIT_VALID = 0
EXIT_INVALID = 1
EXIT_USAGE = 2
EXIT_UNKNOWN = 3
EXIT_INTERNAL = 70  # EX_SOFTWARE of sysexits.h
EXIT_INTERRUPTED = 130


@contextlib.contextmanager
def _in_one_line() -> Iterator[None]:
    """A wrong command line is an error like any other, in one line that says where to look.

    Help is no error, though typer raises it where a group is called without a verb.
    """
    try:
        yield
    except Exception as error:
        context = getattr(error, "ctx", None)
        if context is None:
            raise
        text = error.format_message()  # type: ignore[attr-defined]  # of a usage error
        if text == context.get_help():
            raise
        raise SettingError(f"{text.rstrip('.')}; see {context.command_path} --help") from error


class _Root(TyperGroup):
    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        with _in_one_line():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        with _in_one_line():
            return super().invoke(ctx)


app = typer.Typer(
    name="hookbench",
    cls=_Root,
    help="Rehearse the migration of a job queue from Redis to NATS JetStream.",
    epilog="Exit codes: 0 valid, 1 invalid, 3 unknown, 2 usage or environment, 70 internal error.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("rehearse")(rehearse.rehearse)
app.command("run")(run.run)
app.command("list")(run.list_known)
app.command("show")(show.show)
app.command("check")(show.check)
app.command("report")(report.report)
app.command("compare")(compare.compare)
app.command("soak")(soak.soak)
app.command("sim")(sim.sim)
app.command("hazards")(hazards.hazards)
app.command("gate")(gate.gate)
app.command("migrate")(migrate.migrate)
app.command("watch")(watch.watch)
app.command("worker")(worker.worker)
app.command("capacity")(capacity.capacity)
app.command("ceiling")(ceiling.ceiling)
app.command("produce")(produce.produce)
app.command("reconcile")(reconcile.reconcile)
app.command("proxy", hidden=True)(proxy.proxy)
app.command("scan")(scan.scan)
app.command("doctor")(doctor.doctor)
app.command("secrets")(secrets.secrets)
app.add_typer(acl.app, name="acl")
app.add_typer(brokers.app, name="brokers")
app.add_typer(config.app, name="config")
app.add_typer(phase.app, name="phase")
app.add_typer(hook.app, name="hook")
app.add_typer(dead.app, name="dead")
app.add_typer(matrix.app, name="matrix")
app.add_typer(trace.app, name="trace")


@app.command()
def version() -> None:
    """Print the version.

    Example: hookbench version
    """
    print(f"hookbench {__version__}")


def _print_version(value: bool) -> None:
    if value:
        version()
        raise typer.Exit


@app.callback()
def _options(
    *,
    _version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Print the version, and end.",
        ),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command; errors that name a wrong value exit with 2, defects with 70."""
    try:
        app()
    except HookbenchError as error:
        print(f"hookbench: {redact(str(error))}", file=sys.stderr)
        sys.exit(EXIT_USAGE)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            _report_defect()
        where = f" {error.filename}" if error.filename is not None else ""
        print(f"hookbench: no room left on the disk:{where} {error.strerror}", file=sys.stderr)
        sys.exit(EXIT_USAGE)
    except KeyboardInterrupt:
        print("hookbench: interrupted", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    except Exception:  # noqa: BLE001 - the outermost boundary: a defect has an exit code of its own
        _report_defect()


def _report_defect() -> NoReturn:
    sys.stderr.write(redact(traceback.format_exc()))
    print("hookbench: internal error, please report it with the lines above", file=sys.stderr)
    sys.exit(EXIT_INTERNAL)
