import fcntl
import os
import subprocess
import sys

import pytest

from hookbench.clock import SystemClock
from hookbench.errors import RepositoryError, SettingError, SpoolError
from hookbench.githook import uninstall
from hookbench.githook.config import CONFIG_NAME, HookConfig, write_config
from hookbench.githook.install import MARK, SPOOL_NAME, hook_path, install_hook
from hookbench.githook.locks import hold_settings, lock_path, try_exclusive
from hookbench.githook.uninstall import uninstall_hook
from hookbench.migration.spool import Spool
from tests.virtual import FixedClock

FOREIGN = "#!/bin/sh\necho mine\n"


class BlockedClock(FixedClock):
    """One that moves only when somebody blocks on it."""

    def __init__(self, on_block=None):
        super().__init__()
        self.on_block = on_block

    def block(self, seconds):
        self.now_ns += int(seconds * 1e9)
        if self.on_block is not None:
            self.on_block()


@pytest.fixture
def bare(tmp_path):
    path = tmp_path / "app.git"
    subprocess.run(["git", "init", "--quiet", "--bare", path], check=True)
    return path


@pytest.fixture
def installed(bare):
    install(bare)
    return bare


def install(bare, spool=None):
    spool = spool or bare.resolve() / SPOOL_NAME
    config = HookConfig(repo_id="app.git", spool=str(spool), phase="redis_only")
    install_hook(bare, config)
    return config


def add(spool_path, count):
    with Spool(spool_path) as spool:
        for number in range(count):
            spool.add(f"id-{number}", b"{}", intended_ns=0, boot_id=bytes(16))


def files(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }


def remove(bare, **options):
    return uninstall_hook(bare, **{"clock": SystemClock(), **options})


def test_all_that_was_installed_is_removed(bare):
    before = {name for name in files(bare) if not name.endswith(".sample")}
    install(bare)
    add(bare / SPOOL_NAME, 0)
    done = remove(bare)
    assert {name for name in files(bare) if not name.endswith(".sample")} == before
    assert not lock_path(bare / SPOOL_NAME).exists()
    assert (done.repo_id, done.abandoned, done.rejected, done.spool_kept) == (
        "app.git",
        0,
        0,
        False,
    )


def test_what_is_not_installed_is_a_clear_error(bare, tmp_path):
    for folder in (bare, tmp_path / "nowhere"):
        with pytest.raises(RepositoryError, match="no hook of hookbench is installed"):
            remove(folder)


def test_twice_is_once(installed):
    remove(installed)
    with pytest.raises(RepositoryError, match="no hook of hookbench is installed"):
        remove(installed)


def test_a_foreign_hook_is_left_alone_with_all_else(installed):
    hook_path(installed).write_text(FOREIGN)
    before = files(installed)
    with pytest.raises(RepositoryError, match="not hookbench's"):
        remove(installed)
    assert files(installed) == before


def test_a_hook_that_cannot_be_read_is_left_alone(bare):
    hook_path(bare).mkdir(parents=True)
    with pytest.raises(RepositoryError, match="left alone"):
        remove(bare)
    assert hook_path(bare).is_dir()


def test_settings_without_a_hook_are_removed(installed):
    hook_path(installed).unlink()
    remove(installed)
    assert not (installed / CONFIG_NAME).exists()


def test_a_hook_without_settings_stays_for_its_spool_is_not_known(installed):
    (installed / CONFIG_NAME).unlink()
    with pytest.raises(SettingError, match="run hookbench hook install"):
        remove(installed)
    assert MARK in hook_path(installed).read_text()


def test_waiting_tasks_refuse_with_their_number_and_the_way_out(installed):
    add(installed / SPOOL_NAME, 3)
    before = files(installed)
    with pytest.raises(RepositoryError) as caught:
        remove(installed)
    text = str(caught.value)
    assert f"{SPOOL_NAME}: 3;" in text
    assert f"hookbench hook flush --config {installed / CONFIG_NAME}" in text
    assert "--abandon" in text
    assert files(installed) == before


def test_abandoned_tasks_are_counted_and_stay_in_the_spool(installed):
    add(installed / SPOOL_NAME, 3)
    done = remove(installed, abandon=True)
    assert (done.abandoned, done.spool_kept) == (3, True)
    assert not os.path.lexists(hook_path(installed))
    assert not (installed / CONFIG_NAME).exists()
    with Spool(done.spool) as spool:
        assert len(spool) == 3


def test_tasks_set_aside_keep_the_spool_and_do_not_refuse(installed):
    add(installed / SPOOL_NAME, 1)
    with Spool(installed / SPOOL_NAME) as spool:
        spool.reject(spool.oldest(1)[0].number, "too large")
    done = remove(installed)
    assert (done.abandoned, done.rejected, done.spool_kept) == (0, 1, True)


