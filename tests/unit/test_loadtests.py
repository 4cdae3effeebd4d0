"""The parts of the load tests that need no Locust: importing that would patch this process."""

import importlib.util
from pathlib import Path

import pytest

from hookbench.errors import SettingError
from hookbench.migration.phases import Phase

LOADTESTS = Path(__file__).parents[2] / "loadtests"


def load(name):
    spec = importlib.util.spec_from_file_location(name, LOADTESTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


guard, timeline = load("_guard"), load("_timeline")


def test_a_timeline():
    found = timeline.parse_timeline(" redis_only:20, 1:2.5,nats_only")
    assert [(item.phase, item.seconds) for item in found] == [
        (Phase.REDIS_ONLY, 20.0),
        (Phase.DUAL_WRITE, 2.5),
        (Phase.NATS_ONLY, None),
    ]
    assert timeline.parse_timeline("") == ()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("redis", "phase 'redis': use one of"),
        ("redis_only,dual_write", "say how many seconds redis_only lasts"),
        ("redis_only:0,dual_write", "length '0': use more than 0"),
        ("redis_only:inf,dual_write", "length 'inf'"),
        ("redis_only:nan,dual_write", "length 'nan'"),
        ("redis_only:5s,dual_write", "length '5s'"),
        ("redis_only:5,redis_only", "redis_only follows itself"),
        (",".join(["redis_only:1", "dual_write:1"] * 51), "102 phases: use up to 100"),
    ],
)
def test_what_is_no_timeline(text, told):
    with pytest.raises(SettingError) as refused:
        timeline.parse_timeline(text)
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("LOCALHOST", True),
        ("", False),
        ("*", False),
        ("0.0.0.0", False),  # noqa: S104
        ("::", False),
        ("10.0.0.1", False),
        ("127.0.0.1.example.org", False),
    ],
)
def test_which_hosts_are_this_machine_alone(host, own):
    assert guard.is_loopback(host) is own


ORIGIN = "http://127.0.0.1:8089"


@pytest.mark.parametrize(
    ("web_host", "login", "asked", "origin", "told"),
    [
        ("127.0.0.1", False, "127.0.0.1", ORIGIN, None),
        ("127.0.0.1", False, "localhost", None, None),
        ("", False, "127.0.0.1", ORIGIN, "--web-host 127.0.0.1, or with --web-login"),
        ("", True, "load.example.org", "http://load.example.org", None),
        # A name of somebody else's that leads to this machine, and another site's page.
        ("127.0.0.1", False, "evil.example.org", "http://evil.example.org", "own name"),
        ("127.0.0.1", False, "127.0.0.1", "http://evil.example.org", "comes from http://evil"),
        ("", True, "load.example.org", "http://evil.example.org", "comes from http://evil"),
    ],
)
def test_who_may_use_the_buttons(web_host, login, asked, origin, told):
    refused = guard.why_refused(web_host, login=login, asked_host=asked, origin=origin)
    assert refused is None if told is None else told in refused
