"""hookbench: rehearse the migration of a job queue from Redis to NATS JetStream."""

__all__ = ["__version__"]

__version__ = "0.1.0"
