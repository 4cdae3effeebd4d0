"""Doubles of the brokers' administration, for faults: settings kept as the servers keep them."""

import asyncio
import copy
import signal

from hookbench.clock import sleep_until
from hookbench.errors import BrokerUnreachableError
from hookbench.faults.memory import FaultMemory
from hookbench.faults.registry import parse_fault
from hookbench.faults.schedule import FaultSchedule
from hookbench.task import Names
from tests.fakes import MemoryRecorder
from tests.virtual import VirtualClock

S = 1_000_000_000
NAMES = Names()
STREAM = f"STREAM.INFO.{NAMES.stream}"
CONSUMER = f"{NAMES.stream}.{NAMES.consumer}"


def missing(code):
    return {"error": {"code": 404, "err_code": code, "description": "not found"}}


def refused(code, description):
    return {"error": {"code": 400, "err_code": code, "description": description}}


class FakeServers:
    """A JetStream and Redis nodes as far as faults of settings need them."""

    names = NAMES

    def __init__(self):
        self.redis_nodes = ["redis"]
        self.config = {}
        self.memory = {"used_memory": 1000, "evicted_keys": 0}
        self.stream = {
            "config": {
                "name": NAMES.stream,
                "max_bytes": -1,
                "max_msgs": -1,
                "max_age": 604_800 * S,
                "duplicate_window": 120 * S,
                "unknown_to_clients": True,
            },
            "state": {"messages": 500},
            "cluster": {"leader": "n1"},
        }
        self.consumer = {
            "config": {"ack_wait": 30 * S, "max_deliver": 3, "max_ack_pending": 100},
            "created": "1",
            "delivered": {"stream_seq": 42},
            "cluster": {"leader": "n1"},
        }
        self.created = 1
        self.comes_back = None
        self.deaf = False
        self.unreachable = 0
        self.next_leader = "n2"
        self.steps_down = self.wins_again = 0
        self.requests = []
        self.signals = []
        self.nats_nodes = ["nats"]
        self.processes = {}
        self.folder = None
        self.group = None

    def nodes(self, broker):
        return self.redis_nodes if broker == "redis" else self.nats_nodes

    def data_folder(self, node):
        return self.folder / node

    def redis_replica(self):
        return self.group

    def has_data(self, folder):
        """Nodes with processes, and data that tells their time."""
        self.folder = folder
        for node in self.nats_nodes:
            (folder / node / "jetstream").mkdir(parents=True)
            (folder / node / "jetstream" / "1.blk").write_text("before")
            self.processes[node] = FakeProcess(node, self.signals)

    def settings(self, node):
        return self.config.setdefault(node, {"maxmemory": "0", "maxmemory-policy": "noeviction"})

    async def redis(self, node, *words):
        self._reach()
        if words[0] == "ROLE":
            return self.group.told(node)
        if words[0] == "INFO":
            return self.memory
        if words[1] == "GET":
            return [words[2].encode(), self.settings(node)[words[2]].encode()]
        if not self.deaf:
            self.settings(node)[words[2]] = words[3]
        self.requests.append((node, *words[1:]))
        return b"OK"

    def _reach(self):
        if self.unreachable:
            self.unreachable -= 1
            raise BrokerUnreachableError("down")

    async def jetstream(self, request, body=None):
        self._reach()
        if request.startswith("STREAM.MSG.GET."):
            return missing(10059)  # the workers have not agreed on any epoch
        self.requests.append(request)
        verb = request.removesuffix(f".{CONSUMER}").removesuffix(f".{NAMES.stream}")
        return copy.deepcopy(getattr(self, verb.replace(".", "_").lower())(body))

    def stream_info(self, _body):
        return self.stream or missing(10059)

    def stream_update(self, body):
        if not self.deaf:
            self.stream["config"] = body
        return {}

    def consumer_info(self, _body):
        if self.comes_back is not None:
            self.consumer, self.comes_back = self.comes_back, None
        return self.consumer or missing(10014)

    def consumer_delete(self, _body):
        if not self.deaf:
            self.consumer = None
        return {"success": True}

    def consumer_durable_create(self, body):
        assert body["stream_name"] == NAMES.stream
        if body["action"] == "update":
            if self.consumer is None:
                return refused(10149, "consumer does not exist")
            if not self.deaf:
                self.consumer["config"] = body["config"]
            return {}
        other = self.consumer is not None and self.consumer["config"] != body["config"]
        if other and not self.deaf:
            return refused(10148, "consumer already exists")
        if self.consumer is None:
            self.created += 1
            self.consumer = {
                "config": body["config"],
                "created": str(self.created),
                "delivered": {"stream_seq": 0},
            }
        return {}

    def stream_leader_stepdown(self, _body):
        self.steps_down += 1
        if self.steps_down > self.wins_again:
            self.stream["cluster"] = {"leader": self.next_leader}
        return {"success": True}

    def consumer_leader_stepdown(self, _body):
        self.consumer["cluster"] = {"leader": self.next_leader}
        return {"success": True}


class FakeProcess:
    """A server that obeys signals at once."""

    replaced = False
    pid = 4711

    def __init__(self, name, log):
        self.name = name
        self.log = log
        self.exit_code = None
        self.stopped = False

    def signal(self, number):
        self.log.append((self.name, signal.Signals(number).name))
        self.stopped = number == signal.SIGSTOP
        if number == signal.SIGKILL:
            self.exit_code = -signal.SIGKILL

    def restart(self):
        self.log.append((self.name, "restart"))
        self.exit_code = None


class Targets:
    def __init__(self, servers):
        self.clock = VirtualClock()
        self.memory = FaultMemory()
        self.administration = servers

    async def resolve(self, target):
        return target

    def process(self, name):
        return self.administration.processes[name]


async def rehearse(servers, *tables, look=lambda: None, at_s=1.5):
    """Carries faults out; the records, and what ``look`` sees at its second."""
    faults = tuple(parse_fault({"at_s": 1.0, **table}, "faults") for table in tables)
    targets = Targets(servers)
    schedule = FaultSchedule(faults, targets, MemoryRecorder())
    start_ns = targets.clock.now_ns
    running = asyncio.ensure_future(schedule.run(start_ns))
    await sleep_until(start_ns + int(at_s * S), targets.clock)
    seen = copy.deepcopy(look())
    await running
    await schedule.heal()
    return schedule.records, seen


def power_cut(**changes):
    more = {"at_s": 2.0, "for_s": 0.5, "rollback_s": 1.0, "count_syncs": False}
    return {"kind": "power_cut", "target": "nats", **more, **changes}


def promote(**changes):
    return {"kind": "promote", "target": "redis", "at_s": 2.0, "for_s": 0.5, **changes}


def maxmemory(**changes):
    return {"kind": "maxmemory", "target": "redis", "for_s": 1.0, **changes}


def nats(kind, **changes):
    for_s = {} if kind in ("recreate_consumer", "step_down") else {"for_s": 1.0}
    return {"kind": kind, "target": "nats", **for_s, **changes}
