"""The same scenario and seed twice: the same tasks, due in the same phases at the same times."""

from hookbench.ledger.events import Event
from hookbench.ledger.read import read_ledger
from hookbench.results.store import load_manifest, resolve_run
from tests.integration.test_rehearsal import rehearse

SEED = ["--phases=0,1,3", "--phase-seconds=2", "--seed=11"]


def facts(out):
    done = rehearse(out, *SEED)
    assert done.returncode in (0, 1), done.stderr
    run = resolve_run("latest", out)
    manifest = load_manifest(run)
    first_ns = manifest.steps[0].planned_ns
    ledger = read_ledger(run / "ledger")
    put = ledger.records["event"] == Event.PUT_INVOKED
    offsets = []
    for number, name in enumerate(ledger.writers):
        if name.startswith("producer"):
            mine = put & (ledger.writer == number)
            offsets.append(sorted((ledger.records["value"][mine] - first_ns).tolist()))
    account = manifest.account
    return {
        "phase times": [step.planned_ns - first_ns for step in manifest.steps],
        "offered": [row.offered for row in account.rows if not row.transition],
        "tasks": account.tasks,
        "pushes": (manifest.git.pushes, account.pushed_tasks),
        "offsets": offsets,
        "mirrors": manifest.git.refs,
    }


def test_the_same_seed_offers_the_same(tmp_path):
    first, second = facts(tmp_path / "a"), facts(tmp_path / "b")
    assert first == second
    assert first["phase times"] == [0, 2_000_000_000, 4_000_000_000]
    assert first["offered"] == [800, 800, 800]
    assert first["pushes"] == (12, 12)
    assert len(first["offsets"]) == 2
    assert all(len(set(offsets)) == 1_200 for offsets in first["offsets"])
