"""Another machine's clock, by asking it."""

import random

from hypothesis import given
from hypothesis import strategies as st

from hookbench.clock_offset import ClockOffset

MS = 1_000_000
TRIPS = st.lists(
    st.tuples(st.integers(0, 50 * MS), st.integers(0, 50 * MS)), min_size=1, max_size=20
)


def ask(offset, now_ns, ahead_ns, there_ns, back_ns):
    """One question; the other clock is ``ahead_ns`` ahead. When the answer is here."""
    offset.add(now_ns, now_ns + there_ns + ahead_ns, now_ns + there_ns + back_ns)
    return now_ns + there_ns + back_ns


def test_without_an_answer_nothing_is_known():
    assert ClockOffset().at(5) is None


@given(ahead_ns=st.integers(-(10**18), 10**18), trips=TRIPS)
def test_the_truth_is_within_the_error(ahead_ns, trips):
    offset, now_ns = ClockOffset(), 10**15
    for there_ns, back_ns in trips:
        now_ns = ask(offset, now_ns, ahead_ns, there_ns, back_ns) + MS
    found = offset.at(now_ns)
    assert abs(found.offset_ns - ahead_ns) <= found.error_ns
    assert found.error_ns <= min(map(sum, trips)) / 2 + 0.0001 * 20 * 101 * MS + 2


def test_an_answer_that_came_quickly_says_most_and_an_old_one_less():
    offset = ClockOffset()
    now_ns = ask(offset, 0, 7_000, 20 * MS, 20 * MS)
    now_ns = ask(offset, now_ns, 7_000, 100_000, 100_000)
    now_ns = ask(offset, now_ns, 7_000, 20 * MS, 0)
    assert offset.at(now_ns).offset_ns == 7_000
    soon = offset.at(now_ns).error_ns
    assert 100_000 <= soon < 105_000
    assert offset.at(now_ns + 1_000 * MS).error_ns >= soon + 90_000


def test_a_clock_that_drifts_is_followed():
    rng, offset, now_ns = random.Random(1), ClockOffset(), 0
    for _ in range(2_000):
        ahead_ns = now_ns // 20_000  # 50 ppm
        trips = (rng.randrange(MS), rng.randrange(MS))
        now_ns = ask(offset, now_ns, ahead_ns, *trips) + 250 * MS
        found = offset.at(now_ns)
        assert abs(found.offset_ns - now_ns // 20_000) <= found.error_ns
    assert found.error_ns < 2 * MS
