"""The search of the simulator finds planted bugs; ``tests/evidence`` searches for all of them."""

import dataclasses

import pytest

from hookbench.sim.redis.scripts import ScriptEngine
from tests.mutations.silence import HARMLESS
from tests.mutations.simulated import Search, Sought, contradictions, seek, seek_apart
from tests.mutations.simulated_table import document
from tests.mutations.table import MUTATIONS
from tests.mutations.unseen import UNSEEN

KNOWN = {item.name: item for item in MUTATIONS}


@pytest.fixture(scope="module")
def engine():
    return ScriptEngine()


@pytest.mark.parametrize(
    ("name", "invariant"),
    [
        ("accepted-before-it-is-stored", 1),
        ("refused-although-written", 5),
        ("effect-is-skipped", 4),
    ],
)
def test_a_bug_is_seen_under_hardened(name, invariant, engine):
    found = seek(KNOWN[name], most=1, engine=engine)
    assert found.seen
    assert found.guide is None
    assert found.hardened.cause.startswith(f"-/{invariant} ")
    assert found.hardened.harmed > 0


def test_a_bug_that_a_measure_makes_harmless_is_seen_under_guide(engine):
    found = seek(KNOWN["started-twice"], most=1, engine=engine)
    assert found.hardened.silence == UNSEEN["started-twice"].hardened
    assert found.guide.cause.startswith("-/4 ")
    assert found.guide.scope == "guide redis_only"


def test_the_code_as_it_is_is_no_bug(engine):
    nothing = dataclasses.replace(KNOWN["started-twice"], plant=lambda original, _trace: original)
    found = seek(nothing, most=1, engine=engine)
    assert not found.seen
    assert found.hardened.silence == HARMLESS
    assert found.hardened.calls > 100


def test_a_bug_in_a_process_of_its_own_says_the_same(engine):
    name = "accepted-without-a-write"
    assert seek_apart(name, most=1) == seek(KNOWN[name], most=1, engine=engine)


def test_only_bugs_that_exist_are_said_to_be_unseen():
    assert set(UNSEEN) <= set(KNOWN)
    assert all(item.reason for item in UNSEEN.values())


SEEN = Search(seeds=1, scope="hardened", cause="-/1", calls=1, harmed=1)
NOT_SEEN = Search(seeds=60, calls=9)


@pytest.mark.parametrize(
    ("name", "hardened", "guide", "told"),
    [
        ("effect-is-skipped", SEEN, None, None),
        ("effect-is-skipped", NOT_SEEN, SEEN, "not seen under hardened (harms no task), and no"),
        ("started-twice", SEEN, None, "seen under hardened, which unseen.py says it is not"),
        ("started-twice", NOT_SEEN, SEEN, "harms no task under hardened, and not as unseen.py"),
    ],
)
def test_what_was_seen_is_held_against_what_is_known(name, hardened, guide, told):
    found = contradictions(Sought(name=name, hardened=hardened, guide=guide))
    assert [told in item for item in found] == ([] if told is None else [True])


def test_the_document_names_every_bug():
    text = document({"effect-is-skipped": Sought(name="effect-is-skipped", hardened=SEEN)})
    assert "| effect-is-skipped " in text
    assert "seen: 1, -/1" in text
    assert text.count("not run yet") == len(MUTATIONS) - 1
