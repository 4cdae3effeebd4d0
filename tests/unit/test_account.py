"""Each finding has a history that shows it, and one beside it that does not."""

import pytest

from hookbench.ledger.events import Broker, Event
from hookbench.ledger.latency import decode_histogram, merge_histograms
from hookbench.ledger.model import Place, Verdict
from tests.histories import BACK, FORWARD, MS, History, task_id

NOT_TOLD = (4, 7)
"""These histories have neither effects nor repositories, and are asked about neither."""


@pytest.fixture
def history(tmp_path):
    return History(tmp_path)


def row(account, name):
    (found,) = [item for item in account.rows if item.name == name]
    return found


def hazards(account):
    """Hazard, row and count of what was found, but for what has no cause (invariant 8)."""
    return [
        (finding.hazard, finding.row, finding.count)
        for finding in account.findings
        if finding.invariant != 8
    ]


def test_a_clean_history_is_valid_in_every_row(history):
    history.put(1, step=0)
    history.work(1, step=0)
    history.put(2, step=3, redis=False, nats=1)
    history.work(2, step=3, broker=Broker.NATS)
    account = history.account(without=NOT_TOLD)
    assert {item.verdict for item in account.rows} == {Verdict.VALID}
    assert account.findings == []
    assert (account.tasks, account.accepted, account.done, account.lost, account.stuck) == (
        2,
        2,
        2,
        0,
        0,
    )
    assert row(account, "redis_only").tasks == 1
    assert row(account, "redis_only").enqueue_ns["p50"] == 3 * MS
    assert row(account, "redis_only").end_to_end_ns["max"] == 5 * MS


def test_a_replay_counts_for_the_transition_that_began_to_read_nats(history):
    for number in (1, 2, 3):
        history.put(number, step=1, nats=number)
        history.work(number, step=1)
    for number in (1, 2, 3):
        history.work(number, step=2, broker=Broker.NATS)
    account = history.account()
    assert hazards(account) == [("P5", "→ dual_read", 3)]
    assert str(task_id(1)) in account.findings[0].examples
    assert row(account, "→ dual_read").verdict is Verdict.INVALID
    assert row(account, "→ dual_read").duplicated == 3
    assert row(account, "dual_write").verdict is not Verdict.INVALID
    assert account.duplicated == 3


def test_a_replay_that_goes_on_into_the_next_phase_still_counts_for_its_transition(history):
    history.put(1, step=1, nats=1)
    history.work(1, step=1)
    history.work(1, step=3, broker=Broker.NATS)
    assert hazards(history.account()) == [("P5", "→ dual_read", 1)]


def test_a_repeat_without_a_crash_is_unexplained(history):
    history.put(1, step=3, redis=False, nats=1)
    history.work(1, step=3, broker=Broker.NATS)
    history.work(1, step=3, broker=Broker.NATS, attempt=2)
    account = history.account()
    assert hazards(account) == [("-", "nats_primary", 1)]
    assert row(account, "nats_primary").redelivered == 1


def test_a_repeat_after_a_crash_before_the_ack_is_explained(history):
    history.put(1, step=3, redis=False, nats=1)
    history.work(1, step=3, broker=Broker.NATS, who="worker.2", ack=False)
    history.work(1, step=3, broker=Broker.NATS, who="worker.3", attempt=2)
    account = history.account(crashed=["worker.2"])
    assert account.findings == []
    assert (account.duplicated, account.explained) == (1, 1)
    assert row(account, "nats_primary").verdict is not Verdict.INVALID


def test_a_repeat_after_a_crash_behind_the_ack_is_unexplained(history):
    history.put(1, step=3, redis=False, nats=1)
    history.work(1, step=3, broker=Broker.NATS, who="worker.2", ack=True)
    history.work(1, step=3, broker=Broker.NATS, who="worker.3", attempt=2)
    account = history.account(crashed=["worker.2"])
    assert account.explained == 0
    assert row(account, "nats_primary").verdict is Verdict.INVALID


def test_a_crash_after_an_early_ack_is_a_loss(history):
    history.put(1, step=3, redis=False, nats=1)
    history.consumer = {"delivered_sequence": 1, "ack_floor_sequence": 1}
    history.take(1, step=3, broker=Broker.NATS)
    history.say("worker.2", Event.ACK_SENT, 1, step=3, broker=Broker.NATS)
    account = history.account(crashed=["worker.2"])
    assert hazards(account) == [("P10", "nats_primary", 1)]
    assert account.lost == 1
    (crash,) = account.crashes
    assert (crash.in_hand, crash.lost, crash.stuck, crash.done_by_others) == (1, 1, 0, 0)


