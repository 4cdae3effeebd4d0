"""What an installed hook knows, in ``hookbench-hook.json`` in its repository. Standard library."""

import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from hookbench.errors import SettingError

__all__ = ["CONFIG_NAME", "HookConfig", "read_config", "write_config"]

CONFIG_NAME = "hookbench-hook.json"
_MAX_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class HookConfig:
    """Settings of one repository's hook.

    Attributes:
        repo_id: the repository's name in its tasks.
        spool: absolute path of the spool.
        phase, phase_file: the phase to write in, fixed or watched; one of them.
        flush_for_s: how long a detached flush keeps trying while a broker is down; the next
            push starts another one.
        storage, replicas: of the stream.
        measures: of the hardened design, as ``parse_measures`` reads them.
        redis_kind: what holds the tasks on Redis, as ``parse_redis_kind`` reads it.
        linger_s: how long a flush waits for further pushes.
        owner_pid: a flush ends with this process; 0 for none.
    """

    repo_id: str
    spool: str
    task_type: str = "sync"
    redis_url: str | None = None
    nats_url: str | None = None
    phase: str | None = None
    phase_file: str | None = None
    prefix: str = "{hook}"
    subject_root: str = "queue.hook"
    stream: str = "HOOK_QUEUE"
    storage: str = "file"
    replicas: int = 1
    measures: str = "none"
    redis_kind: str = "list"
    ledger: str | None = None
    flush_for_s: float = 600.0
    linger_s: float = 2.0
    owner_pid: int = 0


def write_config(repository: Path, config: HookConfig) -> Path:
    """Store the settings; readable by their owner only, for URLs may carry passwords."""
    path = repository / CONFIG_NAME
    aside = path.with_name(f".{CONFIG_NAME}.{os.getpid()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    descriptor = os.open(aside, flags, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(asdict(config), file, indent=2)
        file.write("\n")
    aside.replace(path)
    return path


def read_config(path: Path) -> HookConfig:
    """The settings in a file.

    Raises:
        SettingError: missing, no JSON, or with unknown or missing keys.
    """
    try:
        with path.open("rb") as file:
            data = json.loads(file.read(_MAX_BYTES))
    except OSError as error:
        raise SettingError(
            f"hook settings {path}: {error.strerror}; run hookbench hook install"
        ) from error
    except (ValueError, RecursionError) as error:
        raise SettingError(f"hook settings {path}: {error}") from error
    known = {field.name for field in fields(HookConfig)}
    if not isinstance(data, dict) or not {"repo_id", "spool"} <= data.keys() <= known:
        raise SettingError(
            f"hook settings {path}: unknown or missing keys; run hookbench hook install again"
        )
    return HookConfig(**data)
