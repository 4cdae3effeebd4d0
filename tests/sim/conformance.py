"""How a state machine that asks a real server and a simulated one is run."""

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

__all__ = ["check_conformance"]


def check_conformance(machine, url, *, examples, steps):
    """Run ``machine`` against the server at ``url``; how many answers were compared."""
    against = type(f"{machine.__name__}Of{examples}", (machine,), {"url": url})
    run_state_machine_as_test(
        against,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            derandomize=True,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert against.asked > 10 * examples
    return against.asked
