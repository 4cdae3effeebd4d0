import os

import pytest

from hookbench.errors import SettingError
from hookbench.migration.phases import Phase, PhaseFile, check_redis_kind, parse_phase
from hookbench.queues.redis_kind import RedisKind, parse_redis_kind


@pytest.mark.parametrize("text", ["dual_write", "1", " Dual-Write ", "DUAL_WRITE"])
def test_a_phase_by_name_or_number(text):
    assert parse_phase(text) is Phase.DUAL_WRITE


@pytest.mark.parametrize("text", ["", "5", "-1", "dual", "nats"])
def test_an_unknown_phase_lists_the_known_ones(text):
    with pytest.raises(SettingError, match=r"redis_only \(0\), .*nats_only \(4\)"):
        parse_phase(text)


def test_a_phase_file_is_read_as_written_and_replaced_whole(tmp_path):
    file = PhaseFile(tmp_path / "phase.json")
    for index, phase in enumerate(Phase):
        file.write(index, phase)
        assert file.read() == (index, phase)
    assert [item.name for item in tmp_path.iterdir()] == ["phase.json"]


def test_a_phase_is_seen_although_the_clock_of_the_files_stood_still(tmp_path):
    path = tmp_path / "phase.json"
    file, watcher = PhaseFile(path), PhaseFile(path)
    file.write(0, Phase.DUAL_READ)
    later_ns = path.stat().st_mtime_ns + 3_600 * 1_000_000_000
    os.utime(path, ns=(later_ns, later_ns))
    assert watcher.read() == (0, Phase.DUAL_READ)
    file.write(1, Phase.NATS_ONLY)  # a name as long as the other one
    assert path.stat().st_mtime_ns > later_ns
    assert watcher.read() == (1, Phase.NATS_ONLY)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "phase.json"),
        ("{", "phase.json"),
        ('{"index": 0}', "phase"),
        ('{"index": 0, "phase": "later"}', "later"),
        ('{"index": "0", "phase": "dual_write"}', "index"),
        ('{"index": 0, "phase": "dual_write", "more": 1}', "more"),
    ],
)
def test_a_damaged_phase_file_is_named(tmp_path, content, message):
    path = tmp_path / "phase.json"
    path.write_text(content)
    with pytest.raises(SettingError, match=message):
        PhaseFile(path).read()


def test_a_missing_phase_file_is_named(tmp_path):
    with pytest.raises(SettingError, match=r"none\.json"):
        PhaseFile(tmp_path / "none.json").read()


def test_a_redis_stream_is_for_the_phase_that_has_redis_alone():
    for phase in Phase:
        check_redis_kind(RedisKind.LIST, phase)
        if phase is Phase.REDIS_ONLY:
            check_redis_kind(RedisKind.STREAM, phase)
            continue
        with pytest.raises(SettingError, match=f"in phase {phase.label}: only redis_only has one"):
            check_redis_kind(RedisKind.STREAM, phase)


def test_an_unknown_kind_of_queue_on_redis_lists_the_known_ones():
    assert [parse_redis_kind(text) for text in ("list", "stream")] == list(RedisKind)
    with pytest.raises(SettingError, match="Redis queue 'set': use list, stream"):
        parse_redis_kind("set")
