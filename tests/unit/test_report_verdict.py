"""The answer of runs: may we go on, and why not; texts from manifests that are made by hand."""

import msgspec
import pytest

pytest.importorskip("pandas", reason="the extra notebooks is not installed")

from hookbench.ledger.model import Account, Finding, StepAccount, Verdict
from hookbench.migration.checks import Answer, Check
from hookbench.report.choice import queue_of
from hookbench.report.price import find_pair, price_table, price_text
from hookbench.report.queues import comparable_runs, comparison_text
from hookbench.report.verdict import (
    answer_of_run,
    answer_text,
    gates_table,
    harms_table,
    no_harms_text,
    phases_table,
    transitions_table,
)
from hookbench.results.store import MANIFEST_SCHEMA, GateRecord, Manifest
from tests.run_by_hand import ENVIRONMENT


class Stored:
    """A run of which only the manifest is known."""

    def __init__(self, manifest):
        self.manifest = manifest


def account(*rows, findings=(), **counts):
    totals = dict.fromkeys(
        (
            "tasks", "accepted", "refused", "doubtful", "done", "dead", "lost", "stuck",
            "duplicated", "explained", "left", "junk", "pushed_tasks", "torn",
        ),
        0,
    )  # fmt: skip
    return Account(
        rows=list(rows),
        findings=list(findings),
        push_to_done_ns=None,
        crashes=[],
        **{**totals, **counts},
    )


def row(name, step, verdict=Verdict.VALID, **fields):
    transition = name.startswith("→")
    return StepAccount(name=name, step=step, transition=transition, verdict=verdict, **fields)


def manifest(name="0001", design="guide", verdict=Verdict.VALID, **fields):
    return Manifest(
        schema=MANIFEST_SCHEMA,
        run=name,
        status=fields.pop("status", "complete"),
        design=design,
        seed=7,
        durability=fields.pop("durability", "lazy"),
        settings=fields.pop("settings", {}),
        environment=ENVIRONMENT,
        started="2026-01-01T00:00:00Z",
        brokers=[],
        verdict=verdict,
        **fields,
    )


def gate(step, answer, *, moment="before", asked=1, checks=()):
    return GateRecord(
        time_ns=1,
        step=step,
        source="redis_only",
        target="dual_write",
        moment=moment,
        answer=answer,
        asked=asked,
        checks=list(checks),
    )


FINE = (row("redis_only", 0), row("→ dual_write", 1), row("dual_write", 1))


def test_a_valid_run_may_go_on():
    made = manifest(account=account(*FINE, accepted=9, done=9), gates=[gate(1, "go")])
    assert answer_of_run(made) == (
        "guide (run 0001) may go on, through all 1 changes of phase (9 of 9 accepted tasks done,"
        " 0 lost, 0 stuck, 0 done again without an explanation, 1 gates said go)"
    )


def test_what_was_superseded_is_told_beside_what_was_done():
    made = manifest(account=account(*FINE, accepted=9, done=7, superseded=2))
    assert "(7 of 9 accepted tasks done, 2 superseded, 0 lost, 0 stuck," in answer_of_run(made)


def test_an_invalid_run_may_not_go_beyond_its_first_fault():
    broken = (
        row("redis_only", 0),
        row("→ dual_write", 1, Verdict.INVALID, duplicated=3),
        row("dual_write", 1, Verdict.INVALID, lost=2),
    )
    findings = [
        Finding(
            hazard="P5", row="→ dual_write", count=3, text="3 tasks done again", examples=["a"]
        ),
        Finding(hazard="P1", row="dual_write", count=2, text="2 lost", examples=[], step=1),
    ]
    counts = {"accepted": 9, "done": 7, "lost": 2, "duplicated": 3}
    made = manifest(verdict=Verdict.INVALID, account=account(*broken, findings=findings, **counts))
    text = answer_of_run(made)
    assert text.startswith(
        "guide (run 0001) may not go into dual_write: 3 tasks done again [P5] (7 of 9 accepted"
    )
    assert "2 lost [P1]" not in text
    stored = Stored(made)
    table = transitions_table([stored])
    assert table.loc["redis_only → dual_write", "go on?"] == "NO"
    assert table.loc["redis_only → dual_write", ["lost", "duplicated"]].tolist() == ["2", "3"]
    assert table.loc["redis_only → dual_write", "gates"] == "not asked"
    assert harms_table([stored])["tasks"].tolist() == ["3", "2"]
    assert phases_table([stored]).iloc[:, 0].tolist() == ["valid", "INVALID", "INVALID"]


