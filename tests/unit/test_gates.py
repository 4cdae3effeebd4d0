"""Each condition of a gate, violated on purpose: no-go for that reason and no other."""

import math
import random

import msgspec
import pytest

from hookbench.errors import SettingError
from hookbench.ids import uuid7
from hookbench.migration.checks import Answer, GateBounds, Moment, Move
from hookbench.migration.gates import GATES, conditions_of, decide, records_to
from hookbench.migration.phases import Phase
from hookbench.migration.procedures import PROCEDURES, Step
from hookbench.migration.snapshot import (
    Announcement,
    ConsumerView,
    NatsView,
    RedisView,
    Snapshot,
)
from hookbench.queues.authority import Authority
from tests.virtual import FixedClock

NOW_MS = 1_700_000_000_000
MEASURES = "ack_after,done_store,epoch_consumer,leases,read_both"
MOVES = [
    Move(source=source, target=target, moment=moment)
    for (source, target), moments in GATES.items()
    for moment in moments
]
_entropy = random.Random(7)


def made(age_s):
    """The id of a task of that age."""
    wall_ns = (NOW_MS - int(age_s * 1000)) * 1_000_000
    return uuid7(FixedClock(wall_ns=wall_ns), _entropy)


def process(role, phase, number=0, **changes):
    values = {
        "name": f"{role}-{number}",
        "role": role,
        "phase": phase,
        "version": "1.0",
        "measures": MEASURES,
        "task_type": "sync" if role == "worker" else "",
        "authority": "nats" if role == "worker" else "",
        **changes,
    }
    return Announcement(**values)


def stream_of(ids, *, ack_floor=0, delivered=0, **changes):
    """A stream that holds these tasks from sequence 1 on, and its consumer."""
    count = len(ids)
    consumer = ConsumerView(
        name="hook-sync-worker",
        task_type="sync",
        pending=count - delivered,
        ack_pending=delivered - ack_floor,
        ack_floor=ack_floor,
        delivered=delivered,
    )
    values = {
        "sequences": {item: number for number, item in enumerate(ids, 1)},
        "task_types": dict.fromkeys(ids, "sync"),
        "types": {"sync": count} if count else {},
        "messages": count,
        "last_sequence": count,
        "consumers": (consumer,),
        "max_age_s": 604_800.0,
        **changes,
    }
    return NatsView(**values)


def good(move, **changes):
    """A snapshot that every condition of the move is content with."""
    phase = move.source if move.moment is Moment.BEFORE else move.target
    values = {
        "redis": RedisView(used_bytes=10, max_bytes=100),
        "nats": stream_of([]),
        "announcements": tuple(
            process(role, phase, number) for role in ("producer", "worker") for number in range(2)
        ),
        "ended": frozenset(),
        "unmoved": {},
        "wall_ms": NOW_MS,
        "earlier_sequence": 0,
        **changes,
    }
    return Snapshot(**values)


def without(snapshot, *measures):
    """The same with measures off in every process."""
    left = ",".join(item for item in MEASURES.split(",") if item not in measures)
    return msgspec.structs.replace(
        snapshot,
        announcements=tuple(
            msgspec.structs.replace(item, measures=left) for item in snapshot.announcements
        ),
    )


def held(snapshot, move, **bounds):
    """Name and answer of what holds the move back."""
    answer = decide(snapshot, move, GateBounds(**bounds) if bounds else None)
    return {check.name: check.answer for check in answer.holds}


def the_move(source, target, moment=Moment.BEFORE):
    return Move(source=source, target=target, moment=moment)


INTO_READING = the_move(Phase.DUAL_WRITE, Phase.DUAL_READ)
ids = pytest.mark.parametrize("move", MOVES, ids=lambda move: move.label.replace(" ", "-"))


@ids
def test_a_ready_system_may_go(move):
    answer = decide(good(move), move)
    assert answer.holds == ()
    assert answer.answer is Answer.GO
    assert len(answer.checks) == len(conditions_of(move))
    assert all(check.evidence for check in answer.checks)


