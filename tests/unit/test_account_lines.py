"""What is said of an account beside its table, and that a task's story names its faults."""

import io

import pytest
from rich.console import Console

from hookbench.faults.base import FaultRecord
from hookbench.ledger.events import Broker, Event
from hookbench.ledger.model import Residue
from hookbench.migration.phases import Phase
from hookbench.report import account_lines
from hookbench.report.figures import print_figures
from hookbench.report.table import print_run
from hookbench.results.check import check_run
from hookbench.results.steps import plan_steps
from hookbench.results.store import MANIFEST_NAME, StepRecord, encode_manifest, load_manifest
from hookbench.results.story import tell_task
from tests.histories import MS, History, task_id
from tests.unit.test_store import make_manifest

NATS = Broker.NATS
PHASES = (Phase.REDIS_ONLY, Phase.NATS_PRIMARY)


@pytest.fixture
def run(tmp_path):
    """A stored run: NATS is killed after task 1 was acknowledged, and loses task 2."""
    (tmp_path / "ledger").mkdir()
    history = History(tmp_path / "ledger")
    history.clock.now_ns += 100 * MS
    history.put(1, step=1, redis=False, nats=1)
    history.work(1, step=1, broker=NATS)
    history.put(2, step=1, redis=False, nats=2)
    history.fault(length_ms=400, kind="kill", target="nats")
    more = {"value": history.clock.now_ns, "repository": 1}
    history.say("producer.1", Event.PUT_INVOKED, 3, step=1, **more)
    history.clock.now_ns += 500 * MS
    history.say("producer.1", Event.PUT_OK, 3, step=1, broker=NATS, value=3)
    history.say("producer.1", Event.ACCEPTED, 3, step=1)
    history.work(1, step=1, broker=NATS, who="worker.3")
    history.work(3, step=1, broker=NATS, who="worker.3")
    for writer in history.writers.values():
        writer.close()
    manifest = make_manifest()
    manifest.status = "complete"
    manifest.residue = Residue(places={})
    manifest.settings = {"phases": [int(phase) for phase in PHASES]}
    start_ns = 1_000 * MS
    edges_ns = [start_ns, start_ns + 100 * MS, history.clock.now_ns]
    manifest.steps = [
        StepRecord(plan=plan, start_ns=edges_ns[index], end_ns=edges_ns[index + 1])
        for index, plan in enumerate(plan_steps(PHASES))
    ]
    manifest.faults = [
        FaultRecord(
            index=window.index,
            kind=window.kind,
            target=window.target,
            name=window.name,
            planned_ns=window.begin_ns,
            begin_ns=window.begin_ns,
            end_ns=window.end_ns,
        )
        for window in history.faults
    ]
    (tmp_path / MANIFEST_NAME).write_bytes(encode_manifest(manifest))
    return tmp_path


def shown(manifest):
    out = io.StringIO()
    print_run(Console(file=out, width=160), manifest)
    return out.getvalue().splitlines()


def test_what_a_fault_did_is_shown_with_its_name_and_place(run):
    lines = shown(check_run(run))
    assert (
        "counts    3 attempted, 3 acknowledged, 1 lost, 1 duplicated, 0 recovered, 0 unexpected;"
        " 2 came out, 0 wait" in lines
    )
    assert "cause     1 lost in nats_primary after accepted: fault 0 kill nats" in lines
    assert "          1 done again in nats_primary after ack_sent: fault 0 kill nats" in lines
    (fault,) = [line for line in lines if line.startswith("fault")]
    assert "0 kill nats for 400 ms: lost 1 of 3 exposed, stuck 0 of 3 exposed" in fault
    assert "duplicated 1 of 3 exposed" in fault
    assert "; answered 102 ms after its end" in fault
    assert "ms without nats put (again 502 ms after its beginning)" in fault
    assert (
        "away      no put on nats for 501 ms from 0.1 s on, in nats_primary, fault 0 kill nats"
        in lines
    )


