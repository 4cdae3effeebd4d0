"""The frame of the proofs, and every file in evidence/."""

import os
import re
import subprocess
import sys
from types import SimpleNamespace

import msgspec
import pytest

from tests.evidence.conftest import FOLDER, pytest_collection_modifyitems
from tests.evidence.record import ROOT, Evidence, EvidenceVerdict, Proof, load_evidence, tree_commit
from tests.virtual import FixedClock

FILES = sorted((ROOT / "evidence").glob("*.json"))
CLAIM = "One sentence."

PROOFS = """
import pytest

@pytest.fixture
def broken():
    raise OSError("no broker")

@pytest.fixture
def breaks_later():
    yield
    raise OSError("does not stop")

def evidence(claim):
    return pytest.mark.evidence(claim=claim, seed=7)

@evidence("a")
def test_holds(proof):
    proof.record(tasks=3, per_broker={"redis": 1, "nats": 2}, share=0.5)
    proof.record_versions(redis="8.2.3")
    proof.conclude([])

@evidence("b")
def test_does_not_hold(proof):
    proof.conclude(["one task too many"])

@evidence("c")
def test_cannot_tell(proof):
    proof.conclude(["one task too many"], unknown=["the connection was cut"])

@evidence("d")
def test_raises(proof):
    proof.conclude([])
    raise ValueError("bang\\nand more")

@evidence("e")
def test_is_silent(proof):
    pass

@evidence("f")
def test_skips(proof):
    pytest.skip("not here")

@evidence("g")
def test_cannot_begin(broken, proof):
    proof.conclude([])

@evidence("h")
def test_cannot_end(breaks_later, proof):
    proof.conclude([])

@evidence("i")
@pytest.mark.parametrize("size", ["big"])
def test_with_parameters(proof, size):
    proof.conclude([])

@evidence("j")
@pytest.mark.skip(reason="for now")
def test_marked_to_skip(proof):
    proof.conclude([])
"""


def run_proofs(folder, text):
    (folder / "test_proofs.py").write_text(text)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = evidence\n")
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "tests.evidence.conftest"),
            *("-p", "no:cacheprovider", str(folder)),
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_what_is_not_proven_is_stored_and_fails(tmp_path):
    done = run_proofs(tmp_path, PROOFS)
    assert done.returncode == 1, done.stderr
    found = {path.stem: load_evidence(path) for path in (tmp_path / "evidence").iterdir()}
    assert {name: (item.verdict, item.reason) for name, item in found.items()} == {
        "holds": ("proven", ""),
        "does_not_hold": ("refuted", "one task too many"),
        "cannot_tell": ("unknown", "the connection was cut"),
        "raises": ("unknown", "ValueError: bang"),
        "is_silent": ("unknown", "the proof ended without a conclusion"),
        "skips": ("unknown", "Skipped: not here"),
        "cannot_begin": ("unknown", "OSError: no broker"),
        "cannot_end": ("unknown", "OSError: does not stop"),
        "with_parameters-big": ("proven", ""),
        "marked_to_skip": ("unknown", "Skipped: for now"),
    }
    # What breaks before or after the test itself is an error; "passed" is the part before.
    assert "5 failed, 3 passed, 3 errors in" in done.stdout.splitlines()[-1]
    for name, item in found.items():
        assert re.search(rf"^{name} +{item.verdict} +commit", done.stdout, re.MULTILINE)
    holds = found["holds"]
    assert holds.figures == {"tasks": 3, "per_broker": {"redis": 1, "nats": 2}, "share": 0.5}
    assert holds.versions["redis"] == "8.2.3"
    assert (holds.claim, holds.seed, holds.commit) == ("a", 7, tree_commit())
    assert str(tmp_path) not in (tmp_path / "evidence" / "holds.json").read_text()


