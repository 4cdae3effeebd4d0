"""The frame of the proofs: every test in this folder is one, and stores what it came to.

A proof is marked ``@pytest.mark.evidence(claim=..., seed=...)``; it is named after its function.
"""

import re
from pathlib import Path

import pytest

from hookbench.clock import SystemClock
from tests.evidence.record import Proof

FOLDER = Path(__file__).parent
_PROOF = pytest.StashKey[Proof]()
_PROOFS = pytest.StashKey[list[Proof]]()
_FIELDS = {"claim", "seed"}


def proof_name(test):
    """Of ``test_witness[quick]``: ``witness-quick``."""
    return re.sub(r"[^A-Za-z0-9_.]+", "-", test.removeprefix("test_")).strip("-")


@pytest.hookimpl(tryfirst=True)  # before the marker decides what runs
def pytest_collection_modifyitems(items):
    """A proof without its marker would run, and be stored nowhere."""
    for item in items:
        marker = item.get_closest_marker("evidence")
        if marker is None and FOLDER not in item.path.parents:
            continue
        whole = marker is not None and not marker.args and set(marker.kwargs) == _FIELDS
        if not whole or item.get_closest_marker("xfail") is not None:
            raise pytest.UsageError(
                f"{item.nodeid}: mark it @pytest.mark.evidence(claim='...', seed=7), and not as"
                " a failure that is expected"
            )


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item):
    marker = item.get_closest_marker("evidence")
    if marker is None:
        return (yield)
    proof = Proof(
        item.config.rootpath / "evidence",
        name=proof_name(item.name),
        clock=SystemClock(),
        **marker.kwargs,
    )
    item.stash[_PROOF] = proof
    item.config.stash.setdefault(_PROOFS, []).append(proof)
    try:
        return (yield)
    except BaseException as error:
        with proof:
            raise error  # noqa: TRY201 - the proof stores it, and turns a skip into a failure


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item):
    proof = item.stash.get(_PROOF, None)
    if proof is None:
        return (yield)
    with proof:
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item):
    """What goes wrong after the conclusion takes it back: a broker that could not be stopped."""
    try:
        return (yield)
    except BaseException as error:
        proof = item.stash.get(_PROOF, None)
        if proof is not None:
            proof.cut_off(error)
        raise


def pytest_terminal_summary(terminalreporter, config):
    proofs = config.stash.get(_PROOFS, [])
    if proofs:
        terminalreporter.section("evidence")
    for proof in proofs:
        terminalreporter.write_line(proof.line())


@pytest.fixture
def proof(request):
    """The proof that the test makes: ``record`` figures, then ``conclude``."""
    return request.node.stash[_PROOF]