def test_a_crash_with_a_task_in_the_work_list_is_stuck(history):
    history.put(1, step=0)
    history.take(1, step=0)
    history.lies(Place.REDIS_WORK, 1)
    account = history.account(crashed=["worker.2"])
    assert hazards(account) == [("R3", "redis_only", 1)]
    assert row(account, "redis_only").stuck == {"redis-work/orphaned": 1}
    assert account.lost == 0
    assert account.crashes[0].stuck == 1


def test_what_another_worker_ended_is_neither_lost_nor_stuck(history):
    history.put(1, step=3, redis=False, nats=1)
    history.take(1, step=3, broker=Broker.NATS, who="worker.2")
    history.work(1, step=3, broker=Broker.NATS, who="worker.3", attempt=2)
    account = history.account(crashed=["worker.2"])
    assert account.findings == []
    assert account.crashes[0].done_by_others == 1


def test_a_task_that_only_the_redis_list_holds_is_stuck(history):
    history.put(1, step=0)
    history.lies(Place.REDIS_PENDING, 1)
    assert hazards(history.account()) == [("P6", "redis_only", 1)]


def test_copies_of_finished_tasks_are_left_behind(history):
    history.put(1, step=2, nats=1)
    history.work(1, step=2, broker=Broker.NATS)
    history.lies(Place.REDIS_PENDING, 1)
    account = history.account()
    assert hazards(account) == [("P8", "dual_read", 1)]
    assert row(account, "dual_read").left == 1
    assert row(account, "dual_read").stuck == {}


@pytest.mark.parametrize(
    ("consumer", "key"),
    [
        ({"delivered_sequence": 4, "ack_floor_sequence": 4}, "stream/never-read"),
        (
            {"delivered_sequence": 9, "ack_floor_sequence": 4, "ack_pending": 1},
            "consumer-pending/ack-pending",
        ),
    ],
)
def test_a_task_that_the_stream_holds_is_stuck_where_it_lies(history, consumer, key):
    history.put(1, step=3, redis=False, nats=5)
    history.consumer = consumer
    account = history.account()
    assert row(account, "nats_primary").stuck == {key: 1}
    assert account.lost == 0


def test_a_task_in_the_stream_behind_the_ack_floor_is_lost(history):
    history.put(1, step=3, redis=False, nats=5)
    history.consumer = {"delivered_sequence": 9, "ack_floor_sequence": 9}
    account = history.account()
    assert account.lost == 1
    assert row(account, "nats_primary").verdict is Verdict.INVALID


def test_a_task_in_the_spool_is_stuck(history):
    history.put(1, step=0, redis=True)
    history.lies(Place.SPOOL, 1)
    assert row(history.account(), "redis_only").stuck == {"spool/never-read": 1}


def test_what_the_caller_was_not_promised_may_be_missing(history):
    history.put(1, step=0, redis=False, accepted=False)
    history.say("producer.1", Event.REFUSED, 1, step=0)
    history.put(2, step=0, redis=False, accepted=False)
    history.say("producer.1", Event.DOUBTFUL, 2, step=0)
    account = history.account()
    assert account.findings == []
    assert (account.refused, account.doubtful, account.lost) == (1, 1, 0)


def test_a_dead_letter_is_an_end(history):
    history.put(1, step=0)
    history.take(1, step=0)
    history.say("worker.2", Event.DEAD, 1, step=0, broker=Broker.REDIS)
    account = history.account()
    assert account.findings == []
    assert account.dead == 1


def test_junk_is_counted_apart(history):
    history.clock.now_ns += MS
    history.writer("worker.2").record(Event.DEAD, broker=Broker.REDIS)
    account = history.account()
    assert (account.junk, account.dead, account.tasks) == (1, 0, 0)


def test_pushed_tasks_are_counted_apart_from_synthetic_ones(history):
    history.put(1, step=0, who="hook-77.7")
    history.work(1, step=0)
    account = history.account()
    assert account.pushed_tasks == 1
    assert account.push_to_done_ns["max"] == 5 * MS
    assert row(account, "redis_only").enqueue_ns is None


def test_the_longest_gap_around_a_transition(history):
    for _ in range(3):
        history.put(1, step=0)
    history.clock.now_ns = 1_100 * MS
    history.put(2, step=1)
    account = history.account()
    # accepted puts at 1,009 and 1,103 ms; the window of 50 ms around 1,100 begins at 1,050
    assert row(account, "→ dual_write").gap_accepted_ns == pytest.approx(53 * MS, abs=2 * MS)


def test_a_task_that_nobody_put_is_unexpected(history):
    history.work(1, step=0)
    account = history.account()
    assert account.unexpected == 1
    assert hazards(account) == [("-", "redis_only", 1)]
    assert row(account, "redis_only").verdict is Verdict.INVALID


