"""What an account must say of a planted bug, on real brokers and on simulated ones."""

from hookbench.ledger.model import Verdict

__all__ = ["assert_caught", "assert_clean", "broken", "unknown"]


def broken(account):
    """Numbers of the invariants that are broken."""
    return [item.number for item in account.invariants if item.verdict is Verdict.INVALID]


def unknown(account):
    """Numbers of those of which nobody knows."""
    return [item.number for item in account.invariants if item.verdict is Verdict.UNKNOWN]


def assert_clean(account):
    """Nothing is broken, and there were tasks."""
    assert (broken(account), unknown(account)) == ([], []), account.findings
    assert account.tasks > 0


def assert_caught(mutation, account, harmed):
    """The invariants of a mutation are broken and no others, by the tasks that it harmed.

    Args:
        mutation: that was planted.
        account: of its scenario.
        harmed: ids of tasks, as the planted code says.
    """
    assert harmed, "the planted code did no harm to any task"
    assert (broken(account), unknown(account)) == (mutation.breaks, []), account.findings
    found = [item for item in account.findings if item.invariant == mutation.invariant]
    assert {item.hazard for item in found} == {mutation.hazard}
    assert {item.row for item in found} == {mutation.row}
    assert set().union(*(item.examples for item in found)) == harmed
    causes = {
        (item.what, item.step, item.fault, item.hazard)
        for item in account.attributions
        if (item.fault, item.hazard) != ("lease", "-")
    }
    assert causes == ({mutation.cause} if mutation.cause else set())
