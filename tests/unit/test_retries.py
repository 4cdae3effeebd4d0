"""Delays that grow."""

import random

import pytest

from hookbench.errors import SettingError
from hookbench.worker.retries import NakDelays


def test_they_grow_by_the_factor_up_to_the_cap():
    delays = NakDelays(base_s=0.5, factor=3.0, cap_s=10.0)
    assert [delays.after(attempt) for attempt in (1, 2, 3, 4, 1000)] == [0.5, 1.5, 4.5, 10, 10]


def test_jitter_takes_a_share_away_and_follows_from_the_entropy():
    delays = NakDelays(base_s=8.0, cap_s=8.0, jitter=0.25)
    values = [delays.after(1, random.Random(seed)) for seed in range(200)]
    assert all(6.0 <= value <= 8.0 for value in values)
    assert max(values) - min(values) > 1.5
    assert delays.after(1, random.Random(3)) == values[3]


@pytest.mark.parametrize(
    "wrong",
    [
        {"base_s": 0.0},
        {"base_s": 2.0, "cap_s": 1.0},
        {"factor": 0.5},
        {"jitter": 1.5},
        {"jitter": -0.1},
    ],
)
def test_what_does_not_grow_is_refused(wrong):
    with pytest.raises(SettingError):
        NakDelays(**wrong)
