"""The fit recovers what a matrix was made of, predicts its held-out half, and refuses by name."""

import msgspec
import numpy as np
import pytest

from hookbench.errors import ResultsError
from hookbench.ledger.model import Verdict
from hookbench.load.search import Capacity, Judgement, Trial
from hookbench.model.fit import fit_model
from hookbench.model.observations import (
    ROLES,
    Knee,
    knees_of,
    mean_payload_bytes,
    noise_of,
    read_observations,
)
from hookbench.model.predict import Conditions, predict
from hookbench.model.terms import Spread, fit_terms
from hookbench.model.validate import halves_of, predicted_figures, validate
from hookbench.rehearsal.capacity import CapacityAnswer
from tests.run_by_hand import ENVIRONMENT
from tests.unit.measured_by_hand import (
    CLASS,
    DONE_SHARE,
    FIXED_MS,
    KIB_US,
    PLAN,
    ROLE,
    START_S,
    TASK_US,
    WAKEUP_US,
    make_measured,
    true_limits_per_s,
)

TWO_PAYLOADS = msgspec.structs.replace(PLAN, payload=(64, 4096))


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    return read_observations([make_measured(tmp_path_factory.mktemp("matrix") / "m")])


@pytest.fixture(scope="module")
def model(measured):
    return fit_model(measured)


def test_costs_are_recovered(model):
    """A wake-up and a start look alike at one low rate: what is known before decides a little."""
    assert len(model.pairs) == 9
    for route, durability in model.pairs:
        for role, cost in model.costs((route, durability)).items():
            task_us = TASK_US[route] * ROLE[role] * CLASS[durability]
            assert cost.task_us == pytest.approx(task_us, rel=0.01)
            assert cost.kib_us == pytest.approx(KIB_US, rel=0.01)
            assert cost.wakeup_us == pytest.approx(WAKEUP_US * ROLE[role], rel=0.05)
    for role in ROLES:
        assert model.start_s(role) == pytest.approx(START_S[role], rel=0.05)


def test_rates_and_latencies_are_recovered(model):
    assert (model.spread, model.spread_fitted) == (1.0, False)
    for pair in model.pairs:
        assert model.efficiency(pair) == pytest.approx(DONE_SHARE, rel=0.01)
        for name, value in FIXED_MS.items():
            assert model.fixed_ms(pair, name, 0) == pytest.approx(value * CLASS[pair[1]], rel=0.02)
        limit = DONE_SHARE * min(true_limits_per_s(*pair, 4096))
        assert model.measured_limit_per_s(pair, 4096, "p50_ms") == pytest.approx(limit, rel=0.02)
    assert max(abs(item.error) for item in model.residuals) < 0.01


def test_noise_of_each_trial_does_not_grow_in_the_fit(tmp_path):
    made = make_measured(tmp_path / "m", rng=np.random.default_rng(1), noise=0.03)
    model = fit_model(read_observations([made]))
    for route, durability in model.pairs:
        for role, cost in model.costs((route, durability)).items():
            task_us = TASK_US[route] * ROLE[role] * CLASS[durability]
            assert cost.task_us == pytest.approx(task_us, rel=0.06)


def test_halves_are_disjoint_whole_cells_and_each_has_every_pair(measured):
    first, second = halves_of(measured)
    cells = [{item.cell for item in half} for half in (first, second)]
    assert not cells[0] & cells[1]
    assert [len(half) for half in cells] == [18, 18]
    for half in (first, second):
        assert len({item.pair for item in half}) == 9
        assert len({item.payload_bytes for item in half}) == 4


@pytest.mark.parametrize(
    ("plan", "noise", "median", "worst"),
    [
        (PLAN, 0.0, 0.002, 0.01),
        (PLAN, 0.03, 0.03, 0.12),
        (TWO_PAYLOADS, 0.0, 0.01, 0.08),
        (TWO_PAYLOADS, 0.03, 0.04, 0.15),
    ],
)
def test_the_held_out_half_is_predicted(tmp_path, plan, noise, median, worst):
    made = make_measured(tmp_path / "m", plan=plan, rng=np.random.default_rng(1), noise=noise)
    found = validate(read_observations([made]))
    cells = 9 * len(plan.payload)
    assert found.halves == (cells / 2, cells / 2)
    everything = found.errors[-1]
    assert (everything.figure, everything.cells) == ("all", cells)
    assert everything.median <= median
    assert everything.worst <= worst
    assert len(found.rows) == cells * (3 + 2 + 3 + 5)


@pytest.mark.parametrize("seed", range(3))
def test_a_fit_of_wild_figures_settles_and_is_about_as_good_as_they_are(tmp_path, seed):
    """A median of five with a noise of 0.5 each is off by 0.28, by 0.19 in half of the cells."""
    plan = msgspec.structs.replace(TWO_PAYLOADS, repeats=5)
    rng = np.random.default_rng(seed)
    made = read_observations([make_measured(tmp_path / "m", plan=plan, rng=rng, noise=0.5)])
    assert 0.1 < noise_of(made, "p99_ms") < 0.3
    assert validate(made).errors[-1].median < 0.3


