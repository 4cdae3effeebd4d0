"""What the load tests tell Locust of publishes, in a process of its own: Locust patches it.

``python -m tests.integration.locust_rows_child FOLDER`` prints one JSON object: what each scenario
below found. Brokers are not needed, for the outcomes are given.
"""

import asyncio
import json
import sys

import gevent
from locust.env import Environment

from hookbench.errors import SendError

IDS = ("01890000-0000-7000-8000-000000000001", "01890000-0000-7000-8000-000000000002")
LATENCIES_NS = (412_345, 412_399, 9_870_000, 54_321_000, 1_234_000_000)
ROW = "redis_list"


class Given:
    """A producer whose bursts come to given outcomes when they are let go."""

    def __init__(self, burst):
        self.burst = burst
        self.free = asyncio.Event()
        self.free.set()

    async def publish_burst(self, _count):
        await self.free.wait()
        return self.burst

    async def let_go(self):
        self.free.set()

    async def close(self):
        return None


class Bench:
    """A Locust with a publisher on a given producer."""

    def __init__(self, publisher_type, burst):
        self.environment = Environment()
        self.environment.create_local_runner()
        self.publisher = publisher_type(self.environment)
        self.producer = self.publisher._producer = Given(burst)
        self.publisher._name = ROW
        self.heard = []

    def listen(self, request_type, name, response_time, response_length, exception, **_more):
        self.heard.append([request_type, name, response_time, response_length, str(exception)])

    def publish(self):
        self.publisher.publish_burst(len(self.producer.burst.outcomes))

    def rows(self):
        """All that Locust counts, but for when it was."""
        stats = self.environment.stats
        entries = [stats.total, *stats.entries.values()]
        found = []
        for entry in entries:
            row = entry.serialize()
            for name in ("start_time", "last_request_timestamp"):
                assert row.pop(name) > 0
            for name in ("num_reqs_per_sec", "num_fail_per_sec"):
                row[name] = sum(row[name].values())
            row["total_response_time"] = round(row["total_response_time"], 6)
            row["response_times"] = sorted(row["response_times"].items())
            found.append(row)
        errors = [[str(item.error), item.occurrences] for item in stats.errors.values()]
        return {"rows": found, "errors": sorted(errors)}

    def end(self):
        self.publisher.end()


def mixed(producer_module):
    """Outcomes of five tasks that went well and of two that did not, for the same reason."""
    refused = [SendError(f"task {task_id} was refused", outcome="fail") for task_id in IDS]
    good = [producer_module.Outcome(latency, 256, None) for latency in LATENCIES_NS]
    bad = [producer_module.Outcome(7_000_000, 100, error) for error in refused]
    return producer_module.Burst([*good, *bad], None)


def ways(bench_of):
    """The same bursts, told together, and each outcome to a listener beside Locust's own."""
    found = {}
    for name in ("together", "listened"):
        bench = bench_of()
        if name == "listened":
            bench.environment.events.request.add_listener(bench.listen)
        bench.publish()
        bench.publish()
        found[name] = {**bench.rows(), "heard": bench.heard}
        bench.end()
    return found


def comes_and_goes(bench_of):
    """A listener for the second of three bursts; fires of the event are counted beside it."""
    bench = bench_of()
    hook = bench.environment.events.request
    bench.publish()
    hook.add_listener(bench.listen)
    bench.publish()
    hook.remove_listener(bench.listen)
    bench.publish()
    found = {**bench.rows(), "heard": bench.heard}
    bench.end()
    return found


def nobody(bench_of):
    """Locust's own listener is taken away: nothing is counted, as with single events."""
    bench = bench_of()
    hook = bench.environment.events.request
    for listener in hook._handlers.copy():
        hook.remove_listener(listener)
    bench.publish()
    total = bench.environment.stats.total.num_requests
    bench.end()
    return total


def killed(bench_of):
    """A user who is killed while its burst is under way."""
    bench = bench_of()
    bench.producer.free.clear()
    user = gevent.spawn(bench.publish)
    gevent.sleep(0.01)
    user.kill()
    before = bench.environment.stats.total.num_requests
    bench.publisher._bridge.call(bench.producer.let_go)
    bench.end()
    return {"before": before, **bench.rows()}


def defect(bench_of, producer_module):
    """A task without an outcome, beside those that have one."""
    bench = bench_of()
    burst = bench.producer.burst
    bench.producer.burst = producer_module.Burst(burst.outcomes, ValueError("a defect"))
    raised = ""
    try:
        bench.publish()
    except ValueError as error:
        raised = str(error)
    found = {"raised": raised, **bench.rows()}
    bench.end()
    return found


def main(folder):
    """Run all of them."""
    sys.path.insert(0, folder)
    import _figures  # noqa: PLC0415 - of the load tests, which are no package
    import _producer  # noqa: PLC0415
    import _publisher  # noqa: PLC0415
    import locust.stats  # noqa: PLC0415

    locust.stats.bucket_response_time = _figures.bucket_ms

    def bench_of():
        return Bench(_publisher.Publisher, mixed(_producer))

    found = {
        "ways": ways(bench_of),
        "comes_and_goes": comes_and_goes(bench_of),
        "nobody": nobody(bench_of),
        "killed": killed(bench_of),
        "defect": defect(bench_of, _producer),
    }
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