@pytest.mark.parametrize(
    "marks",
    [
        [],
        [pytest.mark.evidence],
        [pytest.mark.evidence(claim="a")],
        [pytest.mark.evidence("a", 7)],
        [pytest.mark.evidence(claim="a", seed=7, name="b")],
        [pytest.mark.evidence(claim="a", seed=7), pytest.mark.xfail],
    ],
)
def test_a_proof_says_what_it_claims(marks):
    known = {item.mark.name: item.mark for item in marks}
    item = SimpleNamespace(
        path=FOLDER / "test_proof.py", nodeid="test_proof.py::test_a", get_closest_marker=known.get
    )
    with pytest.raises(pytest.UsageError, match=r"test_proof\.py::test_a: mark it"):
        pytest_collection_modifyitems([item])


def test_other_tests_need_no_claim():
    item = SimpleNamespace(
        path=ROOT / "tests/unit/test_a.py", get_closest_marker=lambda _name: None
    )
    pytest_collection_modifyitems([item])


def test_a_proof_that_was_killed_is_unknown(tmp_path):
    text = "import os, pytest\n@pytest.mark.evidence(claim='a', seed=7)\n"
    run_proofs(tmp_path, text + "def test_dies(proof):\n    proof.conclude([])\n    os._exit(9)\n")
    found = load_evidence(tmp_path / "evidence" / "dies.json")
    assert (found.verdict, found.reason) == ("unknown", "the proof did not finish")


@pytest.mark.parametrize("value", [[1], None, float("nan"), {"a": [1]}, {"a": float("inf")}])
def test_what_is_no_figure_is_named(tmp_path, value):
    proof = Proof(tmp_path, name="a", claim=CLAIM, seed=7, clock=FixedClock())
    with pytest.raises(TypeError, match="figure tasks is"):
        proof.record(tasks=value)
    assert proof.evidence.figures == {}


@pytest.mark.parametrize(
    "change",
    [
        {"verdict": "certain"},
        {"claim": "two\nlines"},
        {"claim": ""},
        {"seed": None},
        {"started": "yesterday"},
        {"figures": {"tasks": [1, 2]}},
        {"note": "unknown field"},
    ],
)
def test_another_form_is_refused(tmp_path, change):
    path = Proof(tmp_path, name="a", claim=CLAIM, seed=7, clock=FixedClock()).path
    data = msgspec.json.decode(path.read_bytes())
    load_evidence(path)
    path.write_bytes(msgspec.json.encode({**data, **change}))
    with pytest.raises(msgspec.ValidationError):
        load_evidence(path)
    for name in Evidence.__struct_fields__:
        path.write_bytes(msgspec.json.encode({key: data[key] for key in data if key != name}))
        with pytest.raises(msgspec.ValidationError, match=name):
            load_evidence(path)


def git(folder, *arguments):
    command = ["git", "-C", str(folder), "-c", "user.name=A", "-c", "user.email=a@b.example"]
    return subprocess.run([*command, *arguments], check=True, capture_output=True, text=True)


def test_only_evidence_may_differ_from_the_commit(tmp_path):
    git(tmp_path, "init", "--quiet")
    (tmp_path / "evidence").mkdir()
    for name in ("code.py", "evidence/a.json"):
        (tmp_path / name).write_text("")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "a")
    assert not tree_commit(tmp_path).endswith("+")
    (tmp_path / "evidence" / "a.json").write_text("changed")
    (tmp_path / "evidence" / "b.json").write_text("new")
    assert not tree_commit(tmp_path).endswith("+")
    (tmp_path / "new.py").write_text("")
    assert tree_commit(tmp_path).endswith("+")
    (tmp_path / "new.py").unlink()
    (tmp_path / "code.py").write_text("changed")
    assert tree_commit(tmp_path).endswith("+")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_is_committed_is_proven(path):
    found = load_evidence(path)
    assert found.name == path.stem
    assert found.verdict is EvidenceVerdict.PROVEN, found.reason
    assert found.reason == ""
    assert re.fullmatch(r"[0-9a-f]{7}", found.commit), "a changed tree is not evidence"
    assert found.figures
    assert "/" not in "".join(found.versions.values())
    sources = "".join(item.read_text() for item in (ROOT / "tests/evidence").glob("test_*.py"))
    assert f"def test_{found.name.partition('-')[0]}(" in sources, "no proof makes this file"
