"""The command line of a taskiq worker, whatever its broker."""

from tests.bench.peers.contenders.child import GIVEN

__all__ = ["CLI_PAGE", "PREFETCH", "worker_command"]

CLI_PAGE = "https://taskiq-python.github.io/guide/cli.html"
PREFETCH = 100


def worker_command(module):
    """One process that works for the ``broker`` of a module."""
    return [
        "taskiq",
        "worker",
        f"{module}:broker",
        "--workers=1",
        f"--max-async-tasks={GIVEN.concurrency}",
        f"--max-prefetch={PREFETCH}",
        "--no-parse",
        "--log-level=WARNING",
    ]
