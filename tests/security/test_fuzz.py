"""A short run of what ``tests/evidence/test_fuzz.py`` does for long."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.security.fuzzing import TARGETS, mutate

EXAMPLES = 60


@pytest.mark.parametrize("name", TARGETS)
def test_valid_input_is_read(name):
    target = TARGETS[name]
    for data in target.corpus:
        target.read(data)


@pytest.mark.parametrize("name", TARGETS)
def test_mutated_input_raises_nothing_unknown(name):
    target = TARGETS[name]

    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None)
    @given(st.integers(0, 2**32 - 1), st.sampled_from(target.corpus))
    def read(seed, data):
        target.read(mutate(data, target.corpus, random.Random(seed)))

    read()


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None)
@given(st.binary(max_size=300))
def test_any_bytes_raise_nothing_unknown(name, data):
    TARGETS[name].read(data)