@ids
@pytest.mark.parametrize("broker", ["redis", "nats"])
def test_a_broker_that_does_not_answer_is_never_go(move, broker):
    snapshot = good(move, **{broker: None, "problems": {broker: "refused"}})
    answer = decide(snapshot, move)
    if broker == "redis" and move.target is Phase.NATS_ONLY and move.moment is Moment.AFTER:
        assert answer.answer is Answer.GO  # Redis may be gone by then
        return
    assert answer.answer is Answer.UNKNOWN
    assert "refused" in answer.evidence
    assert all(check.answer is not Answer.NO_GO for check in answer.checks)


@ids
def test_processes_that_nobody_listened_to_are_unknown(move):
    answer = decide(good(move, announcements=None), move)
    asked = {"no old producer", "homogeneous fleet"} & {check.name for check in answer.checks}
    found = {check.name: check.answer for check in answer.holds}
    assert all(found[name] is Answer.UNKNOWN for name in asked)
    silent = decide(good(move, announcements=()), move)
    assert {check.name for check in silent.holds} >= asked


@ids
def test_an_old_producer_holds_every_gate_that_asks_for_it(move):
    old = process("producer", Phase.REDIS_ONLY, 7)
    snapshot = good(move)
    snapshot = msgspec.structs.replace(snapshot, announcements=(*snapshot.announcements, old))
    answer = decide(snapshot, move)
    asked = "no old producer" in {check.name for check in answer.checks}
    allowed = {move.source, move.target} if move.moment is Moment.BEFORE else {move.target}
    if asked and Phase.REDIS_ONLY not in allowed:
        assert held(snapshot, move) == {"no old producer": Answer.NO_GO}
        assert "producer-7 in redis_only" in answer.evidence
    else:
        assert answer.answer is Answer.GO


def test_a_producer_that_was_not_told_holds_the_way_back():
    move = the_move(Phase.NATS_PRIMARY, Phase.REDIS_ONLY, Moment.AFTER)
    snapshot = good(move)
    late = process("producer", Phase.NATS_PRIMARY, 7)
    snapshot = msgspec.structs.replace(snapshot, announcements=(*snapshot.announcements, late))
    assert held(snapshot, move) == {"no old producer": Answer.NO_GO}


@pytest.mark.parametrize(
    "other", [{"phase": Phase.REDIS_ONLY}, {"version": "0.9"}, {"measures": "read_both"}]
)
def test_a_mixed_fleet_is_no_go(other):
    move = the_move(Phase.DUAL_READ, Phase.NATS_PRIMARY)
    values = {"phase": move.source, **other}
    odd = process("worker", values.pop("phase"), 7, **values)
    snapshot = good(move)
    snapshot = msgspec.structs.replace(snapshot, announcements=(*snapshot.announcements, odd))
    assert held(snapshot, move) == {"homogeneous fleet": Answer.NO_GO}
    assert "worker-7" in decide(snapshot, move).evidence


def test_a_worker_that_stays_behind_is_no_go_before_producers_are_rerouted():
    move = the_move(Phase.DUAL_READ, Phase.NATS_PRIMARY, Moment.BETWEEN)
    stays = process("worker", Phase.DUAL_READ, 7)
    snapshot = good(move)
    snapshot = msgspec.structs.replace(snapshot, announcements=(*snapshot.announcements, stays))
    assert held(snapshot, move) == {"homogeneous fleet": Answer.NO_GO}


def test_a_backlog_that_nobody_will_read_is_no_go():
    task = made(60)
    snapshot = good(INTO_READING, redis=RedisView(pending=(task,)), nats=stream_of([task]))
    assert held(without(snapshot, "read_both"), INTO_READING) == {
        "backlog and orphans": Answer.NO_GO
    }
    assert held(snapshot, INTO_READING) == {}


def test_an_orphan_that_nobody_will_put_back_is_no_go():
    task = made(60)
    snapshot = good(INTO_READING, redis=RedisView(work=(task,)), nats=stream_of([task]))
    assert held(without(snapshot, "leases"), INTO_READING) == {"backlog and orphans": Answer.NO_GO}
    assert str(task) in decide(without(snapshot, "leases"), INTO_READING).evidence
    assert held(snapshot, INTO_READING) == {}


