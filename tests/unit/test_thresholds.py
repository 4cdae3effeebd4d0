"""Thresholds of a run."""

import pytest

from hookbench.errors import SettingError
from hookbench.load.thresholds import parse_thresholds

VALUES = {"p99": 100.5, "max": 900.0, "publish_p50": 0.25, "rate": 480.0, "lost": 0.0, "left": 3.0}


def broken(text):
    return [item.broken_by(VALUES) for item in parse_thresholds(text)]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", []),
        (" , ", []),
        ("p99>100ms", ["p99>100ms: 100.500 ms"]),
        ("p99 > 101 ms", [None]),
        ("p99>=0.1005s", ["p99>=0.1005s: 100.500 ms"]),
        ("publish_p50>250us", [None]),
        ("publish_p50>=250us", ["publish_p50>=250us: 0.250 ms"]),
        ("max>1s,lost>0,left>0", [None, None, "left>0: 3"]),
        ("rate<500/s", ["rate<500/s: 480"]),
        ("rate<480", [None]),
        ("p99.9>1s", ["p99.9>1s: there is no p99.9"]),
        ("dead>0", ["dead>0: there is no dead"]),
    ],
)
def test_what_is_beyond_is_said(text, told):
    assert broken(text) == told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("p99>100", "give the time a unit"),
        ("p99>100/s", "give the time a unit"),
        ("p100>1ms", "use terms such as"),
        ("p99=5ms", "use terms such as"),
        ("lost>0ms", "use terms such as"),
        ("lots>0", "use terms such as"),
        ("rate<5ms", "use terms such as"),
        ("lost>-1", "use terms such as"),
    ],
)
def test_what_is_no_threshold_is_named(text, told):
    with pytest.raises(SettingError, match=f"threshold '{text}': {told}"):
        parse_thresholds(text)
