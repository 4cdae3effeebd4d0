"""hookbench: rehearse the migration of a job queue from Redis to NATS JetStream."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hookbench.results.run import Run, load

__all__ = ["Run", "__version__", "load"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """``load`` and ``Run`` need the extra ``notebooks``, and half a second: imported when asked."""
    if name in ("Run", "load"):
        from hookbench.results import run  # noqa: PLC0415

        return getattr(run, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
