"""Rules: what is refused, and that each fires exactly where it says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookbench.errors import FaultError
from hookbench.faults.wire.frames import Frame
from hookbench.faults.wire.model import Rule
from hookbench.faults.wire.rules import MAX_HITS, ActiveRule, Pacer, parse_rule
from tests.virtual import FixedClock

LINKS = {"redis": "resp", "nats": "nats"}
S = 1_000_000_000


def active(**fields):
    fields.setdefault("action", "pass")
    fields.setdefault("direction", "request")
    return ActiveRule(1, parse_rule(fields, {fields.get("link", "nats"): "nats"}), FixedClock())


def frame(command=b"PUB", key=b"queue.a", special=b""):
    return Frame(0, 10, command, key, special)


def test_a_link_that_is_not_parsed_takes_rules_on_the_whole_link_only():
    assert parse_rule({"action": "partition"}, {"routes": "tcp"}).link == "routes"
    with pytest.raises(FaultError, match="not parsed: use bandwidth, latency, partition"):
        parse_rule({"action": "drop", "direction": "reply"}, {"routes": "tcp"})


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ([1], r"rule \[1\]: give an object"),
        ({"acton": "drop"}, "unknown field 'acton' .did you mean 'action'"),
        ({"action": "dorp", "link": "redis"}, "unknown action 'dorp' .did you mean 'drop'"),
        ({"action": "drop", "link": "redsi"}, "unknown link 'redsi' .did you mean 'redis'"),
        ({"action": "drop"}, "unknown link ''.*redis, nats"),
        ({"action": "drop", "link": "redis"}, "no direction"),
        ({"action": "drop", "link": "redis", "direction": "rely"}, "did you mean 'reply'"),
        (
            {"action": "drop", "link": "redis", "direction": "reply", "command": "BLMVOE"},
            "unknown command 'BLMVOE' .did you mean 'BLMOVE'",
        ),
        (
            {"action": "drop", "link": "nats", "direction": "reply", "command": "puback"},
            "did you mean 'PubAck'",
        ),
        (
            {"action": "drop", "link": "nats", "direction": "request", "command": "PubAck"},
            "PubAck is never a request",
        ),
        (
            {"action": "drop", "link": "nats", "direction": "reply", "command": "HPUB"},
            "HPUB is never a reply",
        ),
        ({"action": "drop", "link": "redis", "direction": "reply", "subject": "a"}, "use 'key'"),
        ({"action": "drop", "link": "nats", "direction": "reply", "key": "a"}, "use 'subject'"),
        ({"action": "drop", "link": "nats", "direction": "reply", "nth": 0}, "nth 0"),
        ({"action": "drop", "link": "nats", "direction": "reply", "nth": "2"}, "nth"),
        ({"action": "drop", "link": "nats", "direction": "reply", "count": -1}, "count -1"),
        ({"action": "drop", "link": "nats", "direction": "reply", "probability": 0.0}, "probabil"),
        ({"action": "drop", "link": "nats", "direction": "reply", "then": "rest"}, "'reset'"),
        ({"action": "drop", "link": "nats", "direction": "reply", "then": "reset"}, "leave out"),
        ({"action": "drop", "link": "redis", "direction": "request", "then": "reset"}, "leave out"),
        ({"action": "drop", "link": "nats", "direction": "reply", "delay_ms": 5}, "no 'delay_ms'"),
        ({"action": "delay", "link": "nats", "direction": "reply"}, "needs a delay_ms"),
        ({"action": "delay", "link": "nats", "direction": "reply", "delay_ms": -1}, "delay_ms -1"),
        ({"action": "trickle", "link": "nats", "direction": "reply"}, "needs a bytes_per_s"),
        ({"action": "bandwidth", "link": "nats"}, "needs a bytes_per_s"),
        ({"action": "partition", "link": "nats", "command": "PUB"}, "no 'command'"),
        ({"action": "pass", "link": "nats", "direction": "reply", "then": "reset"}, "no 'then'"),
    ],
)
def test_a_rule_that_could_not_do_what_it_says_is_refused(rule, text):
    with pytest.raises(FaultError, match=text):
        parse_rule(rule, LINKS)


def test_the_only_link_need_not_be_named():
    rule = parse_rule({"action": "partition"}, {"redis": "resp"})
    assert rule == Rule(action="partition", link="redis")


@given(st.integers(1, 20), st.integers(0, 10), st.lists(st.booleans(), max_size=60))
def test_a_rule_fires_from_the_nth_match_on(nth, count, stream):
    """Frames that it does not match are not counted, and never meet it."""
    rule = active(nth=nth, count=count, command="PUB")
    fired = [
        number
        for number, matching in enumerate(stream)
        if rule.meets(frame() if matching else frame(b"SUB"))
    ]
    matches = [number for number, matching in enumerate(stream) if matching]
    assert fired == matches[nth - 1 : nth - 1 + count if count else None]
    assert rule.stats.matches == len(matches)


@given(st.integers(0, 1000), st.floats(0.2, 0.8))
def test_chance_comes_from_the_seed(seed, probability):
    def play():
        rule = active(probability=probability, seed=seed, count=0)
        return [rule.meets(frame()) for _ in range(200)]

    assert play() == play()
    assert 0 < sum(play()) < 200


def test_command_pseudo_frame_and_subject_all_have_to_match():
    publish = active(command="PUB", subject="queue.*", count=0)
    assert publish.meets(frame())
    assert publish.meets(frame(key=b"queue.a.b"))
    assert not publish.meets(frame(key=b"other"))
    assert not publish.meets(frame(b"HPUB"))
    ack = active(command="Ack", count=0)
    assert ack.meets(frame(special=b"Ack"))
    assert not ack.meets(frame())
    assert active(count=0).meets(frame(b"PING", b""))


def test_a_hit_says_what_it_hit():
    rule = active(command="Ack", nth=2)
    for _ in range(3):
        if rule.meets(frame(key=b"$JS.ACK.1", special=b"Ack")):
            rule.fired(frame(key=b"$JS.ACK.1", special=b"Ack"), 5)
    [hit] = rule.stats.hits
    assert (hit.n, hit.connection, hit.what, hit.key) == (2, 5, "Ack", "$JS.ACK.1")
    assert (rule.stats.firings, rule.stats.affected_bytes) == (1, 10)


def test_hits_are_bounded_and_counted_on():
    rule = active(count=0)
    for _ in range(MAX_HITS + 3):
        rule.meets(frame())
        rule.fired(frame(), 1)
    stats = rule.stats
    assert (len(stats.hits), stats.hits_left_out, stats.firings) == (MAX_HITS, 3, MAX_HITS + 3)


@given(st.floats(1.0, 1e7), st.integers(1, 10_000), st.integers(0, 5_000_000))
def test_a_pacer_keeps_its_rate(bytes_per_s, size, late_ns):
    """Whenever it is asked, late timers included."""
    pacer = Pacer(bytes_per_s)
    now_ns, sent, largest = 0, 0, 0
    while sent < size:
        taken = pacer.take(now_ns, size - sent)
        assert taken > 0
        sent += taken
        largest = max(largest, taken)
        now_ns = pacer.free_ns + late_ns
    # The piece that goes at once, and what one late timer is made up for.
    assert sent <= bytes_per_s * (now_ns - late_ns) / S + 2 * largest + 1


def test_a_match_that_another_rule_had_does_not_use_a_rule_up():
    rule = active(nth=2, count=2, command="PUB")
    met = []
    for number in range(1, 8):
        met.append(rule.meets(frame()))
        if number in (2, 4):
            rule.stats.overruled += 1
    assert met == [False, True, True, True, True, False, False]
    without_end = active(count=0, command="PUB")
    without_end.stats.overruled = 5
    assert all(without_end.meets(frame()) for _ in range(10))
