"""``hookbench hook``: the git hook of the reference producer."""

from pathlib import Path
from typing import Annotated

import typer

from hookbench.cli.options import (
    JsonOutput,
    MeasuresOption,
    NatsUrl,
    PhaseFileOption,
    PhaseOption,
    Prefix,
    RedisQueueOption,
    RedisUrl,
    Replicas,
    Storage,
    Stream,
    SubjectRoot,
    announce_json,
)

__all__ = ["app"]

app = typer.Typer(help="The git hook: every push becomes a task.", no_args_is_help=True)

_CONFIG_HELP = "The hook's settings: hookbench-hook.json in its repository."


@app.command()
def install(
    repository: Annotated[Path, typer.Argument(help="A bare repository.")],
    redis_url: RedisUrl = None,
    nats_url: NatsUrl = None,
    phase: PhaseOption = None,
    phase_file: PhaseFileOption = None,
    repo_id: Annotated[
        str | None, typer.Option(help="Name in the tasks: the path below the worker's --origins.")
    ] = None,
    spool: Annotated[Path | None, typer.Option(help="Spool, by default in the repository.")] = None,
    measures: MeasuresOption = "none",
    redis_queue: RedisQueueOption = "list",
    prefix: Prefix = "{hook}",
    subject_root: SubjectRoot = "queue.hook",
    stream: Stream = "HOOK_QUEUE",
    storage: Storage = "file",
    replicas: Replicas = 1,
    json: JsonOutput = False,
) -> None:
    """Install a post-receive hook. A push never fails or hangs because a broker is down.

    The hook stores the task in a spool and returns; a detached flush hands it to the brokers of
    the phase, and keeps trying while they are down.

    Example: hookbench hook install /srv/git/team/app.git --repo-id team/app.git
    --phase dual_write --redis-url redis://127.0.0.1:6379 --nats-url nats://127.0.0.1:4222
    """
    from hookbench.cli.worker import storage_of
    from hookbench.errors import SettingError
    from hookbench.githook.config import HookConfig
    from hookbench.githook.install import SPOOL_NAME, install_hook
    from hookbench.migration.measures import parse_measures
    from hookbench.migration.phases import (
        PhaseFile,
        WriteRoute,
        parse_phase,
        write_route,
    )
    from hookbench.queues.redis_kind import parse_redis_kind
    from hookbench.task import Names
    from hookbench.worker.handlers.git_command import resolve_repository

    if (phase is None) == (phase_file is None):
        raise SettingError("give either --phase or --phase-file, not both and not neither")
    route = None
    if phase is not None:
        route = write_route(parse_phase(phase))
    elif phase_file is not None:
        PhaseFile(phase_file).read()
    if route in (WriteRoute.REDIS, WriteRoute.BOTH) and redis_url is None:
        raise SettingError(f"phase {phase} writes to Redis: give --redis-url")
    if route in (WriteRoute.NATS, WriteRoute.BOTH) and nats_url is None:
        raise SettingError(f"phase {phase} writes to NATS: give --nats-url")
    Names(prefix=prefix, subject_root=subject_root, stream=stream)
    name = repo_id if repo_id is not None else repository.resolve().name
    resolve_repository(Path.cwd(), name)  # refuses a name that the worker would refuse
    hook = install_hook(
        repository,
        HookConfig(
            repo_id=name,
            spool=str((spool or repository / SPOOL_NAME).resolve()),
            redis_url=redis_url,
            nats_url=nats_url,
            phase=parse_phase(phase).label if phase is not None else None,
            phase_file=str(phase_file.resolve()) if phase_file is not None else None,
            prefix=prefix,
            subject_root=subject_root,
            stream=stream,
            storage=storage_of(storage),
            replicas=replicas,
            measures=parse_measures(measures).text,
            redis_kind=parse_redis_kind(redis_queue).value,
        ),
    )
    if json:
        announce_json({"hook": str(hook), "repo_id": name})
        return
    print(f"installed {hook}: pushes become tasks of {name}")


@app.command()
def flush(
    config: Annotated[Path, typer.Option(help=_CONFIG_HELP)],
    wait: Annotated[
        float | None, typer.Option(help="Keep trying for this many seconds, else as installed.")
    ] = None,
    json: JsonOutput = False,
) -> None:
    """Hand spooled tasks to the brokers now; exit 3 if some are left.

    Example: hookbench hook flush --config /srv/git/team/app.git/hookbench-hook.json --wait 10
    """
    import dataclasses
    import logging

    from hookbench.cli.options import run_until_signal
    from hookbench.clock import SystemClock
    from hookbench.githook.config import read_config
    from hookbench.githook.flush import Flush
    from hookbench.secrets import log_to_stderr

    log_to_stderr(logging.WARNING)
    settings = read_config(config)
    if wait is not None:
        settings = dataclasses.replace(settings, flush_for_s=wait, linger_s=0.0)
    task = Flush(settings, clock=SystemClock())
    totals = run_until_signal(task.run, task.request_stop)
    if json:
        announce_json({"sent": totals.sent, "rejected": totals.rejected, "left": totals.left})
    else:
        print(f"sent {totals.sent}, set aside {totals.rejected}, left {totals.left}")
    if totals.left:
        raise typer.Exit(3)


@app.command()
def status(
    config: Annotated[Path, typer.Option(help=_CONFIG_HELP)], json: JsonOutput = False
) -> None:
    """Say what waits in the spool, what was set aside, and whether a flush runs.

    Example: hookbench hook status --config /srv/git/team/app.git/hookbench-hook.json --json
    """
    from hookbench.githook.config import read_config
    from hookbench.githook.receive import flush_is_running
    from hookbench.migration.spool import Spool

    settings = read_config(config)
    path = Path(settings.spool)
    with Spool(path) as spool:
        waiting, rejected = len(spool), spool.rejected()
    running = flush_is_running(path)
    if json:
        announce_json({"waiting": waiting, "rejected": rejected, "flushing": running})
        return
    print(f"spool     {path}")
    print(f"waiting   {waiting}")
    print(f"flush     {'running' if running else 'not running'}")
    for number, reason in rejected:
        print(f"set aside task {number}: {reason}")


@app.command()
def uninstall(
    repository: Annotated[Path, typer.Argument(help="The bare repository.")],
    abandon: Annotated[
        bool, typer.Option("--abandon", help="Also if tasks wait: they stay in the spool, unsent.")
    ] = False,
    json: JsonOutput = False,
) -> None:
    """Remove the hook and its settings, and the spool if nothing is left in it.

    Refused while a flush runs, and while tasks wait unless --abandon is given.

    Example: hookbench hook uninstall /srv/git/team/app.git
    """
    from hookbench.clock import SystemClock
    from hookbench.githook.uninstall import uninstall_hook

    done = uninstall_hook(repository, abandon=abandon, clock=SystemClock())
    if json:
        announce_json({**done._asdict(), "spool": str(done.spool)})
        return
    print(f"removed the hook and its settings: pushes to {repository} are tasks no longer")
    if done.abandoned:
        print(f"abandoned {done.abandoned}: tasks that stay in {done.spool}, unsent")
    elif done.rejected:
        print(f"kept {done.spool}: tasks set aside in it {done.rejected}")
    elif done.spool_kept:
        print(f"kept {done.spool}, empty: other hooks may share it")
