"""Outboxes of a rehearsal: which producer has which file, and what is read from it afterwards."""

import pytest

from hookbench.migration.spool import Spool
from hookbench.rehearsal.arguments import outbox_path, producer_arguments
from hookbench.rehearsal.conclude import _in_outboxes
from hookbench.rehearsal.settings import RehearsalSettings
from hookbench.results.store import RunFolder
from hookbench.task import Names, encode_task


class Stage:
    names = Names()
    monitor_urls = "http://127.0.0.1:8222"
    stream = type("Stream", (), {"storage": "file", "replicas": 1})


class Links:
    def url(self, role, broker):
        return f"{broker}://{role}"


def arguments(tmp_path, number, **settings):
    return producer_arguments(RehearsalSettings(**settings), Stage, Links(), tmp_path, number, 0)


def test_each_producer_has_an_outbox_of_its_own(tmp_path):
    spools = []
    for number in range(2):
        told = arguments(tmp_path, number, measures="outbox")
        spools.append(told[told.index("--spool") + 1])
    assert spools == [str(outbox_path(tmp_path, number)) for number in range(2)]
    assert spools[0] != spools[1]


@pytest.mark.parametrize("measures", ["", "message_ids"])
def test_a_producer_without_that_measure_has_none(tmp_path, measures):
    assert "--spool" not in arguments(tmp_path, 0, measures=measures)


def test_what_is_left_in_all_of_them_is_read_also_what_was_set_aside(tmp_path, make_task):
    (tmp_path / "run").mkdir()
    folder = RunFolder(tmp_path / "run", tmp_path / "final")
    tasks = [make_task() for _ in range(3)]
    for number, task in enumerate(tasks[:2]):
        with Spool(outbox_path(folder.work, number)) as spool:
            spool.add(str(task.id), encode_task(task), intended_ns=0, boot_id=bytes(16))
    with Spool(outbox_path(folder.work, 1)) as spool:
        row = spool.add(str(tasks[2].id), encode_task(tasks[2]), intended_ns=0, boot_id=bytes(16))
        spool.reject(row, "too large")
    settings = RehearsalSettings(producers=3, measures="outbox")
    assert _in_outboxes(folder, settings) == [str(task.id) for task in tasks]
