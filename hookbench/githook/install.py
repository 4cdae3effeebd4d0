"""Install the ``post-receive`` hook into a bare repository."""

import shlex
import stat
import sys
from pathlib import Path

from hookbench.errors import RepositoryError
from hookbench.githook.config import CONFIG_NAME, HookConfig, write_config
from hookbench.migration.spool import Spool

__all__ = ["MARK", "SPOOL_NAME", "hook_path", "install_hook"]

MARK = "# installed by hookbench"
SPOOL_NAME = "hookbench-spool.sqlite"
"""The spool of a repository, unless another one is asked for."""

_HOOK = """#!/bin/sh
{mark}; 'hookbench hook install' writes it again
# A push is never refused or held up for the sake of its task.
{python} -m hookbench.githook.receive {config} || true
exit 0
"""


def hook_path(repository: Path) -> Path:
    """Where git looks for the hook."""
    return repository / "hooks" / "post-receive"


def install_hook(repository: Path, config: HookConfig) -> Path:
    """Write the hook, its settings and an empty spool; the path of the hook.

    Raises:
        RepositoryError: no bare repository, or one with a ``post-receive`` hook of its own.
        SpoolError: the spool cannot be created.
    """
    if not (repository / "HEAD").is_file() or not (repository / "objects").is_dir():
        raise RepositoryError(
            f"{repository} is no bare git repository: give the folder that holds HEAD and objects"
            " ('git init --bare', or .git of a work tree)"
        )
    hook = hook_path(repository)
    if hook.exists() and MARK not in hook.read_text(errors="replace"):
        raise RepositoryError(
            f"{hook} exists and is not hookbench's: move it away, and call it from a script that"
            f" also runs 'python -m hookbench.githook.receive {repository / CONFIG_NAME}'"
        )
    Spool(Path(config.spool)).close()
    config_path = write_config(repository, config)
    hook.parent.mkdir(exist_ok=True)
    aside = hook.with_name(".post-receive.hookbench")
    aside.write_text(
        _HOOK.format(
            mark=MARK,
            python=shlex.quote(sys.executable),
            config=shlex.quote(str(config_path.resolve())),
        )
    )
    aside.chmod(aside.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    aside.replace(hook)
    return hook
