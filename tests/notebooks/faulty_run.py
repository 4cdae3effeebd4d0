"""A run by hand in which faults lose tasks, leave some stuck, repeat some, and hold others up.

The ledger is written by hand, the account made by the checkers and the tables from the ledger, as
of any run; the report of it is then held against the Parquet files.
"""

import uuid

from hookbench.ledger.events import Broker, Event
from hookbench.ledger.model import Place, Residue
from hookbench.migration.phases import Phase
from hookbench.results.check import check_run
from hookbench.results.store import encode_manifest
from tests.run_by_hand import MS, START, RunByHand, fault_at, resource_of

__all__ = ["make_faulty_run"]

PHASES = (Phase.NATS_PRIMARY, Phase.NATS_ONLY)
DUE_EVERY_NS = 20 * MS
TASKS = 99
PAUSE_NS = (1_000 * MS, 1_300 * MS)
FAULTS = [
    fault_at(0, "kill", "worker-0", 380 * MS, 410 * MS),
    fault_at(1, "wire", "producers-nats", 700 * MS, 705 * MS, name="reset producers-nats"),
    fault_at(2, "pause", "nats", *PAUSE_NS),
    fault_at(3, "kill", "worker-1", 1_800 * MS, None, fired=False),
]
DYING = {17: "acknowledged", 18: "stuck", 19: "redelivered", 16: "done, not acknowledged"}
"""Tasks that the worker that dies has in hand, by what becomes of them."""
AGAIN_NS = {19: 620 * MS, 16: 640 * MS}
"""When what it had in hand is delivered to another worker."""


def make_faulty_run(folder):
    """The folder of the run; two phases of a second, a task every 20 ms, four faults."""
    made = RunByHand(folder / "0007-abc1234", PHASES)
    for number in range(TASKS):
        _put(made, number)
        if number in DYING:
            _die_with(made, number)
        else:
            _do(made, number, "worker.3", _reached_ns(number))
    for number, time_ns in AGAIN_NS.items():
        _do(made, number, "worker.3", time_ns, attempt=2)
    residue = Residue(
        places={Place.STREAM: [_id(18)]},
        first_sequence=1,
        last_sequence=TASKS,
        delivered_sequence=TASKS,
        ack_floor_sequence=18,
        ack_pending=1,
    )
    run = made.store(crashed=["worker.2"], faults=FAULTS, residue=residue, resources=RESOURCES)
    checked = check_run(run.folder)
    (run.folder / "run.json").write_bytes(encode_manifest(checked))
    return run.folder


RESOURCES = [
    resource_of("redis", cpu_s=0.1, rss_max_bytes=10 << 20),
    resource_of("nats", cpu_s=0.4, rss_max_bytes=20 << 20, written_bytes=300_000),
    resource_of("worker-0", cpu_s=0.2, rss_max_bytes=60 << 20),
    resource_of("worker-1", cpu_s=0.5, rss_max_bytes=70 << 20),
    resource_of("producer-0", cpu_s=0.3, rss_max_bytes=65 << 20),
]


def _id(number):
    return uuid.UUID(int=(7 << 76) | (number + 1))


def _taken_ns(number):
    """When NATS takes a task: a moment after its put, or after the pause that it falls into."""
    due_ns = number * DUE_EVERY_NS
    goes_on_ns = PAUSE_NS[1] + 7 * MS
    if not PAUSE_NS[0] <= due_ns < goes_on_ns:
        return due_ns + 2 * MS
    return goes_on_ns + (due_ns - PAUSE_NS[0]) // 200  # one after the other, in their order


def _reached_ns(number):
    return _taken_ns(number) + (3 + number % 5) * MS


def _put(made, number):
    due_ns, taken_ns = number * DUE_EVERY_NS, _taken_ns(number)
    made.at("producer.1", due_ns, Event.PUT_INVOKED, _id(number), value=START + due_ns)
    made.at("producer.1", taken_ns, Event.PUT_OK, _id(number), broker=Broker.NATS, value=number + 1)
    made.at("producer.1", taken_ns + MS // 100, Event.ACCEPTED, _id(number))


def _receive(made, number, worker, time_ns, attempt=1):
    made.at(
        worker, time_ns, Event.RECEIVED, _id(number), broker=Broker.NATS, attempt=attempt,
        value=number + 1,
    )  # fmt: skip
    made.at(worker, time_ns + MS // 2, Event.STARTED, _id(number), broker=Broker.NATS)


def _do(made, number, worker, time_ns, *, attempt=1, acked=True):
    _receive(made, number, worker, time_ns, attempt)
    done_ns = time_ns + (4 + number % 3) * MS
    made.at(worker, done_ns, Event.DONE, _id(number), broker=Broker.NATS)
    if acked:
        made.at(worker, done_ns + MS, Event.ACK_SENT, _id(number), broker=Broker.NATS)


def _die_with(made, number):
    time_ns = _reached_ns(number)
    if DYING[number].startswith("done"):
        _do(made, number, "worker.2", time_ns, acked=False)
        return
    _receive(made, number, "worker.2", time_ns)
    if DYING[number] == "acknowledged":
        made.at("worker.2", time_ns + MS, Event.ACK_SENT, _id(number), broker=Broker.NATS)