def test_noise_is_that_between_repeats(tmp_path):
    def change(record):
        factor = {1: np.exp(-0.3), 2: 1.0, 3: np.exp(0.3)}[record.trial.repeat]
        return {"figures": record.figures | {"p99_ms": 2.0 * float(factor)}}

    made = read_observations([make_measured(tmp_path / "m", change=change)])
    assert noise_of(made, "p99_ms") == pytest.approx(0.3 / np.sqrt(3))
    assert noise_of(made, "p50_ms") == 0.03, "the least, for repeats are equal"
    few = msgspec.structs.replace(PLAN, repeats=2)
    assert noise_of(read_observations([make_measured(tmp_path / "b", plan=few)]), "p50_ms") == 0.05


def test_a_cell_that_is_not_like_the_others_is_told_as_the_worst(tmp_path):
    def change(record):
        cell = record.trial.cell
        if (cell.route, str(cell.durability), cell.payload) != ("jetstream", "lazy", "4096"):
            return {}
        if record.trial.kind != "throughput":
            return {}
        figures = record.figures | {"done_per_s": record.figures["done_per_s"] * 2}
        return {"figures": figures}

    found = validate(read_observations([make_measured(tmp_path / "m", change=change)]))
    everything = found.errors[-1]
    assert everything.worst_cell == "done_per_s of jetstream lazy 4,096 B throughput"
    assert everything.worst == pytest.approx(0.5, abs=0.02)
    assert everything.median < 0.02


def test_trials_that_say_nothing_are_left_out(tmp_path):
    def change(record):
        if record.trial.repeat == 1:
            return {"verdict": Verdict.UNKNOWN, "figures": {}}
        return {}

    made = read_observations([make_measured(tmp_path / "m", change=change)])
    assert {item.repeats for item in made} == {2}


@pytest.mark.parametrize("routes", [("jetstream",), ("jetstream", "redis_list", "dual_write")])
def test_latencies_of_a_growing_backlog_are_no_latencies(tmp_path, routes):
    def change(record):
        if record.trial.kind == "throughput" or record.trial.cell.route not in routes:
            return {}
        return {"figures": record.figures | {"growth_share": 0.5, "p99_ms": 1e6}}

    made = read_observations([make_measured(tmp_path / "m", change=change)])
    if len(routes) > 1:
        with pytest.raises(ResultsError, match=r"in every trial the backlog grew.*lower rate"):
            fit_model(made)
        return
    model = fit_model(made)
    assert max(abs(item.error) for item in model.residuals) < 0.01
    grown = predict(model, Conditions(route="jetstream"))
    assert set(grown.latency_ms.values()) == {None}
    assert "no latency: in every trial that was measured the backlog grew" in grown.notes
    assert predict(model, Conditions(route="redis_list")).latency_ms["p99_ms"] is not None
    assert {row.figure for row in validate(made).rows if row.route == "jetstream"} == {
        "accepted_per_s",
        "done_per_s",
        *(f"{role}_cpu_us, {when}" for role in ROLES for when in ("saturated", "at a rate")),
    }


@pytest.mark.parametrize(
    ("keep", "said"),
    [
        (lambda item: item.payload_bytes == 64, "cost per byte cannot be fitted from 64 B alone"),
        (lambda item: item.kind == "latency", "rate at saturation.*without trials of throughput"),
        (lambda item: item.kind == "throughput", "cost of a wake-up.*without trials of latency"),
        (
            lambda item: item.route != "jetstream" or item.kind == "latency",
            "jetstream fsync cannot be fitted without trials of throughput",
        ),
    ],
)
def test_what_cannot_be_fitted_is_named(measured, keep, said):
    with pytest.raises(ResultsError, match=said):
        fit_model([item for item in measured if keep(item)])


def test_matrices_that_are_not_alike_are_refused(tmp_path, measured):
    with pytest.raises(ResultsError, match=r"no plan\.json"):
        read_observations([tmp_path])
    with pytest.raises(ResultsError, match="no trial has a figure"):
        read_observations([make_measured(tmp_path / "none", leave=lambda _trial: True)])
    other = msgspec.structs.replace(TWO_PAYLOADS, design="hardened")
    folders = [make_measured(tmp_path / "a"), make_measured(tmp_path / "b", plan=other)]
    with pytest.raises(ResultsError, match=r"design hardened .* and .* is of design guide"):
        read_observations(folders)
    more = msgspec.structs.replace(
        measured[0], setup=msgspec.structs.replace(measured[0].setup, workers=2)
    )
    with pytest.raises(ResultsError, match="different processes"):
        fit_model([*measured, more])


