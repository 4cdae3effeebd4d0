"""The effect store: each class keeps its promise, also over processes and SIGKILL."""

import random
import signal
import sqlite3
import subprocess
import sys
import uuid

import numpy as np
import pytest

from hookbench.effects.classes import Execution, HandlerClass, mark_of, parse_handler_class
from hookbench.effects.read import read_effects
from hookbench.effects.store import SqliteEffectStore, seal_effects
from hookbench.errors import EffectStoreError, SettingError
from hookbench.ledger.events import Event
from hookbench.load.mix import TaskMix, parse_mix
from hookbench.worker.handlers.effect import EffectHandler
from hookbench.worker.handlers.noop import NoopHandler
from tests.fakes import MemoryRecorder
from tests.virtual import FixedClock

TASK = uuid.UUID("0192f3a0-0000-7000-8000-0000000000ff").bytes
ZEROS_AT_ITS_END = bytes(range(1, 13)) + bytes(4)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "effects.sqlite"


@pytest.fixture
def open_store(path):
    opened = []

    def open_(writer=1):
        opened.append(SqliteEffectStore(path, writer=writer, clock=FixedClock(monotonic_ns=7)))
        return opened[-1]

    yield open_
    for store in opened:
        store.close()


def test_each_plain_execution_has_an_effect(open_store, path):
    store, other = open_store(1), open_store(2)
    store.append(TASK, Execution(attempt=1))
    other.append(TASK, Execution(attempt=70_000))
    rows = read_effects(path).rows
    assert rows["class"].tolist() == [HandlerClass.PLAIN] * 2
    assert [bytes(task) for task in rows["task"]] == [TASK, TASK]
    assert rows["writer"].tolist() == [1, 2]
    assert rows["attempt"].tolist() == [1, 65_535]
    assert rows["time_ns"].tolist() == [7, 7]


def test_a_transactional_effect_happens_once_over_all_workers(open_store, path):
    assert open_store(1).apply_once(TASK, Execution())
    assert not open_store(2).apply_once(TASK, Execution(attempt=2))
    assert not open_store(1).apply_once(TASK, Execution(attempt=3))
    rows = read_effects(path).rows
    assert rows[["writer", "attempt"]].tolist() == [(1, 1)]


def test_a_stale_token_is_refused_by_name(open_store, path):
    assert open_store(1).apply_once(TASK, Execution(token=5))
    with pytest.raises(EffectStoreError, match=r"token 4 of task 0192f3a0.* older than 5"):
        open_store(2).apply_once(TASK, Execution(token=4))
    assert len(read_effects(path).rows) == 1


def test_an_idempotent_state_stays_that_of_one_execution(open_store, path):
    store = open_store()
    for task in (TASK, ZEROS_AT_ITS_END):
        for attempt in (1, 2):
            store.set_state(task, Execution(attempt=attempt), mark_of(task))
    effects = read_effects(path)
    assert len(effects.rows) == 4
    states = {bytes(row["task"]): int(row["value"]) for row in effects.state}
    assert states == {TASK: mark_of(TASK), ZEROS_AT_ITS_END: mark_of(ZEROS_AT_ITS_END)}


def test_an_effect_survives_the_kill_of_its_process(path):
    code = """
import os, signal, sys
from pathlib import Path
from hookbench.clock import SystemClock
from hookbench.effects.classes import Execution
from hookbench.effects.store import SqliteEffectStore
store = SqliteEffectStore(Path(sys.argv[1]), writer=3, clock=SystemClock())
store.append(bytes(15) + b"a", Execution())
store._db.execute("BEGIN IMMEDIATE")
store._db.execute("INSERT INTO done (task, token) VALUES (?, 0)", (bytes(15) + b"b",))
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", code, str(path)], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert [bytes(task) for task in read_effects(path).rows["task"]] == [bytes(15) + b"a"]
    after = SqliteEffectStore(path, writer=4, clock=FixedClock(monotonic_ns=8))
    assert after.apply_once(bytes(15) + b"b", Execution())  # the half of a transaction is gone
    after.close()


def test_many_processes_may_open_a_store_that_is_not_there_yet(path):
    code = """
