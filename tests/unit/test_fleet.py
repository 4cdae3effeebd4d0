"""What a fleet makes of the ends and the words of its processes."""

from types import SimpleNamespace

import pytest

from hookbench.rehearsal.fleet import Fleet, Member
from tests.virtual import FixedClock


@pytest.fixture
def fleet(tmp_path):
    return Fleet(clock=FixedClock(), ledger=tmp_path, logs=tmp_path, control=tmp_path)


@pytest.fixture
def join(fleet, tmp_path, monkeypatch):
    """Add a process that ended with a code, after it wrote a log and said something."""
    monkeypatch.setattr(
        fleet, "_spawn", lambda *_arguments: SimpleNamespace(pid=78, exit_code=None)
    )

    def add(role, code, *, log="", said=b""):
        (tmp_path / f"{role}-0.log").write_text(log)
        output = tmp_path / f"{role}-0.jsonl"
        output.write_bytes(said)
        member = Member(
            role=role,
            number=0,
            arguments=[],
            phase_file=tmp_path / "phase.json",
            child=SimpleNamespace(pid=77, exit_code=code),
            output=output,
        )
        fleet.members.append(member)
        fleet.poll()
        return member

    return add


FULL = "hookbench: ledger segment x: no room left; free some room or choose another folder"


def incidents(fleet):
    return [incident.what for incident in fleet.incidents]


def test_the_last_words_of_a_process_that_failed_are_in_its_incident(fleet, join):
    worker = join("worker", 2, log=f"a warning\n{FULL}\n")
    assert incidents(fleet) == [f"worker-0 (pid 77) ended with 2 ({FULL}), replaced by pid 78"]
    assert worker.child.pid == 78
    producer = join("producer", 2, log=f"{FULL}\n")
    assert incidents(fleet)[1:] == [f"producer-0 (pid 77) ended with 2 ({FULL}), not replaced"]
    assert producer.expected_end


def test_a_killed_process_has_no_last_words(fleet, join):
    join("producer", -9, log="a warning that has nothing to do with it\n")
    assert incidents(fleet) == ["producer-0 (pid 77) was killed by SIGKILL, not replaced"]
    fleet.poll()
    assert len(fleet.incidents) == 1


def test_half_of_a_line_is_an_incident_and_what_follows_is_heard(fleet, join):
    member = join(
        "worker", None, said=b'{"event": "phase", "ind{"event": "x"}\n{"index": 3}\n{"done": 5'
    )
    assert member.said == {"index": 3}
    (what,) = incidents(fleet)
    assert what.startswith('worker-0 (pid 77) said what is no JSON: b\'{"event": "phase"')