@pytest.mark.parametrize("view", [{"pending": (made(60),)}, {"work": (made(60),)}, {"junk": 1}])
def test_whatever_redis_has_left_is_no_go_where_it_is_not_read_any_more(view):
    move = the_move(Phase.DUAL_READ, Phase.NATS_PRIMARY, Moment.AFTER)
    assert held(good(move, redis=RedisView(**view)), move) == {"backlog and orphans": Answer.NO_GO}


@pytest.mark.parametrize(
    "view", [{"pending": (made(60),)}, {"work": (made(60),)}, {"junk": 1}, {"letters": 1}]
)
def test_redis_must_be_empty_before_it_goes(view):
    move = the_move(Phase.NATS_PRIMARY, Phase.NATS_ONLY, Moment.BETWEEN)
    assert held(good(move, redis=RedisView(**view)), move) == {"redis is empty": Answer.NO_GO}


def test_a_list_that_was_not_read_to_its_end_is_unknown():
    move = the_move(Phase.NATS_PRIMARY, Phase.NATS_ONLY, Moment.BETWEEN)
    snapshot = good(move, redis=RedisView(whole=False))
    assert held(snapshot, move) == {"redis is empty": Answer.UNKNOWN}
    assert "more tasks than a survey reads" in decide(snapshot, move).evidence
    move = INTO_READING
    found = held(good(move, nats=stream_of([], whole=False)), move)
    assert set(found.values()) == {Answer.UNKNOWN}
    assert {"ids reconciled", "watermark", "oldest age"} <= set(found)


@pytest.mark.parametrize(("age_s", "answer"), [(3700, Answer.NO_GO), (3500, Answer.GO)])
def test_a_task_that_waits_for_too_long_is_no_go(age_s, answer):
    task = made(age_s)
    snapshot = good(INTO_READING, redis=RedisView(pending=(task,)), nats=stream_of([task]))
    assert held(snapshot, INTO_READING).get("oldest age", Answer.GO) is answer


def test_the_oldest_age_is_held_against_the_max_age_of_the_stream():
    task = made(90)
    nats = stream_of([task], max_age_s=100.0)
    snapshot = good(INTO_READING, redis=RedisView(pending=(task,)), nats=nats)
    assert held(snapshot, INTO_READING) == {"oldest age": Answer.NO_GO}
    done = msgspec.structs.replace(snapshot, ended=frozenset([task]))
    assert held(done, INTO_READING) == {}


def test_a_task_that_redis_has_alone_is_no_go_forward():
    task = made(60)
    snapshot = without(good(INTO_READING, redis=RedisView(pending=(task,))), "read_both")
    assert held(snapshot, INTO_READING)["ids reconciled"] is Answer.NO_GO
    assert str(task) in decide(snapshot, INTO_READING).evidence
    young = without(good(INTO_READING, redis=RedisView(pending=(made(1),))), "read_both")
    assert "ids reconciled" not in held(young, INTO_READING)
    assert held(good(INTO_READING, redis=RedisView(pending=(task,))), INTO_READING) == {}


@pytest.mark.parametrize("age_s", [60, 1])
def test_a_task_that_nats_has_alone_is_no_go_backward(age_s):
    """A young one as well, which nobody is about to put on Redis any more."""
    task = made(age_s)
    move = the_move(Phase.DUAL_WRITE, Phase.REDIS_ONLY, Moment.AFTER)
    nats = stream_of([task], last_sequence=0)
    snapshot = good(move, nats=nats)
    assert held(snapshot, move) == {"ids reconciled": Answer.NO_GO}
    assert held(good(move, nats=nats, ended=None), move) == {"ids reconciled": Answer.UNKNOWN}
    assert held(good(move, nats=nats, ended=frozenset([task])), move) == {}
    assert held(good(move, nats=nats, redis=RedisView(pending=(task,))), move) == {}


