"""``hookbench capacity --model`` in this process: texts, data and refusals."""

import json

import msgspec
import numpy as np
import pytest

from hookbench.cli.capacity import capacity
from hookbench.errors import ResultsError, SettingError
from hookbench.load.search import Capacity, Judgement, Trial
from hookbench.model.texts import bytes_text, seconds_text
from hookbench.rehearsal.capacity import CapacityAnswer
from tests.run_by_hand import ENVIRONMENT
from tests.unit.measured_by_hand import make_measured, true_limits_per_s

DAY = {"queue": "dual_write", "rate": 2000.0, "workers": 4, "arrivals": "constant"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_measured(tmp_path_factory.mktemp("matrix") / "m")


def data_of(capsys, folder, **options):
    capacity(model=[folder], json=True, **options)
    return json.loads(capsys.readouterr().out)


def test_a_prediction_has_its_bottleneck_and_latencies(folder, capsys):
    found = data_of(capsys, folder, queue="jetstream", rate=2000.0, payload="4096", rtt_ms=0.5)
    prediction = found["prediction"]
    limit = 0.8 * min(true_limits_per_s("jetstream", "lazy", 4096))
    assert prediction["capacity_per_s"] == pytest.approx(limit, rel=0.02)
    assert prediction["bottleneck"] == "machine"
    assert prediction["conditions"]["rtt_ms"] == 0.5
    assert found.keys() == {"fitted_on", "answers", "prediction"}
    capacity(model=[folder], queue="jetstream", rate=2000.0, payload="4096", rtt_ms=0.5)
    text = capsys.readouterr().out
    assert f"capacity  {prediction['capacity_per_s']:,.0f} tasks/s, limited by: machine" in text
    assert f"p99 {prediction['latency_ms']['p99_ms']:.2f} ms" in text


@pytest.mark.parametrize(
    ("phase", "queue"), [("nats_only", "jetstream"), ("redis_only", "redis_list")]
)
def test_a_phase_of_one_queue_is_that_queue(folder, capsys, phase, queue):
    by_phase = data_of(capsys, folder, queue=phase, hours=1.0)
    by_queue = data_of(capsys, folder, queue=queue, hours=1.0)
    assert by_phase == by_queue


def test_a_rate_above_capacity_is_told_as_growth(folder, capsys):
    capacity(model=[folder], queue="jetstream", rate=1e6)
    text = capsys.readouterr().out
    assert "more than that: the backlog grows by" in text
    assert "until done" not in text


def test_more_cores_are_taken(folder, capsys):
    few = data_of(capsys, folder, queue="jetstream", workers=8, producers=8)
    many = data_of(capsys, folder, queue="jetstream", workers=8, producers=8, cores=16)
    ratio = many["prediction"]["capacity_per_s"] / few["prediction"]["capacity_per_s"]
    assert ratio > 4


def test_a_day_has_its_outages(folder, capsys):
    found = data_of(capsys, folder, outage=["workers:60@3600", "nats:5@9"], hours=2.0, **DAY)
    day = found["day"]
    rate = found["prediction"]["capacity_per_s"]
    assert day["steps"] == 7200
    assert day["offered"] == pytest.approx(2000 * 7200)
    first, second = day["outages"]
    assert first["peak_waiting"] == pytest.approx(120_000)
    assert first["catch_up_s"] == pytest.approx(120_000 / (rate - 2000), abs=1)
    assert second["one_broker_only"] == pytest.approx(10_000)
    limits = {"maxmemory_mib": 20.0, "waiting_bytes": "redis=1000", "max_age": 30.0}
    full = data_of(capsys, folder, outage=["workers:60@3600"], hours=2.0, **limits, **DAY)["day"]
    # 12 MiB are left beside those of an empty Redis.
    assert full["maxmemory_at_s"] == pytest.approx(3600 + 12 * 2**20 / 1000 / 2000, abs=1)
    assert full["max_age_at_s"] == pytest.approx(3631, abs=1)
    capacity(model=[folder], outage=["workers:60@3600"], hours=2.0, **limits, **DAY)
    text = capsys.readouterr().out
    for word in ("max-age   strikes", "maxmemory strikes", "120,000", "workers 60 s at 60 min"):
        assert word in text


def test_a_site_is_a_plan(folder, capsys):
    asked = {"site": True, "rate": 1e6, "workers": 10_000, "outage": ["redis:60"]}
    site = data_of(capsys, folder, **asked)["site"]
    assert [item["phase"] for item in site["phases"]] == ["redis_only", "dual_write", "nats_only"]
    assert site["site"]["outage_s"] == 60
    capacity(model=[folder], **asked)
    text = capsys.readouterr().out
    assert "1,000,000 tasks/s at the peak, 10,000 workers" in text
    assert "left out  dual_read, nats_primary: not measured" in text
    few = data_of(capsys, folder, **(asked | {"workers": 10}))["site"]
    assert few["phases"][0]["catch_up_s"] is None


def test_the_other_half_is_told(folder, capsys):
    found = data_of(capsys, folder, validate=True)
    errors = {item["figure"]: item for item in found["validation"]["errors"]}
    assert errors["all"]["worst"] < 0.02
    assert "prediction" not in found
    capacity(model=[folder], validate=True)
    text = capsys.readouterr().out
    assert "fitted on 18 cells and held against 18 others" in text
    assert "done_per_s" in text


def test_answers_are_taken_from_their_folder(folder, tmp_path, capsys):
    trial = Trial(rate_per_s=4000.0, sustained=True, figures={"p99_ms": 3.0})
    judgement = Judgement(rate_per_s=4000.0, sustained=True, trials=(trial,))
    answer = CapacityAnswer(
        label="jetstream-lazy-guide",
        slo="p99<50ms",
        environment=ENVIRONMENT,
        unknown_because="",
        limit="",
        capacity=Capacity(
            low_per_s=4000.0, high_per_s=4000.0, unknown_because="", judgements=(judgement,)
        ),
    )
    (tmp_path / "a.json").write_bytes(msgspec.json.encode(answer))
    found = data_of(capsys, folder, answers=tmp_path, queue="jetstream")
    assert found["answers"] == ["jetstream lazy"]
    assert found["prediction"]["capacity_per_s"] == pytest.approx(4000, rel=1e-6)
    other = msgspec.structs.replace(answer, label="jetstream-lazy-hardened")
    (tmp_path / "a.json").write_bytes(msgspec.json.encode(other))
    found = data_of(capsys, folder, answers=tmp_path, queue="jetstream")
    assert not np.isclose(found["prediction"]["capacity_per_s"], 4000)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({}, SettingError, r"nothing is asked for: use --queue \(dual_write, jetstream"),
        ({"queue": "redis_stream"}, ResultsError, "redis_stream lazy was not measured"),
        ({"queue": "jetstream", "durability": "x"}, ResultsError, "jetstream x was not measured"),
        ({"queue": "jetstream", "design": "hardened"}, SettingError, "the matrix is of guide"),
        ({"queue": "jetstream", "outage": ["x"]}, SettingError, "outage 'x'"),
        ({"queue": "jetstream", "workers": 0}, SettingError, "workers 0"),
        ({"queue": "jetstream", "payload": "x"}, SettingError, "payload"),
        ({"site": True, "waiting_bytes": "moon=1"}, SettingError, "use redis=300,nats=0"),
        ({"site": True, "waiting_bytes": "redis=x"}, SettingError, "waiting-bytes of redis"),
    ],
)
def test_what_cannot_be_answered_is_refused(folder, options, error, said):
    with pytest.raises(error, match=said):
        capacity(model=[folder], **options)


def test_options_of_a_model_need_one():
    with pytest.raises(SettingError, match="--rtt-ms: it goes with --model"):
        capacity(queue="jetstream", rtt_ms=1.0)
    with pytest.raises(SettingError, match="queue '': use redis_list"):
        capacity()


def test_texts_of_bytes_and_times():
    values = (0, 1023, 1536, 20 * 2**20, 5 * 2**40, 3e6 * 2**50)
    assert [bytes_text(value) for value in values] == [
        "0 B", "1,023 B", "1.5 KiB", "20 MiB", "5.0 TiB", "3,000,000 PiB",
    ]  # fmt: skip
    times = (None, float("inf"), 90.0, 600.0, 9000.0, 200_000.0)
    assert [seconds_text(value) for value in times] == [
        "never", "never", "90 s", "10 min", "2.5 h", "2.3 days",
    ]  # fmt: skip