def test_an_empty_spool_elsewhere_is_kept_for_others_may_share_it(bare, tmp_path):
    spool = tmp_path / "shared.sqlite"
    install(bare, spool)
    assert remove(bare).spool_kept
    assert spool.is_file()


def test_a_spool_that_is_gone_does_not_come_back(bare, tmp_path):
    spool = tmp_path / "folder" / "spool.sqlite"
    write_config(bare, HookConfig(repo_id="app.git", spool=str(spool)))
    assert not remove(bare).spool_kept
    assert not spool.parent.exists()


def test_a_damaged_spool_is_named_and_nothing_removed(installed):
    (installed / SPOOL_NAME).write_bytes(b"this is no database, and long enough" * 40)
    before = files(installed)
    with pytest.raises(SpoolError, match=SPOOL_NAME):
        remove(installed)
    assert files(installed) == before


@pytest.mark.parametrize("abandon", [False, True])
def test_a_running_flush_is_not_cut_off(installed, abandon):
    flush = try_exclusive(lock_path(installed / SPOOL_NAME))
    os.pwrite(flush, b"4711\n", 0)
    before = files(installed)
    with pytest.raises(RepositoryError, match=r"flush \(process 4711\) runs"):
        remove(installed, abandon=abandon)
    assert files(installed) == before
    os.close(flush)
    remove(installed)


def test_two_who_ask_for_a_flush_do_not_take_each_other_for_one(installed):
    path = lock_path(installed / SPOOL_NAME)
    asking = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(asking, fcntl.LOCK_SH)
    assert not uninstall_hook(installed, clock=SystemClock()).spool_kept
    os.close(asking)


def test_a_push_that_is_being_received_is_waited_for(installed):
    spool = installed / SPOOL_NAME
    push = hold_settings(installed / CONFIG_NAME, SystemClock())
    push.__enter__()

    def finish():
        add(spool, 1)
        push.__exit__(None, None, None)
        clock.on_block = None

    clock = BlockedClock(finish)
    with pytest.raises(RepositoryError, match=r"wait in the spool .*: 1;"):
        remove(installed, clock=clock)
    assert hook_path(installed).exists()


def test_pushes_without_end_refuse_within_a_bound(installed):
    before = files(installed)
    with (
        hold_settings(installed / CONFIG_NAME, SystemClock()),
        pytest.raises(RepositoryError, match="being received for more than 10 s"),
    ):
        remove(installed, clock=BlockedClock())
    assert files(installed) == before


def test_a_push_waits_for_an_uninstall_and_spools_nothing_after_it(installed):
    config = installed / CONFIG_NAME
    holder = os.open(config, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)

    def finish():
        config.unlink()
        os.close(holder)

    with (
        pytest.raises(SettingError, match="No such file"),
        hold_settings(config, BlockedClock(finish)),
    ):
        raise AssertionError("the settings were gone")


def test_a_push_that_opened_settings_which_are_gone_when_it_has_them_spools_nothing(
    installed, monkeypatch
):
    config = installed / CONFIG_NAME
    lock = fcntl.flock

    def flock(descriptor, kind):
        config.unlink(missing_ok=True)
        lock(descriptor, kind)

    monkeypatch.setattr(fcntl, "flock", flock)
    with (
        pytest.raises(SettingError, match="No such file"),
        hold_settings(config, BlockedClock()),
    ):
        raise AssertionError("the settings were gone")


def test_a_push_does_not_wait_for_ever(installed):
    config = installed / CONFIG_NAME
    holder = os.open(config, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    clock = BlockedClock()
    with pytest.raises(SettingError, match="uninstall holds"), hold_settings(config, clock):
        raise AssertionError("the settings were held")
    assert clock.now_ns == pytest.approx(5e9)
    os.close(holder)


def test_a_push_after_an_uninstall_says_so_and_makes_no_spool(installed):
    config = installed / CONFIG_NAME
    remove(installed)
    done = subprocess.run(
        [sys.executable, "-m", "hookbench.githook.receive", str(config)],
        input=b"a b c\n",
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0
    assert b"no task was queued" in done.stderr
    assert not (installed / SPOOL_NAME).exists()


def test_settings_that_cannot_be_removed_bring_the_hook_back(installed, monkeypatch):
    before = files(installed)
    real = uninstall.Path.unlink

    def refuse(path, **options):
        if path.name == CONFIG_NAME:
            raise PermissionError(13, "Permission denied", str(path))
        real(path, **options)

    monkeypatch.setattr(uninstall.Path, "unlink", refuse)
    with pytest.raises(RepositoryError, match=r"Permission denied; nothing was removed"):
        remove(installed)
    assert files(installed) == before
