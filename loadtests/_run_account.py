"""From the account of a ledger to what Locust shows of it."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
from _figures import histogram, percentiles
from _protocol import PhaseAccount, RunAccount

from hookbench.ledger.columns import TaskColumns
from hookbench.ledger.model import Account
from hookbench.ledger.read import Ledger

__all__ = ["account_of"]


def account_of(
    ledger: Ledger,
    account: Account,
    *,
    findings: list[str],
    doubts: list[str],
) -> RunAccount:
    """What Locust shows of an account.

    Args:
        ledger: what the account was made from.
        account: of the run.
        findings: what else there is to say.
        doubts: why the figures may not be believed.
    """
    columns = TaskColumns(ledger)
    left: Counter[str] = Counter()
    for row in account.rows:
        left.update(row.stuck)
    done = columns.offered & (columns.done_count > 0)
    to_done_ns = (columns.done_ns - columns.intended_ns)[done]
    lag_ns = (columns.invoked_ns - columns.intended_ns)[columns.offered]
    accepted = columns.accepted
    examples = [f"{item.text}, e.g. {', '.join(item.examples)}" for item in account.findings]
    if account.torn:
        doubts.append(f"{account.torn} ledger records were cut off")
    return RunAccount(
        published=account.accepted,
        consumed=int((columns.accepted & columns.terminal).sum()),
        dead=account.dead,
        left=dict(left),
        lost=account.lost,
        refused=account.refused,
        unknown=account.doubtful,
        duplicated=account.duplicated,
        redelivered=sum(row.redelivered for row in account.rows),
        publish_ns=percentiles((columns.accepted_ns - columns.intended_ns)[accepted]),
        send_ns=percentiles((columns.accepted_ns - columns.invoked_ns)[accepted]),
        end_to_end_ns=percentiles(to_done_ns),
        lag_ns=percentiles(lag_ns),
        published_ns=int(np.ptp(columns.accepted_ns[accepted])) if accepted.any() else 0,
        done=histogram(to_done_ns),
        phases=list(_phases_of(columns, account)),
        negative=int((to_done_ns < 0).sum()),
        findings=findings + examples,
        doubts=doubts,
    )


def _phases_of(columns: TaskColumns, account: Account) -> Iterator[PhaseAccount]:
    """One for each step of the timeline, by when its tasks were put."""
    for row in account.rows:
        if row.transition:
            continue
        mine = columns.accepted & (columns.put_step == row.step)
        done = mine & (columns.done_count > 0)
        yield PhaseAccount(
            phase=row.name,
            published=int(mine.sum()),
            consumed=int((mine & columns.terminal).sum()),
            lost=row.lost,
            redelivered=row.redelivered,
            end_to_end_ns=percentiles((columns.done_ns - columns.intended_ns)[done]),
        )