def test_a_young_task_of_a_dual_write_is_on_its_way_while_both_are_written():
    move = the_move(Phase.DUAL_READ, Phase.DUAL_WRITE, Moment.AFTER)
    nats = stream_of([made(1)], last_sequence=0)
    assert held(good(move, nats=nats), move) == {}
    nats = stream_of([made(60)], last_sequence=0)
    assert held(good(move, nats=nats), move) == {"ids reconciled": Answer.NO_GO}


def test_what_a_new_consumer_would_replay_is_no_go():
    done, waiting = made(60), made(50)
    nats = stream_of([done, waiting], consumers=())
    redis = RedisView(pending=(waiting,))
    snapshot = good(INTO_READING, nats=nats, redis=redis, ended=frozenset([done]))
    assert held(snapshot, INTO_READING) == {}  # the epoch consumer begins at 2
    bare = without(snapshot, "epoch_consumer", "done_store")
    assert held(bare, INTO_READING) == {"watermark": Answer.NO_GO}
    assert "the first open one is 2" in decide(bare, INTO_READING).evidence
    unknown = msgspec.structs.replace(bare, ended=None)
    assert held(unknown, INTO_READING) == {"watermark": Answer.UNKNOWN}
    assert held(msgspec.structs.replace(unknown, nats=stream_of([waiting])), INTO_READING) == {}


def test_what_a_consumer_has_delivered_is_not_replayed():
    done = made(60)
    nats = stream_of([done], ack_floor=1, delivered=1)
    snapshot = without(good(INTO_READING, nats=nats, ended=frozenset([done])), "epoch_consumer")
    assert held(without(snapshot, "epoch_consumer", "done_store"), INTO_READING) == {}


def test_many_redeliveries_are_no_go():
    move = the_move(Phase.DUAL_READ, Phase.NATS_PRIMARY)
    consumer = ConsumerView(name="hook-sync-worker", task_type="sync", redelivered=101)
    snapshot = good(move, nats=stream_of([], consumers=(consumer,)))
    assert held(snapshot, move) == {"redeliveries": Answer.NO_GO}
    assert held(snapshot, move, redelivered=101) == {}


def test_a_setting_that_differs_is_no_go():
    snapshot = good(INTO_READING, nats=stream_of([], drift=("max_age: wanted 7, found 1",)))
    assert held(snapshot, INTO_READING) == {"configuration": Answer.NO_GO}
    assert "wanted 7, found 1" in decide(snapshot, INTO_READING).evidence


@pytest.mark.parametrize(
    "changes",
    [
        {"redis": RedisView(used_bytes=81, max_bytes=100)},
        {"redis": RedisView(policy="allkeys-lru")},
        {"nats": stream_of([], messages=81, max_messages=100)},
        {"nats": stream_of([], size_bytes=81, max_bytes=100)},
    ],
)
def test_a_broker_without_room_is_no_go(changes):
    move = the_move(Phase.REDIS_ONLY, Phase.DUAL_WRITE)
    assert held(good(move, **changes), move) == {"head-room": Answer.NO_GO}


def test_records_that_redis_alone_has_are_no_go_before_it_goes():
    move = the_move(Phase.NATS_PRIMARY, Phase.NATS_ONLY, Moment.BETWEEN)

    def on(authority, unmoved=None, **changes):
        snapshot = good(move, unmoved=unmoved)
        return msgspec.structs.replace(
            snapshot,
            announcements=tuple(
                msgspec.structs.replace(item, authority=authority, **changes)
                for item in snapshot.announcements
            ),
        )

    task = made(60)
    for age_s in (5.1, math.inf):
        assert held(on("redis", {task: age_s}), move) == {"authority": Answer.NO_GO}
    assert str(task) in decide(on("redis", {task: 5.1}), move).evidence
    assert held(on("redis"), move) == {"authority": Answer.UNKNOWN}
    assert held(on("redis", {}), move) == {}
    assert held(on("nats"), move) == {}
    # Done since the copy, whenever they were put.
    assert held(on("redis", {made(1): 4.9, made(600): 0.0}), move) == {}
    assert held(on("redis", {made(1): 4.9, task: 5.1}), move) == {"authority": Answer.NO_GO}
    after = the_move(Phase.NATS_PRIMARY, Phase.NATS_ONLY, Moment.AFTER)
    for age_s in (0.0, 4.9):
        assert held(good(after, unmoved={task: age_s}), after) == {"authority": Answer.NO_GO}
    assert held(on("", measures="none"), move) == {}
    producers = msgspec.structs.replace(
        good(move), announcements=(process("producer", Phase.NATS_PRIMARY),)
    )
    # Those that have stopped may have claimed, and so may those that start next.
    assert held(producers, move) == {"authority": Answer.UNKNOWN}


