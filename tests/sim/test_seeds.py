"""Seeds that once found something find it again, and what once was wrong stays right."""

import hashlib

import msgspec
import pytest

from hookbench.ledger.model import Verdict
from hookbench.migration.phases import Design, Phase
from hookbench.sim.explore import try_seed
from hookbench.sim.schedule import draw_schedule
from hookbench.sim.trial import Scope
from tests.sim import seed_of_commit
from tests.sim.seed_of_commit import FIXED_SEED, commit_seed, seed_line
from tests.sim.seeds import kept_seeds

pytestmark = pytest.mark.usefixtures("quiet")
DRAWS = {
    1: "5afde67b09828dbc054d3919d21198b9bdd86f65b81592285d6b28d9500d46ee",
    2: "7f99a33fcfed540697b7710c63d57a4212c22f0f34c677f0b05146e1230bdaf9",
    3: "91db68b41066368daadf297c483827bf9766e5c499824ada6defe0552a4efe72",
}
"""Of the schedules below, by the version of what is drawn. A change here is a new version."""


def beginnings(keys, wanted):
    return [item for item in wanted if any(key.startswith(item) for key in keys)]


@pytest.mark.parametrize(
    "kept", kept_seeds(), ids=lambda kept: f"{kept.design}-{kept.phases}-{kept.seed}"
)
def test_a_kept_seed(kept, engine):
    entry = try_seed(kept.scope, kept.seed, "-", engine)
    assert entry.verdict is kept.verdict, (entry.failing, kept.found)
    assert beginnings(entry.causes, kept.shows) == list(kept.shows), kept.found
    assert beginnings(entry.causes, kept.never) == [], kept.found


def test_hardened_survives_the_seed_of_this_commit(engine):
    seed, _commit = commit_seed()
    entry = try_seed(Scope(design=Design.HARDENED, phases=tuple(Phase)), seed, "-", engine)
    assert entry.verdict is Verdict.VALID, f"{entry.failing}; {seed_line()}"
    assert entry.accepted > 100


def test_the_seed_of_a_commit_is_said_with_how_to_repeat_it():
    seed, commit = commit_seed()
    line = seed_line()
    assert line.endswith(f"hookbench sim --design hardened --seed {seed}")
    assert seed == (int(commit[:8], 16) if commit else FIXED_SEED)


def test_without_git_it_says_so_and_uses_a_fixed_seed(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert commit_seed(tmp_path) == (FIXED_SEED, None)
    monkeypatch.setattr(seed_of_commit, "commit_seed", lambda: (FIXED_SEED, None))
    assert f"simulated seed: {FIXED_SEED} (fixed, for there is no commit here)" in seed_line()


@pytest.mark.parametrize("version", DRAWS)
def test_the_draws_of_a_version_stay(version):
    """A seed of the documents or of the file must mean the same schedule for ever."""
    scopes = [Scope(design=Design.GUIDE, phases=tuple(Phase), schedule=version)]
    scopes += [Scope(design=Design.GUIDE, phases=(phase,), schedule=version) for phase in Phase]
    ends = (Phase.DUAL_READ, Phase.NATS_PRIMARY)
    scopes.append(Scope(design=Design.GUIDE, phases=ends, transition=1, schedule=version))
    drawn = [[draw_schedule(seed, scope.span) for seed in range(100)] for scope in scopes]
    data = msgspec.json.encode(drawn, order="deterministic")
    assert hashlib.sha256(data).hexdigest() == DRAWS[version]
