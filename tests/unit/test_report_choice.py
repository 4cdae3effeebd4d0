"""Which notebooks a report is made of."""

from pathlib import Path

import pytest

from hookbench.errors import SettingError
from hookbench.faults.base import FaultRecord
from hookbench.report.choice import choose_parts, queue_of
from hookbench.results.store import MANIFEST_SCHEMA, Manifest
from tests.run_by_hand import ENVIRONMENT

ALL = [0, 1, 2, 3, 4]


def run(name, phases, *, design="guide", faults=(), **settings):
    manifest = Manifest(
        schema=MANIFEST_SCHEMA,
        run=name,
        status="complete",
        design=design,
        seed=7,
        durability="lazy",
        settings={"phases": phases, **settings},
        environment=ENVIRONMENT,
        started="2026-01-01T00:00:00Z",
        brokers=[],
        faults=list(faults),
    )
    return Path("/runs") / name, manifest


def fault(begin_ns):
    return FaultRecord(
        index=0, kind="kill", target="nats", name="kill nats", planned_ns=5, begin_ns=begin_ns
    )


def chosen(runs, **options):
    return [(part.notebook, part.parameters) for part in choose_parts(runs, **options)]


def test_one_run():
    both = {"runs": ["/runs/a"]}
    assert chosen([run("a", ALL)]) == [
        ("00_method", both),
        ("02_phases", {"run": "/runs/a"}),
        ("05_verdict", both),
    ]


def test_a_fault_that_fired_has_a_part_and_one_that_did_not_has_none():
    fired, missed = run("a", ALL, faults=[fault(9)]), run("b", ALL, faults=[fault(None)])
    assert [item for item in chosen([fired, missed]) if item[0] == "03_faults"] == [
        ("03_faults", {"run": "/runs/a"})
    ]


def test_queues_are_compared_where_there_are_two():
    runs = [
        run("a", [0], redis_kind="list"),
        run("b", [0], redis_kind="stream"),
        run("c", [4]),
        run("d", ALL),
    ]
    assert [queue_of(manifest) for _path, manifest in runs] == [
        "redis_list", "redis_stream", "jetstream", None,
    ]  # fmt: skip
    found = chosen(runs)
    assert ("01_queues_compared", {"runs": ["/runs/a", "/runs/b", "/runs/c"]}) in found
    assert [item for item in found if item[0] == "02_phases"] == [("02_phases", {"run": "/runs/d"})]
    same = [run("a", [0]), run("b", [0])]
    assert "01_queues_compared" not in [name for name, _parameters in chosen(same)]
    with pytest.raises(SettingError, match="01_queues_compared: it compares queues"):
        choose_parts(same, notebooks=["01"])


def test_those_that_are_asked_for(tmp_path):
    runs = [run("a", [0]), run("b", [4])]
    assert chosen(runs, notebooks=["05", "02_phases.ipynb"]) == [
        ("02_phases", {"run": "/runs/a"}),
        ("02_phases", {"run": "/runs/b"}),
        ("05_verdict", {"runs": ["/runs/a", "/runs/b"]}),
    ]
    assert ("04_capacity", {"capacity": str(tmp_path)}) in chosen(runs, capacity=tmp_path)
    with pytest.raises(SettingError, match="04_capacity: give --capacity"):
        choose_parts(runs, notebooks=["04"])
    assert ("06_simulation", {"search": str(tmp_path)}) in chosen(runs, simulation=tmp_path)
    assert ("07_scale", {"matrices": [str(tmp_path)]}) in chosen(runs, matrix=tmp_path)
    path = tmp_path / "growth.json"
    assert ("08_growth", {"growth": str(path)}) in chosen(runs, growth=path)
    for name, option in (("06", "--sim"), ("07", "--matrix"), ("08", "--growth")):
        with pytest.raises(SettingError, match=f"{name}_.*: give {option}"):
            choose_parts(runs, notebooks=[name])
    with pytest.raises(SettingError, match="03_faults: no fault fired"):
        choose_parts(runs, notebooks=["03"])


@pytest.mark.parametrize("name", ["", "0", "09", "verdict", "05_verdicts"])
def test_no_such_notebook(name):
    with pytest.raises(SettingError, match=f"--notebook {name!r}: use one of 00_method"):
        choose_parts([run("a", ALL)], notebooks=[name])