@pytest.mark.parametrize(
    ("target", "moment"),
    [(Phase.NATS_PRIMARY, Moment.AFTER), (Phase.REDIS_ONLY, Moment.BETWEEN)],
)
def test_records_that_nats_alone_has_are_no_go_on_the_way_back(target, moment):
    move = the_move(Phase.NATS_ONLY, target, moment)
    for age_s in (0.0, 5.1, math.inf):
        snapshot = good(move, unmoved={made(60): age_s})
        assert held(snapshot, move) == {"authority": Answer.NO_GO}
        assert "on NATS and not on Redis" in decide(snapshot, move).evidence
    assert held(good(move, unmoved=None), move) == {"authority": Answer.UNKNOWN}
    assert held(good(move, unmoved={}), move) == {}


@pytest.mark.parametrize("source", [Phase.DUAL_READ, Phase.NATS_PRIMARY, Phase.NATS_ONLY])
def test_what_a_consumer_has_forgotten_is_no_go(source):
    move = the_move(source, Phase.REDIS_ONLY, Moment.AFTER)
    task, ended, listed = made(60), made(61), made(0)
    ids = [task, ended, listed]
    nats = stream_of(ids, ack_floor=3, delivered=3)
    redis = RedisView(pending=(listed,), used_bytes=10, max_bytes=100)
    snapshot = good(move, nats=nats, redis=redis, ended=frozenset([ended]), earlier_sequence=3)
    assert held(snapshot, move) == {"forgotten tasks": Answer.NO_GO}
    assert str(task) in decide(snapshot, move).evidence
    assert held(msgspec.structs.replace(snapshot, ended=frozenset([ended, task])), move) == {}
    assert held(msgspec.structs.replace(snapshot, ended=None), move) == {}


def test_the_records_of_which_store_are_compared_follows_the_way():
    forward = the_move(Phase.NATS_PRIMARY, Phase.NATS_ONLY, Moment.AFTER)
    back = the_move(Phase.NATS_ONLY, Phase.NATS_PRIMARY, Moment.AFTER)
    assert records_to(forward) is Authority.NATS
    assert records_to(back) is Authority.REDIS
    assert records_to(the_move(Phase.NATS_ONLY, Phase.NATS_PRIMARY)) is None


def test_a_type_without_a_consumer_is_no_go():
    nats = stream_of([], types={"fsck": 3})
    assert held(good(INTO_READING, nats=nats), INTO_READING) == {"task types": Answer.NO_GO}
    redis = RedisView(types=frozenset(["gc"]))
    assert held(good(INTO_READING, redis=redis), INTO_READING) == {"task types": Answer.NO_GO}
    consumers = (ConsumerView(name="all"),)
    assert (
        held(
            good(INTO_READING, nats=stream_of([], types={"fsck": 3}, consumers=consumers)),
            INTO_READING,
        )
        == {}
    )


def test_copies_of_finished_tasks_are_no_go_on_the_way_back():
    move = the_move(Phase.DUAL_READ, Phase.REDIS_ONLY, Moment.BETWEEN)
    by_nats, by_store, waiting = made(60), made(50), made(40)
    redis = RedisView(pending=(by_nats, by_store, waiting))
    nats = stream_of([by_nats], ack_floor=1, delivered=1)
    snapshot = good(move, redis=redis, nats=nats, ended=frozenset([by_store]))
    assert held(snapshot, move) == {}  # every worker asks the done-store
    bare = without(snapshot, "done_store")
    assert held(bare, move) == {"copies of finished tasks": Answer.NO_GO}
    (check,) = decide(bare, move).holds
    assert set(check.ids) == {str(by_nats), str(by_store)}
    clean = good(move, redis=RedisView(pending=(waiting,)), nats=nats)
    assert held(without(clean, "done_store"), move) == {}


