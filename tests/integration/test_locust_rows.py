"""What Locust's tables say of bursts: the same, however it is told."""

import importlib.util
import json
import subprocess
import sys

import pytest

from tests.integration.locusts import ROOT

if importlib.util.find_spec("locust") is None:  # importing it would patch this process for gevent
    pytest.skip("Locust is not installed: pip install -e '.[loadtest]'", allow_module_level=True)

GOOD, BAD = 5, 2
REASON = "task ... was refused"


@pytest.fixture(scope="module")
def found():
    """Of all scenarios of the child."""
    command = [sys.executable, "-m", "tests.integration.locust_rows_child", str(ROOT / "loadtests")]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def counts(rows):
    """Requests and failures of the total and of each row."""
    return [(row["name"], row["num_requests"], row["num_failures"]) for row in rows["rows"]]


def of(bursts, row="redis_list"):
    """What ``counts`` is after so many bursts."""
    numbers = (bursts * (GOOD + BAD), bursts * BAD)
    return [("Aggregated", *numbers), (row, *numbers)]


def test_outcomes_that_are_told_together_come_to_the_same_rows(found):
    together, listened = found["ways"]["together"], found["ways"]["listened"]
    assert counts(together) == of(bursts=2)
    assert together["rows"] == listened["rows"]
    assert together["errors"] == listened["errors"]
    (error,) = together["errors"]
    assert REASON in error[0]
    assert error[1] == 2 * BAD
    row = together["rows"][1]
    assert row["method"] == "PUBLISH"
    assert row["total_content_length"] == 2 * (GOOD * 256 + BAD * 100)
    assert (row["min_response_time"], row["max_response_time"]) == (0.412345, 1234.0)
    # Three digits below a millisecond, and both that fall into one bucket in it.
    assert row["response_times"] == [
        [0.412, 4], [7.0, 4], [9.87, 2], [54.3, 2], [1230, 2],
    ]  # fmt: skip
    assert row["num_reqs_per_sec"] == 2 * (GOOD + BAD)
    assert row["num_fail_per_sec"] == 2 * BAD


def test_whoever_listens_to_requests_is_told_each(found):
    assert found["ways"]["together"]["heard"] == []
    heard = found["ways"]["listened"]["heard"]
    assert len(heard) == 2 * (GOOD + BAD)
    assert {tuple(item[:2]) for item in heard} == {("PUBLISH", "redis_list")}
    assert sorted(item[2] for item in heard)[:2] == [0.412345, 0.412345]
    assert [item[4] for item in heard].count("None") == 2 * GOOD
    assert [item[4] for item in heard].count(REASON) == 2 * BAD


def test_a_listener_may_come_and_go(found):
    scenario = found["comes_and_goes"]
    assert len(scenario["heard"]) == GOOD + BAD
    assert counts(scenario) == of(bursts=3)


def test_without_locusts_own_listener_nothing_is_counted_past_it(found):
    assert found["nobody"] == 0


def test_a_user_who_is_killed_loses_no_outcome(found):
    assert found["killed"]["before"] == 0
    assert counts(found["killed"]) == of(bursts=1)


def test_a_defect_is_told_beside_the_outcomes_of_the_others(found):
    scenario = found["defect"]
    assert scenario["raised"] == "a defect"
    assert counts(scenario) == [
        ("Aggregated", GOOD + BAD + 1, BAD + 1),
        ("redis_list", GOOD + BAD + 1, BAD + 1),
    ]
    texts = dict(scenario["errors"])
    assert sorted(texts.values()) == [1, BAD]
    assert any("a defect" in text for text in texts)
