import pytest

from hookbench.errors import SettingError
from hookbench.migration.phases import Design, Phase
from hookbench.scenarios.resolved import scenario_toml
from hookbench.scenarios.schema import (
    find_scenario,
    load_scenario,
    shipped_scenarios,
    to_settings,
)

MINIMAL = 'name = "mine"\ndescription = "d"\n[timeline]\nphases = ["redis_only"]\n'


@pytest.fixture
def write(tmp_path):
    def write_text(text):
        path = tmp_path / "mine.toml"
        path.write_text(text)
        return path

    return write_text


@pytest.mark.parametrize("path", shipped_scenarios(), ids=lambda path: path.stem)
def test_what_ships_can_be_run(path, tmp_path):
    scenario = load_scenario(path)
    assert scenario.name == path.stem
    to_settings(scenario, out=tmp_path).check()


def test_the_promised_ones_ship():
    names = {path.stem for path in shipped_scenarios()}
    assert {"migration", "quick", "replicated", "redis_cluster", "leader_killed"} <= names
    assert "redis_failover" in names
    assert {f"phase_{phase.label}" for phase in Phase} <= names
    assert {f"rollback_from_{phase.label}" for phase in list(Phase)[1:]} <= names
    migration = load_scenario(find_scenario("migration"))
    settings = to_settings(migration, out=find_scenario("migration").parent)
    assert [int(phase) for phase in settings.phases] == [0, 1, 2, 0, 1, 2, 3, 4]


def test_values_are_changed_from_outside(write, tmp_path):
    scenario = load_scenario(
        write(MINIMAL),
        [
            "producers.rate_per_s=50",
            "design=hardened",
            'timeline.phases=["dual_write", "dual_read"]',
            "brokers.durability=fsync",
        ],
    )
    settings = to_settings(scenario, out=tmp_path, repeat=2)
    assert settings.rate_per_s == 50
    assert settings.design is Design.HARDENED
    assert settings.phases == (Phase.DUAL_WRITE, Phase.DUAL_READ)
    assert settings.durability == "fsync"
    assert settings.seed == scenario.seed + 2
    assert settings.scenario == "mine"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "name"),
        ("nonsense", "mine.toml"),
        (MINIMAL + "[worker]\nprocesses = 3\n", "'worker'.*did you mean 'workers'"),
        (MINIMAL + "[workers]\nproceses = 3\n", r"\[workers\].*did you mean 'processes'"),
        (MINIMAL + '[workers]\nprocesses = "3"\n', "processes"),
        (MINIMAL + '[brokers]\ndurability = "tape"\n', "tape"),
        (MINIMAL + '[brokers]\ntopology = "galaxy"\n', "galaxy"),
        (MINIMAL.replace("redis_only", "later"), "later"),
        ("repeats = 0\n" + MINIMAL, "repeats 0"),
        ("workers = 3\n" + MINIMAL, "workers"),
    ],
)
def test_what_is_wrong_is_named(write, text, message):
    with pytest.raises(SettingError, match=message):
        load_scenario(write(text))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("rate", "key=value"),
        ("=3", "key=value"),
        ("workers.=3", "key=value"),
        ("name.more=3", "no section"),
        ("workers.rate_per_s=3", "unknown key 'rate_per_s' .did you mean 'producers.rate_per_s'"),
        ("rate_per_sec=3", "unknown key 'rate_per_sec' .did you mean 'producers.rate_per_s'"),
        ("phase_second=3", "unknown key 'phase_second' .did you mean 'timeline.phase_seconds'"),
        ("workers.desing=3", "unknown key 'desing' .did you mean 'design'"),
        ("zzz=3", "unknown key 'zzz'; known are name"),
        ("workers.processes=many", "mine.toml: workers.processes 'many': Expected `int`"),
        ("timeline.phases=redis_only", "timeline.phases 'redis_only': Expected `array`"),
        ('timeline.phases=["redis_only", 3]', r"Expected `str`, got `int` - at `\$\.timeline"),
        ("design=guid", "design 'guid' .did you mean 'guide'.*: use one of guide, hardened"),
        ("design=3", "design 3: Expected `str`"),
        ("brokers.durability=fsyn", "brokers.durability 'fsyn' .did you mean 'fsync'"),
    ],
)
def test_a_change_that_cannot_be_made_is_named(write, change, message):
    with pytest.raises(SettingError, match=message):
        load_scenario(write(MINIMAL), [change])


@pytest.mark.parametrize(("name", "nearest"), [("migraton", "migration"), ("quik", "quick")])
def test_an_unknown_scenario_names_the_nearest(name, nearest):
    with pytest.raises(SettingError, match=f"did you mean '{nearest}'"):
        find_scenario(name)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SettingError, match=r"none\.toml"):
        load_scenario(tmp_path / "none.toml")


def test_a_topology_is_taken_and_an_unknown_one_is_named(write, tmp_path):
    path = write(MINIMAL + '[brokers]\ntopology = "redis_replica"\n')
    assert to_settings(load_scenario(path), out=tmp_path).topology == "redis_replica"
    with pytest.raises(SettingError, match="did you mean replicated") as raised:
        load_scenario(path, ["brokers.topology=replicate"])
    assert str(raised.value).startswith(f"scenario {path}: unknown topology 'replicate'")


def test_values_out_of_range_are_named(write, tmp_path):
    scenario = load_scenario(write(MINIMAL), ["producers.arrivals=random"])
    with pytest.raises(SettingError, match="arrivals 'random'"):
        to_settings(scenario, out=tmp_path).check()


@pytest.mark.parametrize("path", shipped_scenarios(), ids=lambda path: path.stem)
def test_the_resolved_scenario_of_a_run_carries_it_out_again(path, tmp_path):
    changes = ["producers.rate_per_s=123.5", "tasks.plain=0.1", "bounds.max_inversions=7"]
    settings = to_settings(load_scenario(path, changes), out=tmp_path, repeat=3)
    resolved = tmp_path / "scenario.toml"
    resolved.write_text(scenario_toml(settings))
    assert to_settings(load_scenario(resolved), out=tmp_path) == settings


def test_what_has_no_value_is_left_out_of_a_resolved_scenario(tmp_path):
    settings = to_settings(load_scenario(find_scenario("quick")), out=tmp_path)
    text = scenario_toml(settings)
    assert "max_inversions" not in text
    assert "max_attempts = 3" in text
