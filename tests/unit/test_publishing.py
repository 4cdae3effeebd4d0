import itertools

import pytest

from hookbench.errors import (
    OversizeError,
    PublishRefusedError,
    PublishUnavailableError,
    PublishUnknownError,
    SettingError,
)
from hookbench.ledger.events import Broker, Event
from hookbench.migration.publishing import PatientPublish, PublishPatience, check_pauses
from hookbench.task import encode_task
from tests.fakes import MemoryRecorder
from tests.virtual import VirtualClock

S = 1_000_000_000
PATIENCE = PublishPatience(horizon_s=10.0, timeout_s=1.0, pause_s=0.5, pause_max_s=2.0)


class Script:
    """A ``nats_publish`` whose answers are given; a doubtful one takes a second."""

    def __init__(self, clock, *answers):
        self.clock = clock
        self.answers = list(answers)
        self.calls = []
        self.ends_ns = []

    async def __call__(self, subject, payload):
        self.calls.append((self.clock.now_ns, subject, payload))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, (PublishUnknownError, TimeoutError)):
            await self.clock.sleep(1.0)
        self.ends_ns.append(self.clock.now_ns)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def publish(make_task):
    clock, recorder = VirtualClock(), MemoryRecorder()
    task = make_task()

    async def run(*answers, patience=PATIENCE):
        script = Script(clock, *answers)
        patient = PatientPublish(script, patience, clock=clock, recorder=recorder)
        run.script, run.recorder, run.task = script, recorder, task
        return await patient("queue.hook.sync", encode_task(task))

    return run


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (PublishUnknownError("no answer"), Event.PUT_UNKNOWN),
        (TimeoutError("injected"), Event.PUT_UNKNOWN),
        (PublishUnavailableError("503"), Event.PUT_FAIL),
    ],
)
async def test_it_is_sent_again_until_it_is_acknowledged(publish, error, told):
    assert await publish(error, error, 7) == 7
    assert {(subject, payload) for _, subject, payload in publish.script.calls} == {
        ("queue.hook.sync", encode_task(publish.task))
    }
    assert len(publish.script.calls) == 3
    wanted = [(told, publish.task.id.bytes, Broker.NATS, 0, 0)] * 2
    assert publish.recorder.events == wanted


async def test_the_pauses_grow_up_to_a_bound(publish):
    away = PublishUnavailableError("503")
    assert await publish(away, away, away, away, 7) == 7
    times = [call[0] for call in publish.script.calls]
    pauses_s = [(after - before) / S for before, after in itertools.pairwise(times)]
    assert pauses_s == [0.5, 1.0, 2.0, 2.0]


@pytest.mark.parametrize("error", [PublishUnknownError("?"), PublishUnavailableError("503")])
async def test_no_try_ends_beyond_the_horizon(publish, error):
    with pytest.raises(type(error)):
        await publish(error)
    begin_ns = publish.script.calls[0][0]
    assert len(publish.script.calls) > 3
    assert max(publish.script.ends_ns) - begin_ns <= PATIENCE.horizon_s * S


async def test_one_try_without_an_answer_leaves_doubt_whatever_the_others_said(publish):
    away, doubt = PublishUnavailableError("503"), PublishUnknownError("no answer")
    with pytest.raises(PublishUnknownError):
        await publish(away, doubt, away)
    with pytest.raises(PublishUnknownError):
        await publish(doubt, PublishRefusedError("no"))


@pytest.mark.parametrize("error", [PublishRefusedError("no"), OversizeError("large")])
async def test_what_will_not_change_is_not_tried_again(publish, error):
    with pytest.raises(type(error)):
        await publish(error, 7)
    assert len(publish.script.calls) == 1
    assert publish.recorder.events == []


async def test_a_single_try_may_take_longer_than_the_horizon(publish):
    short = PublishPatience(horizon_s=0.5, timeout_s=1.0, pause_s=0.1, pause_max_s=0.1)
    with pytest.raises(PublishUnknownError):
        await publish(PublishUnknownError("?"), 7, patience=short)
    assert len(publish.script.calls) == 1


@pytest.mark.parametrize("window_s", [60.0, 1.0])
def test_a_horizon_beyond_the_duplicate_window_is_refused_with_both(window_s):
    with pytest.raises(SettingError, match=rf"60 s .* {window_s:g} s"):
        PublishPatience(horizon_s=60.0).check(window_s)


def test_the_defaults_suit_the_guides_window():
    PublishPatience().check(120.0)


def test_sweeps_that_all_come_after_the_window_are_refused_with_both():
    with pytest.raises(SettingError, match=r"7 s .* 6 s"):
        check_pauses(PublishPatience(), 2.0, 6.0)
    check_pauses(PublishPatience(), 2.0, 7.5)


@pytest.mark.parametrize(
    "change", [{"pause_s": 0.0}, {"pause_s": 3.0, "pause_max_s": 1.0}, {"timeout_s": 0.0}]
)
def test_waits_that_are_none_are_refused(change):
    with pytest.raises(SettingError, match="use more than 0"):
        PublishPatience(**change).check(120.0)