def test_the_figures_survive_the_manifest(run):
    manifest = check_run(run)
    (run / MANIFEST_NAME).write_bytes(encode_manifest(manifest))
    again = load_manifest(run)
    assert again.account == manifest.account
    assert again.account.counts.lost == 1
    assert again.account.unavailable[0].fault_index == 0
    assert shown(again) == shown(manifest)


def test_the_story_of_a_task_names_the_faults_of_its_life(run):
    _, chapters, end = tell_task(run, str(task_id(1)))
    told = [(chapter.event, chapter.who) for chapter in chapters]
    assert told.index(("fault_begin", "harness")) == told.index(("ack_sent", "worker.00002")) + 1
    assert told[-1] == ("ack_sent", "worker.00003")
    assert "done 2 times" in end
    (begin,) = [chapter for chapter in chapters if chapter.event == "fault_begin"]
    assert (begin.text, begin.phase) == ("fault 0 (kill nats) begins", "nats_primary")


def test_the_story_of_a_lost_task_goes_on_after_its_last_event(run):
    _, chapters, _ = tell_task(run, str(task_id(2)))
    assert [chapter.event for chapter in chapters][-3:] == ["accepted", "fault_begin", "fault_end"]


def test_an_account_of_an_older_version_has_fewer_lines(run):
    manifest = check_run(run)
    account = manifest.account
    account.counts, account.redelivery_ns, account.unavailable = None, None, []
    assert account_lines.count_lines(account) == []
    assert account_lines.restart_lines(account) == []
    assert account_lines.unavailable_lines(account) == []


def test_of_many_causes_and_windows_the_largest_are_shown(run):
    account = check_run(run).account
    account.attributions = account.attributions * 20
    account.unavailable = account.unavailable * 20
    causes, windows = account_lines.cause_lines(account), account_lines.unavailable_lines(account)
    assert len(causes) == account_lines.MOST_CAUSES + 1
    assert causes[-1] == f"{40 - account_lines.MOST_CAUSES} more causes, see --json"
    assert windows[-1] == f"{20 - account_lines.MOST_WINDOWS} shorter windows, see --json"


def figures(manifest):
    out = io.StringIO()
    print_figures(Console(file=out, width=80), manifest)
    return out.getvalue().splitlines()


def test_the_figures_of_every_row_fit_into_80_columns(run):
    manifest = check_run(run)
    lines = figures(manifest)
    assert {"p50", "p90", "p99", "p99.9", "max"} <= set(lines[1].split())
    put = [index for index, line in enumerate(lines) if " enqueue " in line]
    assert [lines[index].split()[0] for index in put] == ["redis_only", "→", "nats_primary"]
    phase = manifest.account.rows[2]
    shown = lines[put[2]].split()[2:], lines[put[2] + 1].split()[1:]
    for cells, latency_ns in zip(shown, (phase.enqueue_ns, phase.end_to_end_ns), strict=True):
        assert cells[:5] == [account_lines.ms(value) for value in latency_ns.values()]
    assert shown[0][5] == f"{phase.accepted_per_s:,.0f}"
    assert shown[1][5] == f"{phase.done_per_s:,.0f}"
    transition = manifest.account.rows[1]
    assert lines[put[1]].split()[-1] == account_lines.ms(transition.gap_accepted_ns)
    assert lines[put[1] + 1].split()[-1] == account_lines.ms(transition.gap_done_ns)
    assert "nats_primary: 1 lost: vanished" in lines
    assert "nats_primary: duplicated: 1 deliveries, - effects" in lines
    assert max(map(len, lines)) <= 80


def test_the_places_of_what_is_stuck_are_told(run):
    manifest = check_run(run)
    manifest.account.rows[0].stuck = {"redis-work/orphaned": 3}
    manifest.account.rows[0].redelivered = 2
    lines = figures(manifest)
    assert "redis_only: 3 stuck: redis-work/orphaned" in lines
    assert "redis_only: 2 redelivered by their broker" in lines
    manifest.account = None
    assert "hookbench check 0001-abc" in figures(manifest)[0]