import sys
from pathlib import Path
from hookbench.clock import SystemClock
from hookbench.effects.classes import Execution
from hookbench.effects.store import SqliteEffectStore
sys.stdin.read()
store = SqliteEffectStore(Path(sys.argv[1]), writer=int(sys.argv[2]), clock=SystemClock())
for _ in range(50):
    store.append(bytes(16), Execution())
store.close()
"""
    opened = [
        subprocess.Popen([sys.executable, "-c", code, str(path), str(n)], stdin=subprocess.PIPE)
        for n in range(6)
    ]
    for process in opened:
        process.stdin.close()  # all of them at once
    assert [process.wait(timeout=60) for process in opened] == [0] * 6
    rows = read_effects(path).rows
    assert np.bincount(rows["writer"]).tolist() == [50] * 6
    seal_effects(path)
    assert list(path.parent.iterdir()) == [path]


def test_a_sealed_store_is_one_file_that_needs_no_writing(open_store, path):
    store = open_store()
    store.append(TASK, Execution())
    with pytest.raises(EffectStoreError):
        seal_effects(path)
    store.close()
    seal_effects(path)
    assert list(path.parent.iterdir()) == [path]
    assert len(read_effects(path).rows) == 1


def test_what_is_no_store_is_refused_by_name(tmp_path, path):
    with pytest.raises(EffectStoreError, match="no such file"):
        read_effects(path)
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(EffectStoreError, match=r"effects\.sqlite"):
        read_effects(path)
    with pytest.raises(EffectStoreError, match="check that the folder exists"):
        SqliteEffectStore(tmp_path / "none" / "e", writer=1, clock=FixedClock(monotonic_ns=1))


def test_a_newer_schema_is_refused(open_store, path):
    open_store().close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version=9")
    db.close()
    with pytest.raises(EffectStoreError, match="schema 9, this version reads up to 1"):
        read_effects(path)


@pytest.mark.parametrize("handler_class", HandlerClass)
async def test_the_handler_has_the_effect_that_the_repository_names(
    handler_class, open_store, path, make_task
):
    recorder = MemoryRecorder()
    handler = EffectHandler(open_store(), NoopHandler(), recorder=recorder)
    task = make_task(repo_id=f"synthetic/{handler_class.label}/repo-3")
    for attempt in (1, 2):
        await handler(task, Execution(attempt=attempt))
    effects = read_effects(path)
    once = handler_class is HandlerClass.TRANSACTIONAL
    assert effects.rows["class"].tolist() == [handler_class] * (1 if once else 2)
    assert [event for event, *_ in recorder.events] == [Event.EFFECT] * (1 if once else 2)
    assert len(effects.state) == (1 if handler_class is HandlerClass.IDEMPOTENT else 0)


@pytest.mark.parametrize("repo_id", ["synthetic/repo-1", "synthetic/magic/repo-1"])
async def test_a_task_without_a_class_fails(repo_id, open_store, path, make_task):
    handler = EffectHandler(open_store(), NoopHandler())
    with pytest.raises(SettingError):
        await handler(make_task(repo_id=repo_id), Execution())
    assert len(read_effects(path).rows) == 0


def test_a_mix_offers_its_shares():
    mix = parse_mix("plain=2, idempotent=1,transactional=1")
    rng = random.Random(7)
    chosen = [mix.choose(rng) for _ in range(4000)]
    assert 1850 < chosen.count("plain") < 2150
    assert 850 < chosen.count("idempotent") < 1150
    assert parse_mix(mix.text).text == mix.text
    assert {TaskMix({"plain": 0, "idempotent": 3}).choose(rng) for _ in range(50)} == {"idempotent"}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("plain", "plain"),
        ("plain=x", "plain=x"),
        ("magic=1", "magic"),
        ("plain=-1", "-1"),
        ("plain=nan", "nan"),
        ("plain=0", "above 0"),
        ("", "class=weight"),
    ],
)
def test_a_mix_that_is_none_is_refused(text, named):
    with pytest.raises(SettingError, match=named):
        parse_mix(text)


def test_classes_are_found_by_their_labels():
    assert [parse_handler_class(item.label) for item in HandlerClass] == list(HandlerClass)
    with pytest.raises(SettingError, match="transactional, idempotent, plain"):
        parse_handler_class("magic")
