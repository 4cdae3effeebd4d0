"""The table of hazards: which rows there are, and in which order."""

import pytest

from hookbench.errors import SettingError
from hookbench.hazards.registry import HAZARDS, find_hazards


def test_a_place_has_its_rows_one_after_the_other_by_number():
    ids = [hazard.id for hazard in find_hazards(["n10", "N2", "N1", "R3"])]
    assert ids == ["R3", "N1", "N2", "N10"]
    assert [hazard.id for hazard in find_hazards([])] == list(HAZARDS)


def test_the_nearest_id_is_named():
    with pytest.raises(SettingError, match="did you mean N10"):
        find_hazards(["N100"])


def test_the_table_is_complete():
    counts = {"R": 9, "P": 12, "N": 10, "T": 1, "C": 1, "B": 3, "S": 2}
    wanted = [f"{place}{number}" for place, last in counts.items() for number in range(1, last + 1)]
    assert list(HAZARDS) == wanted
