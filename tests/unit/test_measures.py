import pytest

from hookbench.errors import SettingError
from hookbench.migration.measures import (
    HARDENED,
    NO_MEASURES,
    Measures,
    measures_of,
    parse_measures,
)
from hookbench.migration.phases import AckMode, Design

NAMES = Measures.__struct_fields__


def test_the_designs_are_all_measures_and_none():
    assert not any(getattr(measures_of(Design.GUIDE), name) for name in NAMES)
    assert all(getattr(measures_of(Design.HARDENED), name) for name in NAMES)
    assert NO_MEASURES.ack_mode is AckMode.IMMEDIATE
    assert HARDENED.ack_mode is AckMode.AFTER_PROCESSING


@pytest.mark.parametrize("name", NAMES)
def test_each_is_a_switch_of_its_own(name):
    alone = parse_measures(name)
    assert [item for item in NAMES if getattr(alone, item)] == [name]
    without = parse_measures(f"all,-{name}")
    assert [item for item in NAMES if not getattr(without, item)] == [name]


@pytest.mark.parametrize("measures", [NO_MEASURES, HARDENED, Measures(ack_after=True)])
def test_a_text_is_read_as_it_was_written(measures):
    assert parse_measures(measures.text) == measures


def test_changes_are_made_from_left_to_right():
    assert parse_measures("-ack_after,all") == HARDENED
    assert parse_measures("hardened, -ack_after, ack_after") == HARDENED
    assert parse_measures("all,guide") == NO_MEASURES
    assert parse_measures("", HARDENED) == HARDENED
    assert parse_measures("-ack_after", HARDENED).ack_after is False


def test_an_unknown_measure_is_named_with_the_nearest():
    with pytest.raises(SettingError, match=r"'ack_aftr': there is none \(did you mean 'ack_after'"):
        parse_measures("all,-ack_aftr")
