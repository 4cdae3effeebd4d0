"""Target 6 measures the same thing in every way; see tests/evidence/sleeps.py."""

import pytest

sleeps = pytest.importorskip("tests.evidence.sleeps", reason="SimPy is not installed")


def test_every_way_sleeps_the_same(monkeypatch):
    monkeypatch.setattr(sleeps, "SLEEPERS", 20)
    slept = [sleeps.rates(way)[1] for way in sleeps.WAYS]
    totals, ends = ({round(pair[at], 6) for pair in slept} for at in (0, 1))
    assert len(totals) == len(ends) == 1
    assert 0 < ends.pop() < totals.pop()
