"""The scenario of a planted bug in virtual time: the same code, over simulated brokers."""

import tempfile
from pathlib import Path

from hookbench.clock import NS_PER_S
from hookbench.ledger.model import Verdict
from hookbench.sim.loop import SimulatedLoop
from hookbench.sim.simulate import simulate
from hookbench.sim.trial import Cause, Trial, causes_of
from tests.mutations.ground import SimulatedGround
from tests.mutations.scene import Scene

__all__ = ["play", "try_scenario"]

_LIMIT_NS = 3_600 * NS_PER_S
_LIMIT_CALLS = 5_000_000


def play(scenario, seed, engine, folder):
    """Run a scenario; its account.

    Args:
        scenario: of a mutation.
        seed: of all that is drawn.
        engine: of scripts.
        folder: an empty one, for ledger and effects.

    Raises:
        SimulationError: it could not go on, or needs what virtual time does not have.
    """

    async def main(loop):
        ground = SimulatedGround(loop, seed, engine)
        scene = Scene(ground.redis.url, ground.nats.url, folder / "scene", ground=ground)
        try:
            await scenario(scene)
            return (await scene.conclude())()
        finally:
            await scene.close()

    return simulate(main, loop=SimulatedLoop(limit_ns=_LIMIT_NS, limit_calls=_LIMIT_CALLS))


def try_scenario(scenario, seed, engine):
    """As ``try_schedule``: the verdict of the account, and why it is not valid."""
    with tempfile.TemporaryDirectory(prefix="hookbench-scene-") as name:
        try:
            account = play(scenario, seed, engine, Path(name))
        except Exception as error:  # noqa: BLE001 - one that breaks down does not end a search
            text = f"the scenario broke down: {type(error).__name__}: {error}"
            cause = Cause(hazard="?", invariant=0, row="-", count=1, text=text)
            return Trial(seed=seed, verdict=Verdict.UNKNOWN, causes=(cause,))
    verdicts = {item.verdict for item in account.invariants}
    worst = next(
        (item for item in (Verdict.UNKNOWN, Verdict.INVALID) if item in verdicts), Verdict.VALID
    )
    return Trial(seed=seed, verdict=worst, causes=tuple(causes_of(account)))
