"""The simulated Redis and a real one are given the same commands: every answer, and every key.

What differs by nature is masked: the time, so numbers of twelve digits and more, and how long
something has been idle. So what depends on time passing is for the contract suite.
"""

import re
import uuid

import pytest
import redis
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
)
from redis.exceptions import ResponseError

from hookbench.queues import redis_absent, redis_done_scripts, redis_list, redis_scripts
from hookbench.queues import redis_stream as stream_queue
from hookbench.sim.loop import SimulatedLoop
from hookbench.sim.network import Node
from hookbench.sim.redis.client import encode, exceptions_in, parse_error
from hookbench.sim.redis.replies import CommandError
from hookbench.sim.redis.scripts import ScriptEngine
from hookbench.sim.redis.server import RedisServer
from tests.sim.conformance import check_conformance

EXAMPLES, STEPS = 60, 40
TIMES = re.compile(rb"-?\d{12,}(-\d+)?")
LEAST_TIME = 10**11

PAYLOADS = [
    b'{"id":"018bcfe5-6800-752e-89a7-834df2a74de4","retry_count":0}',
    b'{"id": "018bcfe5-6800-752e-89a7-834df2a74de5"}',
    b"junk",
    b"",
]
LISTS = ["pending", "work", "own"]
KINDS = ["pending", "hash", "zset", "stream", "text"]


class _Answers:
    """A connection whose answers are read at once."""

    def __init__(self):
        self.answers = []

    def answer(self, replies):
        self.answers += replies


class Simulated:
    """A server that is asked without a network."""

    def __init__(self):
        self.loop = SimulatedLoop()
        self._node = Node("redis")
        self._server = RedisServer(self.loop, self._node, ScriptEngine())
        self._node.start(self._server)
        self._connection = _Answers()
        self._session = self._server.accept(self._connection)

    def ask(self, *words):
        self.loop.now_ns += 1_000_000
        self._session.on_message([encode(words)])
        (reply,) = self._connection.answers
        self._connection.answers.clear()
        return parse_error(reply) if isinstance(reply, CommandError) else exceptions_in(reply)

    def log(self):
        return self._server.log

    def close(self):
        self.loop.close()


class Real:
    """A real server, asked over a bare connection, so that no answer is made over."""

    def __init__(self, url):
        self._connection = redis.ConnectionPool.from_url(url, protocol=2).make_connection()
        self._connection.connect()

    def ask(self, *words):
        self._connection.send_command(*words)
        try:
            return self._connection.read_response()
        except ResponseError as error:
            return error

    def close(self):
        self._connection.disconnect()


def plain(reply):
    """An answer without what is different by nature."""
    if isinstance(reply, Exception):
        text = str(reply).partition(" script: ")[0]
        return type(reply).__name__, re.sub(r"^user_script:\d+: |^\S+:\d+: ", "", text)
    if isinstance(reply, list):
        return [plain(item) for item in reply]
    if isinstance(reply, bytes):
        return TIMES.sub(b"<time>", bytes(reply))
    if isinstance(reply, int) and abs(reply) >= LEAST_TIME:
        return "<time>"
    return reply


ids = st.tuples(st.integers(0, 6), st.integers(0, 2)).map(lambda pair: f"{pair[0]}-{pair[1]}")
payloads = st.sampled_from(PAYLOADS)
places = st.integers(-4, 4)