def test_latencies_at_a_transition_are_of_what_was_due_around_it(history):
    history.clock.now_ns = 1_010 * MS  # phases take 100 ms, and around is 50 ms
    history.put(1, step=0)
    history.work(1, step=0)
    history.clock.now_ns = 1_070 * MS
    history.put(2, step=0)
    history.clock.now_ns += 40 * MS
    history.work(2, step=1)
    history.clock.now_ns = 1_120 * MS
    history.put(3, step=1, accepted=False)
    history.work(3, step=1)
    account = history.account()
    near = row(account, "→ dual_write")
    assert near.tasks == 1
    counts = {(item.row, item.what): item.count for item in account.histograms}
    assert counts["→ dual_write", "enqueue"] == 1  # the third was not accepted
    assert counts["→ dual_write", "end_to_end"] == 2
    assert ("→ dual_read", "enqueue") not in counts
    assert near.enqueue_ns["max"] == row(account, "redis_only").enqueue_ns["max"] == 3 * MS
    assert near.end_to_end_ns["max"] == 45 * MS
    assert row(account, "→ dual_read").end_to_end_ns is None


def test_the_histograms_of_its_seconds_add_up_to_that_of_a_phase(history):
    begin_ns = history.clock.now_ns
    for number in range(1, 31):
        history.clock.now_ns = begin_ns + number * 100 * MS  # three seconds
        history.put(number, step=0)
        history.clock.now_ns += number % 7 * 10 * MS
        history.work(number, step=0)
    found = history.account(phases=FORWARD[:1]).histograms
    for what in ("enqueue", "end_to_end"):
        seconds = [item for item in found if item.what == what and item.second is not None]
        (whole,) = [item for item in found if item.what == what and item.second is None]
        assert [item.second for item in seconds] == [0, 1, 2]
        assert sum(item.count for item in seconds) == whole.count == 30
        assert max(item.max_ns for item in seconds) == whole.max_ns
        merged, expected = merge_histograms(seconds), decode_histogram(whole)
        assert merged.get_total_count() == 30
        for percentile in (1, 25, 50, 90, 99, 100):
            value = merged.get_value_at_percentile(percentile)
            assert value == expected.get_value_at_percentile(percentile)


def test_a_task_with_two_ends_is_unexpected(history):
    history.put(1, step=0)
    history.work(1, step=0)
    history.say("worker.2", Event.DEAD, 1, step=0, broker=Broker.REDIS)
    account = history.account()
    assert account.unexpected == 1
    assert "ended twice" in account.findings[0].text


@pytest.mark.parametrize(("attempt", "over"), [(3, 0), (4, 1)])
def test_deliveries_are_held_against_the_budget(history, attempt, over):
    history.put(1, step=3, redis=False, nats=1)
    history.work(1, step=3, broker=Broker.NATS, attempt=attempt)
    account = history.account(without=NOT_TOLD)
    assert account.over_budget == over
    verdict = Verdict.INVALID if over else Verdict.VALID
    assert row(account, "nats_primary").verdict is verdict


def test_going_back_runs_finished_tasks_again(history):
    history.put(1, step=1, nats=1)
    history.work(1, step=1, broker=Broker.NATS)
    history.work(1, step=2)
    account = history.account(phases=BACK)
    assert hazards(account) == [("B2", "→ redis_only", 1)]


@pytest.mark.parametrize(
    ("step", "where"), [(1, "dual_write"), (2, "dual_read"), (3, "→ nats_primary")]
)
def test_a_fallback_or_a_late_worker_runs_the_other_copy(history, step, where):
    history.put(1, step=min(step, 2), nats=1)
    history.work(1, step=2, broker=Broker.NATS)
    history.work(1, step=step, broker=Broker.REDIS)
    account = history.account()
    assert hazards(account) == [("P8", where, 1)]
    assert [item.hazard for item in account.attributions] == ["P8"]
    assert "copies in redis" in account.findings[0].text


def test_re_entry_replays_what_redis_did_in_between(history):
    history.put(1, step=2, nats=1)
    history.work(1, step=2)
    history.work(1, step=3, broker=Broker.NATS)
    account = history.account(phases=BACK)
    assert [(item.hazard, item.count) for item in account.findings] == [("B1", 1)]
    assert account.rows[-2].duplicated == 1  # the second transition into dual_read


def test_tasks_that_only_the_stream_holds_are_stranded_by_a_rollback(history):
    history.put(1, step=1, redis=False, nats=5)
    history.consumer = {"delivered_sequence": 4, "ack_floor_sequence": 4}
    account = history.account(phases=BACK[:3])
    assert hazards(account) == [("B3", "dual_read", 1)]


def test_a_task_that_only_redis_holds_is_not_reached_by_the_fallback(history):
    history.put(1, step=3)
    history.lies(Place.REDIS_PENDING, 1)
    account = history.account(phases=BACK)
    assert [item.hazard for item in account.findings] == ["P9"]
