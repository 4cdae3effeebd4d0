"""The parts of the load tests that need no Locust: importing that would patch this process."""

import importlib.util
import sys
from pathlib import Path

import pytest

from hookbench.errors import SettingError
from hookbench.ledger.events import Event, LedgerWriter
from hookbench.migration.phases import Phase
from tests.virtual import FixedClock

LOADTESTS = Path(__file__).parents[2] / "loadtests"


def load(name):
    """A file that Locust loads from its folder, and what it loads itself."""
    if str(LOADTESTS) not in sys.path:
        sys.path.append(str(LOADTESTS))
    spec = importlib.util.spec_from_file_location(name, LOADTESTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


guard, timeline, options = load("_guard"), load("_timeline"), load("_options")
figures = load("_figures")
DEFAULTS = {
    "queue": "redis_list", "phases": "", "durability": "lazy", "design": "guide", "faults": "",
    "wire": "direct", "mode": "bridge", "handler": "noop", "payload": "256", "fail_if": "",
    "rate": "25", "burst": "1", "hook_workers": "1", "work_ms": "0", "drain_seconds": "30",
    "max_tasks": "2000000",
}  # fmt: skip


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


def test_the_options_of_the_form():
    found = options.read_options(DEFAULTS)
    assert found == type(found)()
    found = options.read_options({**DEFAULTS, "work_ms": "5", "rate": "0", "burst": "20"})
    assert (str(found.handler), found.work_ms, found.burst) == ("sleep", 5.0, 20)
    assert found.label == "redis_list"
    found = options.read_options({**DEFAULTS, "phases": "dual_read:5,nats_primary"})
    assert found.label == "hook queue"
    assert [item.phase for item in found.timeline] == [Phase.DUAL_READ, Phase.NATS_PRIMARY]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (
            {"queue": "kafka"},
            "--queue 'kafka': use one of redis_list, redis_stream, jetstream, both",
        ),
        ({"mode": "motor"}, "--mode 'motor': use one of bridge, engine"),
        ({"rate": "fast"}, "--rate 'fast': use a number"),
        ({"rate": "-1"}, "--rate -1: use a number between 0 and 100,000"),
        ({"hook_workers": "1.5"}, "--hook-workers '1.5': use a whole number"),
        ({"burst": "20"}, "--burst 20: only users of a closed loop"),
        ({"burst": "20", "rate": "0", "mode": "engine"}, "use --rate 0, without an engine"),
        ({"handler": "sleep"}, "--handler sleep: say how long it takes: --work-ms 5"),
        ({"handler": "fail", "work_ms": "5"}, "--work-ms 5: the handler fail takes no time"),
        ({"faults": "kil worker-0"}, "did you mean 'kill'?"),
        ({"phases": "redis_only,nats_only"}, "say how many seconds redis_only lasts"),
        ({"payload": "2000000"}, "payload of 2,000,000 bytes: use up to 1,000,000"),
        ({"fail_if": "publish_p95>1ms"}, "of publishes there are publish_p50"),
    ],
)
def test_what_the_form_refuses(changed, told):
    with pytest.raises(SettingError) as refused:
        options.read_options({**DEFAULTS, **changed})
    assert told in str(refused.value)


@pytest.mark.parametrize("late", [False, True], ids=["in order", "the put comes later"])
def test_what_is_done_has_its_latency_whichever_record_comes_first(tmp_path, late):
    """The ledger of another machine comes some time after the one of the workers here."""
    clock = FixedClock(monotonic_ns=10**9)
    writers = {
        role: LedgerWriter(tmp_path, role=role, writer=number, clock=clock)
        for number, role in enumerate(("producer", "worker"))
    }
    live, task = figures.LiveLedger(tmp_path), bytes(range(16))

    def put():
        writers["producer"].record(Event.PUT_INVOKED, task, value=10**9)
        writers["producer"].record(Event.ACCEPTED, task)

    if not late:
        put()
    assert live.read().count == 0
    clock.now_ns += 7_000_000
    writers["worker"].record(Event.DONE, task)
    counts = [live.read()]
    if late:
        put()
        counts.append(live.read())
    assert [item.count for item in counts] == ([0, 1] if late else [1])
    assert counts[-1].max_ms == 7.0
    assert (live.offered, live.accepted) == (1, 1)
    assert live.oldest_s(clock.now_ns + 10**9) == 0.0
    writers["worker"].record(Event.DONE, task)  # once more: it has its latency already
    assert live.read().count == 0