class Conformance(RuleBasedStateMachine):
    """Both are asked the same, and must answer the same."""

    url = ""
    asked = 0

    def __init__(self):
        super().__init__()
        self.simulated = Simulated()
        self.real = Real(self.url)
        self.prefix = f"{{{uuid.uuid4().hex}}}:"
        self.used = {}

    def key(self, name):
        self.used[name] = None
        return self.prefix + name

    def both(self, *words):
        type(self).asked += 1
        expected, found = plain(self.real.ask(*words)), plain(self.simulated.ask(*words))
        assert found == expected, f"{words}: simulated {found!r}, real {expected!r}"
        return expected

    @initialize()
    def has_a_group(self):
        self.both("XGROUP CREATE", self.key("stream"), "g", "0", "MKSTREAM")

    @rule(
        name=st.sampled_from(LISTS),
        side=st.sampled_from(["LPUSH", "RPUSH"]),
        items=st.lists(payloads, min_size=1, max_size=3),
    )
    def push(self, name, side, items):
        self.both(side, self.key(name), *items)

    @rule(
        source=st.sampled_from(LISTS),
        goal=st.sampled_from(LISTS),
        sides=st.tuples(*[st.sampled_from(["LEFT", "RIGHT", "left", "MIDDLE"])] * 2),
    )
    def move(self, source, goal, sides):
        self.both("LMOVE", self.key(source), self.key(goal), *sides)

    @rule(name=st.sampled_from(KINDS), count=places, item=payloads)
    def remove(self, name, count, item):
        self.both("LREM", self.key(name), count, item)

    @rule(name=st.sampled_from(KINDS), start=places, stop=places)
    def look(self, name, start, stop):
        self.both("LRANGE", self.key(name), start, stop)
        self.both("LINDEX", self.key(name), start)
        self.both("LLEN", self.key(name))

    @rule(name=st.sampled_from(LISTS), place=places, item=payloads, most=st.integers(0, 3))
    def write_over(self, name, place, item, most):
        self.both("LSET", self.key(name), place, item)
        self.both("LPOS", self.key(name), item)
        self.both("LPOS", self.key(name), item, "MAXLEN", most)

    @rule(
        name=st.sampled_from(["text", "hash"]),
        value=st.sampled_from([b"1", b"-7", b"x", b"007", b""]),
        options=st.sampled_from(
            [
                [],
                ["NX"],
                ["XX"],
                ["PX", "100000"],
                ["PX", "0"],
                ["PX", "x"],
                ["NX", "XX"],
                ["EX", "100", "NX"],
            ]
        ),
    )
    def set_text(self, name, value, options):
        self.both("SET", self.key(name), value, *options)
        self.both("GET", self.key(name))
        self.both("INCR", self.key("text"))

    @rule(name=st.sampled_from(KINDS), ms=st.sampled_from([-5, 100_000]))
    def expire(self, name, ms):
        self.both("PEXPIRE", self.key(name), ms)
        self.both("EXISTS", self.key(name), self.key("text"))
        self.both("TYPE", self.key(name))

    @rule(name=st.sampled_from(KINDS))
    def delete(self, name):
        self.both("DEL", self.key(name), self.key("other"))

    @rule(
        field=st.sampled_from(["a", "b"]),
        amount=st.sampled_from(["1", "-3", "x", "9223372036854775807"]),
        value=payloads,
    )
    def hash_fields(self, field, amount, value):
        key = self.key("hash")
        self.both("HINCRBY", key, field, amount)
        self.both("HSET", key, "c", value)
        self.both("HGET", key, field)
        self.both("HLEN", key)

    @rule(fields=st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=3))
    def hash_remove(self, fields):
        self.both("HDEL", self.key("hash"), *fields)

    @rule(
        pairs=st.lists(
            st.tuples(st.sampled_from(["-1", "0", "2", "2.5", "1e3", "x"]), st.sampled_from("abc")),
            min_size=1,
            max_size=3,
        ),
        low=st.sampled_from(["-inf", "0", "(0", "2", "z"]),
        high=st.sampled_from(["+inf", "2", "(2", "-1"]),
        limit=st.sampled_from([[], ["LIMIT", "0", "1"], ["LIMIT", "1", "-1"], ["WITHSCORES"]]),
    )
    def sorted_set(self, pairs, low, high, limit):
        key = self.key("zset")
        self.both("ZADD", key, *[word for pair in pairs for word in pair])
        self.both("ZSCORE", key, "a")
        self.both("ZRANGEBYSCORE", key, low, high, *limit)
        self.both("ZCOUNT", key, low, high)
        self.both("ZREM", key, pairs[0][1])

    @rule(
        name=st.sampled_from(["set", "zset", "text"]),
        members=st.lists(st.sampled_from("abc"), min_size=1, max_size=2),
    )
    def sets(self, name, members):
        key = self.key(name)
        self.both("SADD", key, *members)
        self.both("SISMEMBER", key, "a")
        self.both("SREM", key, members[0])
        self.both("SCARD", key)
        self.both("ZCARD", key)
        told = [plain(server.ask("SMEMBERS", key)) for server in (self.real, self.simulated)]
        assert sorted(told[1]) == sorted(told[0])
        self.both("SCAN", "0", "MATCH", f"{key}*", "COUNT", "100000000")

    @rule(entry=ids, options=st.sampled_from([[], ["MINID", "2"], ["MINID", "=", "3-1"]]))
    def add_entry(self, entry, options):
        self.both("XADD", self.key("stream"), *options, entry, "task", "x")

    @rule(name=st.sampled_from(["stream", "pending"]))
    def add_entry_now(self, name):
        self.both("XADD", self.key(name), "*", "task", "x")

    @rule(entries=st.lists(ids, min_size=1, max_size=3))
    def delete_entries(self, entries):
        self.both("XDEL", self.key("stream"), *entries)

    @rule(entry=ids)
    def set_last_id(self, entry):
        self.both("XSETID", self.key("stream"), entry)

    @rule(
        low=st.sampled_from(["-", "1", "(1-1", "3-0", "x"]),
        high=st.sampled_from(["+", "4", "(4-0", "2-1"]),
        count=st.integers(0, 3),
    )
    def read_range(self, low, high, count):
        self.both("XRANGE", self.key("stream"), low, high, "COUNT", count)
        self.both("XREVRANGE", self.key("stream"), high, low, "COUNT", count)
        self.both("XLEN", self.key("stream"))

    @rule(group=st.sampled_from(["g", "h"]), start=st.sampled_from(["0", "$", "2-1"]))
    def create_group(self, group, start):
        self.both("XGROUP CREATE", self.key("stream"), group, start)

    @rule(
        group=st.sampled_from(["g", "h"]),
        consumer=st.sampled_from("ab"),
        count=st.integers(0, 3),
        start=st.sampled_from([">", ">", "0"]),
    )
    def read_group(self, group, consumer, count, start):
        self.both(
            "XREADGROUP",
            "GROUP",
            group,
            consumer,
            "COUNT",
            count,
            "STREAMS",
            self.key("stream"),
            start,
        )

    @rule(group=st.sampled_from(["g", "h"]), entries=st.lists(ids, min_size=1, max_size=3))
    def acknowledge(self, group, entries):
        self.both("XACK", self.key("stream"), group, *entries)

    @rule(
        group=st.sampled_from(["g", "h"]),
        consumer=st.sampled_from("ab"),
        idle=st.sampled_from([0, 10_000_000]),
        entries=st.lists(ids, min_size=1, max_size=2),
        options=st.sampled_from([[], ["JUSTID"], ["IDLE", "5000"], ["SO"]]),
    )
    def claim(self, group, consumer, idle, entries, options):
        self.both("XCLAIM", self.key("stream"), group, consumer, idle, *entries, *options)

    @rule(
        group=st.sampled_from(["g", "h"]),
        idle=st.sampled_from([0, 10_000_000]),
        start=st.sampled_from(["0-0", "2-0", "(1-1"]),
        count=st.integers(1, 2),
    )
    def claim_stale(self, group, idle, start, count):
        self.both("XAUTOCLAIM", self.key("stream"), group, "b", idle, start, "COUNT", count)

    @rule(
        owner=st.sampled_from("ab"),
        limit=st.integers(0, 3),
        payload=payloads,
        new=st.sampled_from("01"),
    )
    def scripts_of_leases(self, owner, limit, payload, new):
        pending, own = self.key("pending"), self.key("own")
        leases, attempts = self.key("leases"), self.key("attempts")
        evals = [
            (redis_scripts.TEND, [leases, own], [owner, 60_000, new, 10]),
            (redis_scripts.CLAIM, [pending, own, leases, attempts], [owner, limit, "0", ""]),
            (redis_scripts.SETTLE, [own, attempts], [payload]),
            (redis_scripts.NAK, [own, pending, attempts], [payload]),
            (redis_scripts.RETURN, [own, pending], [payload, payload]),
            (redis_scripts.CLAIM_PLAIN, [pending, self.key("work")], [limit]),
            (redis_scripts.DEPTH, [pending, self.key("work"), leases], []),
            (redis_list._REQUEUE, [self.key("work"), pending], [payload, b"again", 1, new]),
            (redis_absent._PUSH_IF_ABSENT, [pending, own], [payload, 10, 0]),
        ]
        for script, keys, arguments in evals:
            text = redis_scripts.at_maxmemory(script) if limit % 2 else script
            self.both("EVAL", text, len(keys), *keys, *arguments)

    @rule(
        owner=st.sampled_from("ab"),
        forget=st.sampled_from("01"),
        after=st.sampled_from([0, 60_000]),
    )
    def scripts_of_the_reaper(self, owner, forget, after):
        pending, own = self.key("pending"), self.key("own")
        leases, attempts = self.key("leases"), self.key("attempts")
        for script, keys, arguments in [
            (redis_scripts.REAP, [leases, own, pending, attempts], [owner, 2, after]),
            (
                redis_scripts.ADOPT,
                [self.key("seen"), self.key("work"), pending, attempts],
                [3, after],
            ),
            (redis_scripts.RELEASE, [own, pending, leases], [owner, 2, forget]),
        ]:
            self.both("EVAL", script, len(keys), *keys, *arguments)

    @rule(entry=ids, attempt=st.integers(1, 2), field=st.sampled_from(["task"]))
    def scripts_of_streams(self, entry, attempt, field):
        stream = self.key("stream")
        self.both("EVAL", stream_queue._SET_IDLE, 1, stream, "g", "a", entry, attempt, 500)
        self.both("EVAL", stream_queue._ADD, 1, stream, "x", field, 0, 10)

    @rule(
        what=st.sampled_from(["claim", "complete", "renew", "release"]),
        task=st.integers(0, 1),
        owner=st.sampled_from("ab"),
        born=st.sampled_from([0, 5, 6]),
        most=st.sampled_from([0, 2]),
    )
    def ask_the_done_store(self, what, task, owner, born, most):
        """The tokens are times, so the real one's is asked for and given to both, each its own."""
        keys = [self.key("token"), self.key("log"), self.key(f"task{task}"), self.key("last")]
        told = []
        for server in (self.real, self.simulated):
            raw = server.ask("GET", keys[2]) or b"|0"
            token = raw.split(b"|")[1]
            asked = [
                b"%016d" % task,
                what,
                token,
                60_000_000,
                owner,
                b"why" * (most > 0),
                born,
                0,
                most,
            ]
            script = redis_done_scripts.ASK
            (answer,) = server.ask("EVAL", script, 4, *keys, 3_600_000, 0, *asked)
            answer[2] = answer[2] != b"0"  # how long a claim lasts
            told.append(plain(answer))
        assert told[1] == told[0], f"{what}: simulated {told[1]!r}, real {told[0]!r}"
        self.both("EVAL", redis_done_scripts.READ, 2, keys[2], keys[3])
        self.both("EVAL", redis_done_scripts.LOG_END, 1, keys[1])

    @rule(task=st.integers(0, 1))
    def forget(self, task):
        keys = [self.key("log"), self.key(f"task{task}")]
        self.both("EVAL", redis_done_scripts.FORGET, 2, *keys, 3_600_000, b"%016d" % task)

    @rule(
        commands=st.lists(
            st.sampled_from(
                [
                    ("LPUSH", "pending", "x"),
                    ("LPUSH", "text", "x"),
                    ("NOPE", "pending"),
                    ("GET", "text"),
                    ("BLMOVE", "pending", "own", "LEFT", "LEFT", "0"),
                ]
            ),
            max_size=3,
        )
    )
    def transaction(self, commands):
        self.both("MULTI")
        for name, *words in commands:
            keys = [self.key(word) if word in (*LISTS, "text") else word for word in words]
            self.both(name, *keys)
        self.both("EXEC")

    @precondition(lambda self: self.used)
    @rule()
    def compare_all(self):
        """Everything that can be seen of every key."""
        for name in self.used:
            key = self.prefix + name
            kind = self.both("TYPE", key)
            if kind == b"list":
                self.both("LRANGE", key, 0, -1)
            elif kind == b"string":
                self.both("GET", key)
            elif kind == b"zset" and name == "leases":
                self.compare_leases(key)
            elif kind == b"zset":
                self.both("ZRANGE", key, 0, -1, "WITHSCORES")
            elif kind == b"hash":
                fields = [server.ask("HGETALL", key) for server in (self.real, self.simulated)]
                real, simulated = (dict(zip(item[::2], item[1::2], strict=True)) for item in fields)
                assert sorted(simulated) == sorted(real)
                assert plain(sorted(simulated.values())) == plain(sorted(real.values()))
            elif kind == b"stream":
                self.compare_stream(key)
        found = [
            plain(sorted(server.ask("KEYS", f"{self.prefix}*")))
            for server in (self.real, self.simulated)
        ]
        assert found[1] == found[0], f"simulated {found[1]!r}, real {found[0]!r}"

    def compare_leases(self, key):
        """Two that were taken in one millisecond are in another order."""
        real, simulated = (
            server.ask("ZRANGE", key, 0, -1, "WITHSCORES") for server in (self.real, self.simulated)
        )
        signs = [
            sorted(zip(told[::2], [score.startswith(b"-") for score in told[1::2]], strict=True))
            for told in (real, simulated)
        ]
        assert signs[1] == signs[0]

    def compare_stream(self, key):
        self.both("XRANGE", key, "-", "+")
        self.both("XINFO GROUPS", key)
        told = [
            dict(zip(item[::2], item[1::2], strict=True))
            for item in (
                plain(server.ask("XINFO STREAM", key)) for server in (self.real, self.simulated)
            )
        ]
        assert told[1] == {name: told[0][name] for name in told[1]}, (
            f"simulated {told[1]!r}, real {told[0]!r}"
        )
        for group in ("g", "h"):
            self.both("XPENDING", key, group)
            real, simulated = (
                server.ask("XPENDING", key, group, "-", "+", 10)
                for server in (self.real, self.simulated)
            )
            if isinstance(real, Exception):
                assert plain(simulated) == plain(real), f"simulated {simulated!r}, real {real!r}"
            else:
                assert _held(simulated) == _held(real), f"simulated {simulated!r}, real {real!r}"

    def teardown(self):
        self.compare_all()
        if self.used:
            self.real.ask("DEL", *(self.prefix + name for name in self.used))
        self.real.close()
        self.simulated.close()


def _held(pending):
    """What is pending, without how long it has been idle."""
    return [plain([*item[:2], item[3]]) for item in pending]


@pytest.mark.timeout(600)
def test_the_same_commands_have_the_same_answers(redis_broker):
    check_conformance(Conformance, redis_broker.url, examples=EXAMPLES, steps=STEPS)