def test_what_nats_waits_for_may_be_finished_or_not():
    move = the_move(Phase.DUAL_READ, Phase.DUAL_WRITE)
    task = made(60)
    snapshot = good(
        move, redis=RedisView(pending=(task,)), nats=stream_of([task], ack_floor=0, delivered=1)
    )
    assert held(without(snapshot, "done_store"), move) == {
        "copies of finished tasks": Answer.UNKNOWN
    }


@pytest.mark.parametrize(
    "nats",
    [
        stream_of([made(60)]),
        stream_of([made(60)], delivered=1),
        stream_of([], types={"fsck": 2}),
    ],
)
def test_what_is_left_on_nats_is_no_go_on_the_way_back(nats):
    move = the_move(Phase.NATS_ONLY, Phase.REDIS_ONLY, Moment.AFTER)
    snapshot = good(move, nats=msgspec.structs.replace(nats, last_sequence=0), ended=None)
    assert held(snapshot, move) == {"nats drained": Answer.NO_GO}


@pytest.mark.parametrize("moment", [Moment.BETWEEN, Moment.AFTER])
def test_a_consumer_that_was_made_anew_has_pending_what_has_ended(moment):
    """And what Redis has: nobody needs a reader of NATS for either."""
    move = the_move(Phase.DUAL_READ, Phase.REDIS_ONLY, moment)
    done, waiting, alone = made(60), made(50), made(40)

    def held_with(*tasks, **changes):
        nats = msgspec.structs.replace(stream_of([*tasks]), last_sequence=0, **changes)
        redis = RedisView(pending=(waiting,))
        return held(good(move, redis=redis, nats=nats, ended=frozenset([done])), move)

    assert held_with(done, waiting) == {}
    drained = {"nats drained": Answer.NO_GO}
    assert held_with(done, waiting, whole=False).items() >= drained.items()
    found = held_with(done, waiting, alone)
    assert found.items() >= drained.items()
    handed_out = msgspec.structs.replace(stream_of([done], delivered=1), last_sequence=0)
    snapshot = good(move, nats=handed_out, ended=frozenset([done]))
    assert held(snapshot, move) == drained  # a worker has it in hand


def test_a_late_publish_is_no_go():
    move = the_move(Phase.NATS_PRIMARY, Phase.REDIS_ONLY, Moment.AFTER)
    nats = stream_of([], last_sequence=12)
    assert held(good(move, nats=nats, earlier_sequence=10), move) == {
        "late publishes": Answer.NO_GO
    }
    assert held(good(move, nats=nats, earlier_sequence=-1), move) == {
        "late publishes": Answer.UNKNOWN
    }
    assert held(good(move, nats=nats, earlier_sequence=12), move) == {}


def test_no_go_outweighs_unknown():
    nats = stream_of([], drift=("max_age",))
    answer = decide(good(INTO_READING, nats=nats, announcements=None), INTO_READING)
    assert answer.answer is Answer.NO_GO


def test_a_way_that_no_guide_knows_is_named():
    with pytest.raises(SettingError, match=r"redis_only to nats_only: no such transition"):
        decide(good(INTO_READING), the_move(Phase.REDIS_ONLY, Phase.NATS_ONLY))
    with pytest.raises(SettingError, match="asked before, after only"):
        decide(good(INTO_READING), the_move(Phase.DUAL_WRITE, Phase.DUAL_READ, Moment.BETWEEN))


def test_every_gate_has_a_procedure_that_asks_it():
    assert set(PROCEDURES) == set(GATES)
    asks = {Moment(step.removeprefix("ask_")): step for step in Step if step.startswith("ask_")}
    for way, moments in GATES.items():
        steps = PROCEDURES[way]
        assert {asks[moment] for moment in moments} == {
            step for step in steps if step in asks.values()
        }
        assert steps[0] is Step.ASK_BEFORE
