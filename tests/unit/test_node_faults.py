"""A power cut and a promotion on nodes that are none; time is virtual."""

import signal
import types

import pytest

from hookbench.brokers.roles import Role
from hookbench.errors import BrokerUnreachableError, SettingError
from hookbench.rehearsal.administration import RunAdministration
from tests.fake_brokers import FakeProcess, power_cut, promote
from tests.virtual import FixedClock


@pytest.fixture
def obedient(monkeypatch):
    """What the kernel says of a process that is none. No threads: virtual time waits for none."""

    async def at_once(call, *args, **options):
        return call(*args, **options)

    monkeypatch.setattr("hookbench.faults.process._stopped", lambda process: process.stopped)
    monkeypatch.setattr("asyncio.to_thread", at_once)


@pytest.mark.usefixtures("obedient")
async def test_a_power_cut_leaves_what_was_there_before(rehearse, servers, tmp_path):
    servers.nats_nodes = ["nats-1", "nats-2"]
    servers.has_data(tmp_path)
    blocks = [tmp_path / node / "jetstream" / "1.blk" for node in servers.nats_nodes]

    def write():
        """Between the copy, at 1.0, and the cut, at 2.0."""
        for block in blocks:
            block.write_text("acknowledged")
        (tmp_path / "nats-1" / "jetstream" / "2.blk").write_text("acknowledged")
        return list(servers.signals)

    (record,), before = await rehearse(power_cut(), look=write)
    assert record.problem is None
    assert before == [
        ("nats-1", "SIGSTOP"),
        ("nats-2", "SIGSTOP"),
        ("nats-1", "SIGCONT"),
        ("nats-2", "SIGCONT"),
    ]
    assert servers.signals[len(before) :] == [
        ("nats-1", "SIGKILL"),
        ("nats-2", "SIGKILL"),
        ("nats-1", "restart"),
        ("nats-2", "restart"),
    ]
    assert [block.read_text() for block in blocks] == ["before", "before"]
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["1.blk"] * 2
    assert record.noted["rolled back s"] == "1.0"
    assert record.noted["fsync calls in between"] == "not counted (count_syncs is off)"


@pytest.mark.usefixtures("obedient")
async def test_calls_that_cannot_be_counted_are_not_none(rehearse, servers, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda _name: None)
    servers.has_data(tmp_path)
    (record,), _seen = await rehearse(power_cut(count_syncs=True))
    assert record.problem is None
    assert record.noted["fsync calls in between"] == "not counted (there is no strace)"


@pytest.mark.usefixtures("obedient")
async def test_a_broker_is_let_go_on_when_it_cannot_be_copied(
    rehearse, servers, tmp_path, monkeypatch
):
    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copytree", full)
    servers.has_data(tmp_path)
    (record,), _seen = await rehearse(power_cut())
    assert "did not fire: power_cut nats: no copy of" in record.problem
    assert "No space left on device; make room" in record.problem
    assert servers.signals == [("nats", "SIGSTOP"), ("nats", "SIGCONT")]
    assert [path.name for path in tmp_path.iterdir()] == ["nats"]


@pytest.mark.usefixtures("obedient")
async def test_a_broker_that_is_down_already_has_no_power_to_lose(rehearse, servers, tmp_path):
    servers.has_data(tmp_path)
    (record,), _seen = await rehearse(
        power_cut(), look=lambda: servers.processes["nats"].signal(signal.SIGKILL)
    )
    assert record.problem == "it did not fire: no node of nats was running"


class FakeReplica:
    """A master that is 30 bytes ahead of its replica."""

    def __init__(self, log):
        self.roles = {"redis-1": Role.MASTER, "redis-2": Role.REPLICA}
        self.log = log
        self.obeys = True

    def told(self, node):
        if self.roles[node] is Role.MASTER:
            return [b"master", 130, []]
        return [b"slave", b"127.0.0.1", 1, b"connected", 100]

    def _node(self, role):
        (name,) = (name for name, is_now in self.roles.items() if is_now is role)
        return types.SimpleNamespace(name=name)

    async def master(self):
        return self._node(Role.MASTER)

    async def replica(self):
        return self._node(Role.REPLICA)

    async def promote(self):
        self.log.append("promote")
        if self.obeys:
            self.roles = {"redis-1": Role.REPLICA, "redis-2": Role.MASTER}

    async def pause_replication(self):
        self.log.append("pause")

    async def resume_replication(self):
        self.log.append("resume")

    async def rejoin(self, node):
        self.log.append(f"rejoin {node.name}")


@pytest.mark.parametrize("kill_master", [False, True])
async def test_a_promotion_and_the_return_of_the_old_master(rehearse, servers, kill_master):
    servers.group = FakeReplica(servers.signals)
    servers.processes["redis-1"] = FakeProcess("redis-1", servers.signals)
    (record,), seen = await rehearse(
        promote(pause_s=0.7, kill_master=kill_master), look=lambda: servers.signals
    )
    assert record.problem is None
    assert seen == ["pause"]
    killed = [("redis-1", "SIGKILL")] if kill_master else []
    assert servers.signals == ["pause", *killed, "promote", "rejoin redis-1"]
    assert record.noted == {
        "promoted": "redis-2 in place of redis-1",
        "not applied bytes": "30",
    }


async def test_a_promotion_without_effect_is_seen(rehearse, servers):
    servers.group = FakeReplica(servers.signals)
    servers.group.obeys = False
    (record,), _seen = await rehearse(promote())
    assert record.problem == "it did not fire: redis-2 is replica after its promotion"


async def test_a_pause_without_a_promotion_ends(rehearse, servers):
    servers.group = FakeReplica(servers.signals)

    async def nobody():
        raise BrokerUnreachableError("no Redis node is master")

    servers.group.master = nobody
    (record,), _seen = await rehearse(promote(pause_s=0.7))
    assert record.problem == "it did not fire: no Redis node is master"
    assert servers.signals == ["pause", "resume"]


async def test_a_request_says_of_each_node_why_it_got_no_answer(monkeypatch):
    asked = []

    async def silent(node, subject, body=None):
        asked.append((node.name, subject, body))
        if len(asked) < 2:
            raise BrokerUnreachableError(f"{node.name} is silent")
        return {"ok": True}

    monkeypatch.setattr("hookbench.brokers.nats_nodes.ask_node", silent)
    nodes = [types.SimpleNamespace(name=f"nats-{n}", running=n != 1) for n in (1, 2, 3)]
    stage = types.SimpleNamespace(nodes=lambda _broker: nodes)
    administration = RunAdministration(stage, clock=FixedClock())
    assert await administration.jetstream("STREAM.INFO.X", {"a": 1}) == {"ok": True}
    assert asked == [
        ("nats-2", "$JS.API.STREAM.INFO.X", {"a": 1}),
        ("nats-3", "$JS.API.STREAM.INFO.X", {"a": 1}),
    ]
    asked.clear()
    nodes.pop()
    with pytest.raises(BrokerUnreachableError, match="nats-1 is down; nats-2 is silent"):
        await administration.jetstream("STREAM.INFO.X")


async def test_a_promotion_needs_a_replica():
    stage = types.SimpleNamespace(redis=object())
    with pytest.raises(SettingError, match="no Redis of this run has a replica"):
        RunAdministration(stage, clock=FixedClock()).redis_replica()
