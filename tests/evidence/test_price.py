"""What each measure of the hardened design costs, beside the guide; see ``price``."""

import os
import shutil

import pytest

from tests.evidence.price import Sizes, figures_of, refuted, run
from tests.evidence.price_rig import SENDERS, SLOTS


@pytest.mark.evidence(
    claim="Of each measure alone and of all, Redis turns and NATS messages per task are the guide's"
    " and what its budget says, in turn, and no more than that at once; bytes are within it, too;"
    " and every task of every variant was accepted, started and done exactly once.",
    seed=7,
)
@pytest.mark.timeout(1800)
def test_price(proof, tmp_path):
    sizes, loads = Sizes(), []
    found = run(tmp_path, sizes, told=lambda _number: loads.append(os.getloadavg()[0]))
    for variant, rounds in found.items():
        proof.record(**{variant.label: figures_of(rounds, found[variant.guide])})
    proof.record(
        rounds=sizes.rounds,
        tasks_at_once=sizes.at_once,
        tasks_in_turn=sizes.in_turn,
        senders=SENDERS,
        slots=SLOTS,
        tasks=sum(item.offered for rounds in found.values() for item in rounds),
        load_least=round(min(loads), 2),
        load_most=round(max(loads), 2),
    )
    shutil.rmtree(tmp_path, ignore_errors=True)
    proof.conclude(refuted(found))
