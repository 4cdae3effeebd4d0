"""The bridge of the load tests in a process of its own, for gevent must not be in another's.

Reads lines: ``reference`` makes the calls over the bridge, ``yardstick`` what both loops cost
without it; each is answered by one line, how many calls came back. ``end`` ends it.
"""

import asyncio
import sys

import gevent
import uvloop


async def answer(number):
    """As short as a coroutine can be: what is measured is the way to it and back."""
    return number


def over_bridge(bridge, users, calls):
    """Users who each make calls, one after another."""
    came_back = []

    def user():
        came_back.extend([bridge.call(answer, number) for number in range(calls)])

    gevent.joinall([gevent.spawn(user) for _ in range(users)], raise_error=True)
    return came_back


def both_loops(loop, users, calls):
    """As many tasks on asyncio, and as many switches of as many greenlets on gevent."""
    came_back = []

    async def all_users():
        for number in range(calls):
            tasks = [loop.create_task(answer(number)) for _ in range(users)]
            came_back.extend(await asyncio.gather(*tasks))

    def user():
        for _ in range(calls):
            gevent.sleep(0)

    loop.run_until_complete(all_users())
    gevent.joinall([gevent.spawn(user) for _ in range(users)], raise_error=True)
    return came_back


def main(folder, users, calls):
    sys.path.insert(0, folder)
    from _bridge import Bridge  # noqa: PLC0415 - of the load tests, which are no package

    bridge = Bridge()
    loop = uvloop.new_event_loop()
    ways = {"reference": (over_bridge, bridge), "yardstick": (both_loops, loop)}
    for line in sys.stdin:
        word = line.strip()
        if word == "end":
            break
        function, argument = ways[word]
        sys.stdout.write(f"{len(function(argument, users, calls))}\n")
        sys.stdout.flush()
    ended = bridge.close()
    loop.close()
    sys.exit(0 if ended else 1)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
