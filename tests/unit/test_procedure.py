"""A procedure whose brokers go away and come back, in virtual time."""

import pytest

from hookbench.errors import (
    BrokerUnreachableError,
    PlaceHeldError,
    PublishUnknownError,
    SettingError,
)
from hookbench.migration.checks import Answer
from hookbench.migration.gates import GateAnswer
from hookbench.migration.phases import Phase
from hookbench.migration.reconcile import Patience, Procedure, read_progress
from hookbench.queues.moving import nobody_else
from tests.virtual import VirtualClock

SOURCE, TARGET = Phase.DUAL_READ, Phase.NATS_PRIMARY


class Fleet:
    async def enter(self, role, phase):
        pass

    async def not_in(self, _role, _phase):
        return []


class Movers:
    """Moves three tasks, one with each call that gets through."""

    def __init__(self, *errors):
        self.errors = list(errors)
        self.calls = 0

    async def redis_to_nats(self):
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return 3

    async def not_of_this_way(self):
        raise AssertionError("no step of this transition")

    trim_copies = letters_to_nats = nats_only_to_redis = not_of_this_way
    records_to_nats = records_to_redis = not_of_this_way

    async def left_in_work(self):
        return 0

    async def last_sequence(self):
        return 7


async def always_go(move, _sequence):
    return GateAnswer(
        source=move.source.label,
        target=move.target.label,
        moment=move.moment,
        answer=Answer.GO,
        checks=(),
    )


@pytest.fixture
def make_procedure(tmp_path):
    def make(movers, told=None, assure=nobody_else, **patience):
        return Procedure(
            SOURCE,
            TARGET,
            fleet=Fleet(),
            movers=movers,
            ask=always_go,
            progress=tmp_path / "progress.json",
            clock=VirtualClock(),
            patience=Patience(**patience),
            tell=None if told is None else told.append,
            assure=assure,
        )

    return make


async def test_a_step_is_done_again_when_a_broker_was_away(make_procedure):
    movers = Movers(BrokerUnreachableError("Redis is down"), PublishUnknownError("no answer"))
    told = []
    progress = await make_procedure(movers, told).run()
    assert movers.calls == 3
    assert progress.moved["redis_to_nats"] == 3
    assert "redis_to_nats is done again: Redis is down" in told
    assert progress.done[-1] == "ask_after"


async def test_a_broker_that_stays_away_holds_it_back_and_it_goes_on_there(
    make_procedure, tmp_path
):
    movers = Movers(*[BrokerUnreachableError("Redis is down")] * 100)
    with pytest.raises(BrokerUnreachableError):
        await make_procedure(movers, broker_s=5.0).run()
    assert 8 <= movers.calls <= 12  # every half second
    left = read_progress(tmp_path / "progress.json")
    assert left.done[-1] == "wait_for_work"
    movers.errors.clear()
    progress = await make_procedure(movers).run()
    assert progress.done[-1] == "ask_after"


async def test_an_error_of_another_kind_is_not_repeated(make_procedure):
    movers = Movers(SettingError("a wrong name"))
    with pytest.raises(SettingError):
        await make_procedure(movers).run()
    assert movers.calls == 1


@pytest.mark.parametrize("lost_at", ["before", "after"])
async def test_who_has_lost_its_place_neither_does_a_step_nor_notes_it(
    make_procedure, tmp_path, lost_at
):
    movers, told = Movers(), []

    async def assure():
        moving = told and told[-1].endswith(": redis_to_nats")
        if moving and movers.calls == (0 if lost_at == "before" else 1):
            raise PlaceHeldError("ben has it", step="hold_places", evidence="ben")

    with pytest.raises(PlaceHeldError):
        await make_procedure(movers, told, assure=assure).run()
    assert movers.calls == (0 if lost_at == "before" else 1)
    assert read_progress(tmp_path / "progress.json").done[-1] == "wait_for_work"
