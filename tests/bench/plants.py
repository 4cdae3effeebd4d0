"""What a comparison has to find, planted into a copy of the tree."""

import datetime as dt
import time
import uuid

from hookbench.task import HookTask, decode_task, encode_task

__all__ = ["plant_round_trip", "slow_codec"]

_REPEATS = 200
_CALLS = 200
_SPINS = 200
_TASK = HookTask(
    id=uuid.UUID("0192f3a0-0000-7000-8000-000000000000"),
    repo_id="synthetic/repo-7",
    task_type="sync",
    payload={"ref": "refs/heads/main", "before": "0" * 40, "after": "5" * 40, "pusher": "ada"},
    created_at=dt.datetime(2025, 1, 1, tzinfo=dt.UTC),
)


def plant(tree, name, old, new):
    """Replace the one place in a file of the tree.

    Raises:
        RuntimeError: it is not there exactly once: the plant has to follow the code.
    """
    path = tree.folder / name
    text = path.read_text()
    if text.count(old) != 1:
        raise RuntimeError(f"{name}: {old!r} is there {text.count(old)} times, not once")
    path.write_text(text.replace(old, new))


def slow_codec(tree, share):
    """Have encode and decode of this tree take longer by about a share of their time."""
    encode_ns = _call_ns(lambda: encode_task(_TASK))
    data = encode_task(_TASK)
    decode_ns = _call_ns(lambda: decode_task(data))
    encode_spins, decode_spins = (_spins(share * ns) for ns in (encode_ns, decode_ns))
    plant(
        tree, "hookbench/task.py", "    try:\n        data = _encoder.encode(task)\n",
        f"    for _ in {_tuple(encode_spins)}:\n        pass\n"
        "    try:\n        data = _encoder.encode(task)\n",
    )  # fmt: skip
    plant(
        tree, "hookbench/task.py", "    try:\n        task = _decoder.decode(data)\n",
        f"    for _ in {_tuple(decode_spins)}:\n        pass\n"
        "    try:\n        task = _decoder.decode(data)\n",
    )  # fmt: skip


def plant_round_trip(tree):
    """Have the guide's queue ask Redis something before each acknowledgement."""
    old = "            return await self._client.lrem(self._work, self._lrem_count, payload)\n"
    new = "            await self._client.llen(self._work)\n"
    plant(tree, "hookbench/queues/redis_list.py", old, new + old)


def _tuple(count):
    """A constant: a loop over it costs the same each time."""
    return f"({'0, ' * count})"


def _call_ns(function):
    """Of one call, the least of many repeats, less what the loop around it costs."""
    return _least_ns(function) - _least_ns(lambda: None)


def _least_ns(function):
    found = []
    for _ in range(_REPEATS):
        began = time.perf_counter_ns()
        for _ in range(_CALLS):
            function()
        found.append((time.perf_counter_ns() - began) / _CALLS)
    return min(found)


def _spins(wanted_ns):
    """So many turns of an empty loop take as long, with what the loop itself takes."""

    def spin(turns):
        for _ in turns:
            pass

    without, turns = (), (0,) * _SPINS
    loop_ns = _call_ns(lambda: spin(without)) - _call_ns(lambda: None)
    each_ns = (_call_ns(lambda: spin(turns)) - loop_ns) / _SPINS
    # A call of its own costs more than a loop in the place of the plant: that is taken off again.
    call_ns = _call_ns(lambda: _nothing(without))
    return max(1, round((wanted_ns - max(0.0, loop_ns - call_ns)) / each_ns))


def _nothing(_turns):
    """A call that does nothing."""
