"""What ``post-receive`` runs: spool the task, start a flush, never fail or delay the push.

Standard library only, so that a push waits for little more than a Python start and one durable
SQLite row. It is run as ``python -m hookbench.githook.receive CONFIG``.
"""

import datetime as dt
import json
import sys
from pathlib import Path
from typing import Any

from hookbench.clock import SystemClock
from hookbench.githook.config import HookConfig, read_config
from hookbench.githook.locks import flush_is_running, hold_settings, lock_path
from hookbench.ids import system_entropy, uuid7
from hookbench.ledger.boot import boot_id
from hookbench.migration.spool import Spool

__all__ = ["flush_is_running", "lock_path", "main", "task_json"]

MAX_REFS = 1000
"""More refs than this in one push are counted, not listed: the mirror takes all of them."""


def task_json(config: HookConfig, lines: list[str], clock: SystemClock) -> tuple[str, bytes]:
    """Id and wire bytes of the task of one push; ``lines`` are ``old new ref``."""
    task_id = str(uuid7(clock, system_entropy()))
    refs = [
        dict(zip(("old", "new", "ref"), line.split(" ", 2), strict=True))
        for line in lines[:MAX_REFS]
    ]
    created = dt.datetime.fromtimestamp(clock.wall_ns() // 1000 / 1e6, tz=dt.UTC)
    task: dict[str, Any] = {
        "id": task_id,
        "repo_id": config.repo_id,
        "task_type": config.task_type,
        "payload": {"refs": refs, "refs_total": len(lines)},
        "created_at": created.isoformat().replace("+00:00", "Z"),
        "retry_count": 0,
    }
    return task_id, json.dumps(task, separators=(",", ":"), ensure_ascii=False).encode(
        "utf-8", errors="replace"
    )


def _start_flush(config_path: Path) -> None:
    import subprocess  # noqa: PLC0415 - not needed while a flush runs, and slow to import

    subprocess.Popen(
        [sys.executable, "-m", "hookbench", "hook", "flush", "--config", str(config_path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
    )


def _queue(config_path: Path, lines: list[str], clock: SystemClock, intended_ns: int) -> None:
    config = read_config(config_path)
    task_id, task = task_json(config, lines, clock)
    spool_path = Path(config.spool)
    with Spool(spool_path) as spool:
        spool.add(task_id, task, intended_ns=intended_ns, boot_id=boot_id())
    if not flush_is_running(spool_path):
        _start_flush(config_path)


def main(argv: list[str]) -> int:
    """Spool what stands on stdin; 0 in any case, for the push has been received already."""
    clock = SystemClock()
    intended_ns = clock.monotonic_ns()
    try:
        config_path = Path(argv[1]).resolve()
        lines = [line.decode("utf-8", errors="replace").rstrip("\n") for line in sys.stdin.buffer]
        if lines:
            with hold_settings(config_path, clock):
                _queue(config_path, lines, clock, intended_ns)
    except Exception as error:  # noqa: BLE001 - the push is in; all that is left is to say so
        sys.stderr.write(f"hookbench: the push is stored, but no task was queued for it: {error}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