def test_half_of_a_pair_with_one_payload_is_refused(measured):
    few = [item for item in measured if item.route != "jetstream" or item.payload_bytes == 64]
    with pytest.raises(ResultsError, match="jetstream fsync has one payload, which is held out"):
        validate(few)
    model = fit_model(few)
    assert model.borrowed == [("jetstream", name) for name in ("fsync", "lazy", "memory")]
    cost = model.costs(("jetstream", "lazy"))["worker"]
    assert cost.kib_us == pytest.approx(KIB_US, rel=0.05), "as of the other pairs"


def test_a_pair_that_was_not_measured_is_refused(model):
    with pytest.raises(ResultsError, match="redis_stream lazy was not measured; known are"):
        model.costs(("redis_stream", "lazy"))


def test_a_second_matrix_at_another_rate_is_predicted_from_the_first(tmp_path, model):
    """Batches grow with the rate, so a task costs less there."""
    faster = msgspec.structs.replace(PLAN, kinds=("latency",), rate_per_s=2000.0)
    for item in read_observations([make_measured(tmp_path / "m", plan=faster)]):
        found = predicted_figures(model, item)
        assert len(found) == 8
        for name, value in found.items():
            assert value == pytest.approx(item.figures[name], rel=0.03), (item.label, name)


def knee_of(spread, rates):
    """p99 of a queue that sustains 6,000 tasks/s, and whose waits have no end at 6,600."""
    limit, endless = 6000.0, 6600.0
    return Knee(
        route="jetstream",
        durability="lazy",
        design="guide",
        payload_bytes=256.0,
        low_per_s=limit / 1.02,
        high_per_s=limit * 1.02,
        p99_ms={
            rate: FIXED_MS["p99_ms"] * CLASS["lazy"]
            + spread * np.log(rate / endless / 0.01) / (endless - rate) * 1e3
            for rate in rates
        },
    )


def test_rates_of_an_answer_tell_the_sustained_rate_and_the_spread(measured):
    knee = knee_of(4.0, (2000.0, 3000.0, 4000.0, 5000.0, 5400.0, 5700.0))
    pair = ("jetstream", "lazy")
    model = fit_model(measured, [knee])
    assert model.measured_limit_per_s(pair, 256, "p50_ms") == pytest.approx(6000, rel=0.001)
    assert model.spread_fitted
    assert model.headroom == pytest.approx(1.1), "waits have no end at 6,600 tasks/s"
    assert model.spread == pytest.approx(4.0, rel=0.25)
    found = validate(measured, [knee])
    below = next(item for item in found.errors if item.figure == "answers_p99_ms")
    assert sum(row.kind == "answer" for row in found.rows) == 6
    assert below.worst < 0.25
    other = msgspec.structs.replace(knee, design="hardened")
    assert not fit_model(measured, [other]).spread_fitted


def test_answers_say_what_was_sustained():
    def judged(rate, p99_ms, *, sustained):
        trials = tuple(
            Trial(rate_per_s=rate, sustained=sustained, figures={"p99_ms": value})
            for value in p99_ms
        )
        return Judgement(rate_per_s=rate, sustained=sustained, trials=trials)

    def answer(label, high, **fields):
        capacity = Capacity(
            low_per_s=800.0,
            high_per_s=high,
            unknown_because="",
            judgements=(
                judged(400.0, (2.0, 3.0, 9.0), sustained=True),
                judged(900.0, (80.0,), sustained=False),
            ),
        )
        fields = {"unknown_because": "", **fields}
        return CapacityAnswer(
            label=label, slo="p99<50ms", environment=ENVIRONMENT, limit="", capacity=capacity,
            **fields,
        )  # fmt: skip

    found = knees_of(
        [
            answer("jetstream-lazy-guide", 900.0),
            answer("null", 900.0),
            answer("redis_list-lazy-guide", None),
            answer("redis_list-fsync-guide", 900.0, unknown_because="too wide"),
        ]
    )
    assert [(item.pair, item.design, item.payload_bytes) for item in found] == [
        (("jetstream", "lazy"), "guide", 256.0)
    ]
    assert found[0].p99_ms == {400.0: 3.0}


def test_the_mean_of_a_distribution_of_payloads():
    assert mean_payload_bytes("4096") == 4096
    assert mean_payload_bytes("uniform:min=0,max=1000") == pytest.approx(500, rel=0.05)


def test_terms_that_data_say_nothing_of_are_what_was_known_before():
    pairs = [("a", "x"), ("a", "x"), ("b", "x")]
    features = np.array([[1.0, 1.0], [1.0, 3.0], [1.0, 0.0]])
    observed = np.array([3.0, 7.0, 5.0])
    spreads = [Spread(middle=0.0), Spread(middle=0.0, route=0.1, durability=0.1, pair=0.1)]
    terms = fit_terms(pairs, features, observed, spreads)
    assert terms.of(("a", "x")) == pytest.approx([1.0, 2.0], rel=0.06)
    assert terms.of(("b", "x"))[0] == pytest.approx(5.0, rel=0.01)
    assert terms.of(("b", "x"))[1] == pytest.approx(2.0, rel=0.1), "as of its likes"
    assert abs(terms.residuals).max() < 0.01