@pytest.mark.parametrize(
    ("answers", "said"),
    [(["go"], "yes"), (["no-go", "go"], "yes"), (["go", "no-go"], "NO"), (["unknown"], "unknown")],
)
def test_the_last_answer_of_a_gate_counts(answers, said):
    gates = [gate(1, answer, asked=4) for answer in answers]
    stored = Stored(manifest(account=account(*FINE), gates=gates))
    row_ = transitions_table([stored]).iloc[0]
    assert row_["go on?"] == said
    assert row_["gates"] == ", ".join(f"before {answer} (4 times)" for answer in answers)


def test_gates_tell_the_evidence_of_every_condition():
    checks = [
        Check(name="brokers answer", answer=Answer.GO, evidence="redis and nats"),
        Check(name="oldest age", answer=Answer.NO_GO, evidence="7 s", ids=("01a2", "01a3")),
    ]
    stored = Stored(manifest(gates=[gate(1, "no-go", checks=checks)]))
    (row_,) = gates_table([stored]).to_dict("records")
    assert row_["gate"] == "redis_only → dual_write, before"
    assert row_["conditions and their evidence"] == (
        "brokers answer: redis and nats;\noldest age NO-GO: 7 s, e.g. 01a2"
    )


def test_what_is_unknown_is_no_yes():
    made = manifest(
        verdict=Verdict.UNKNOWN, unknown_because=["a", "b", "c"], account=account(*FINE)
    )
    assert answer_of_run(made) == "whether guide (run 0001) may go on is not known: a; b; 1 more"
    cut = manifest("0002", status="cut off", verdict=Verdict.UNKNOWN)
    assert "it has no account (cut off)" in answer_of_run(cut)
    assert no_harms_text([Stored(cut)]) == (
        "Nothing is known of 0002: cut off, and without an account."
    )
    assert transitions_table([Stored(cut)]).empty
    rolled = Verdict.UNKNOWN
    rows = (row("redis_only", 0), row("→ dual_write", 1, rolled), row("dual_write", 1))
    table = transitions_table([Stored(manifest(account=account(*rows)))])
    assert table["go on?"].tolist() == ["unknown"]


def test_a_verdict_that_no_row_explains_is_no_yes():
    made = manifest(verdict=Verdict.INVALID, account=account(*FINE))
    assert "may not go on: a rule is broken" in answer_of_run(made)


def test_several_runs_have_a_sentence_each():
    one = Stored(manifest(account=account(*FINE)))
    two = Stored(manifest("0002", "hardened", account=account(row("redis_only", 0))))
    text = answer_text([one, two])
    first, second = text.split("\n")
    assert first.startswith("Guide (run 0001) may go on")
    assert second.startswith("Hardened (run 0002) keeps all rules in its only phase (")
    assert first.endswith(".")
    assert second.endswith(".")


def test_a_price_takes_two_runs_of_one_scenario():
    settings = {"rate_per_s": 100.0, "phases": [0, 4], "out": "a", "design": "guide"}
    guide = Stored(manifest(settings=settings))
    hardened = Stored(
        manifest("0002", "hardened", settings={**settings, "out": "b", "design": "hardened"})
    )
    assert find_pair([hardened, guide]) == (guide, hardened)
    for change in ({"rate_per_s": 200.0}, {"phases": [0]}):
        other = Stored(manifest("0003", "hardened", settings={**settings, **change}))
        assert find_pair([guide, other]) is None
        assert price_text([guide, other]).startswith("No price: ")
        assert price_table([guide, other]).empty
    slower = msgspec.structs.replace(hardened.manifest, durability="fsync")
    assert find_pair([guide, Stored(slower)]) is None


def test_queues_of_other_durability_or_load_are_left_out():
    def queue(name, phases, **fields):
        settings = {"phases": phases, "rate_per_s": 100.0, **fields.pop("settings", {})}
        return Stored(manifest(name, settings=settings, **fields))

    redis, nats = queue("1", [0]), queue("2", [4])
    synced = queue("3", [0], durability="fsync", settings={"redis_kind": "stream"})
    faster = queue("4", [4], settings={"rate_per_s": 200.0})
    runs = [synced, redis, nats, faster]
    assert [queue_of(run.manifest) for run in runs] == [
        "redis_stream", "redis_list", "jetstream", "jetstream",
    ]  # fmt: skip
    assert comparable_runs(runs) == [redis, nats]
    text = comparison_text(runs)
    assert text.startswith("durability lazy, design guide, rate (tasks/s) 100,")
    assert "left out: redis_stream, 3: durability fsync" in text
    assert "left out: jetstream, 4: rate (tasks/s) 200" in text
