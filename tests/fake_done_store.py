"""A done-store in this process, with leases that do not run out."""

from hookbench.migration.done_store import Claim, ClaimOutcome


class FakeDoneStore:
    """Done tasks and claims in dictionaries."""

    def __init__(self, done=()):
        self.done = set(done)
        self.held = {}
        self.asked = []
        self._tokens = 0

    async def claim(self, task_id, owner, _lease_s):
        if task_id in self.done:
            return Claim(task_id=task_id, outcome=ClaimOutcome.DONE)
        if self.held.get(task_id, owner) != owner:
            return Claim(task_id=task_id, outcome=ClaimOutcome.HELD, held_for_s=1.0)
        self.held[task_id] = owner
        self._tokens += 1
        return Claim(task_id=task_id, outcome=ClaimOutcome.GRANTED, token=self._tokens)

    async def renew(self, claim, _lease_s):
        return claim.task_id in self.held

    async def complete(self, claim):
        self.held.pop(claim.task_id, None)
        self.done.add(claim.task_id)
        return True

    async def release(self, claim, *, failure=""):  # noqa: ARG002
        return self.held.pop(claim.task_id, None) is not None

    async def are_done(self, task_ids):
        self.asked.append(len(task_ids))
        return self.done & set(task_ids)
