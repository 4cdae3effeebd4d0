"""Connections as TCP has them, and what breaks them."""

import asyncio
import random

import pytest

from hookbench.sim.connection import Direction
from hookbench.sim.network import Delays, Network
from hookbench.sim.processes import PROCESS
from hookbench.sim.simulate import simulate
from hookbench.sim.wire_rules import WireAction, WireRule

MS = 1_000_000


class Echo:
    """A server that answers everything, and remembers who came and went."""

    def __init__(self):
        self.got = []
        self.gone = 0

    def accept(self, connection):
        return EchoSession(self, connection)


class EchoSession:
    def __init__(self, echo, connection):
        self._echo = echo
        self._connection = connection

    def on_message(self, message):
        self._echo.got.append(message)
        self._connection.answer(message)

    def on_closed(self):
        self._echo.gone += 1


class Client:
    def __init__(self, connection):
        self.connection = connection
        self.got = []
        self.lost = []
        connection.on_message(self.got.append)
        connection.on_lost = self.lost.append


def in_network(scene, seed=7):
    """Run a scene with one client of one echo server; what it returns."""

    async def main(loop):
        network = Network(loop, random.Random(seed), delays=Delays(mean_rest_ns=5 * MS))
        echo, node = Echo(), network.node("echo")
        node.start(echo)
        client = Client(await network.connect("client", "echo", timeout_s=1))
        return await scene(network, node, echo, client)

    return simulate(main)


def test_within_a_connection_nothing_overtakes_and_between_two_it_does():
    async def scene(network, _node, echo, client):
        other = Client(await network.connect("client", "echo", timeout_s=1))
        for number in range(50):
            client.connection.send(("a", number))
            other.connection.send(("b", number))
        await asyncio.sleep(1)
        assert [number for _who, number in client.got] == list(range(50))
        assert [number for _who, number in other.got] == list(range(50))
        return [who for who, _number in echo.got]

    order = in_network(scene)
    assert order != ["a", "b"] * 50
    assert order == in_network(scene)
    assert order != in_network(scene, seed=8)


def test_a_cut_holds_and_a_healed_link_delivers_in_order():
    async def scene(network, _node, echo, client):
        link = network.link("client", "echo")
        network.cut(link, Direction.TO_CLIENT)
        for number in range(5):
            client.connection.send(number)
        await asyncio.sleep(10)
        assert (echo.got, client.got) == ([0, 1, 2, 3, 4], [])
        network.cut(link)
        client.connection.send(5)
        with pytest.raises(TimeoutError):
            await network.connect("client", "echo", timeout_s=1)
        await asyncio.sleep(10)
        assert len(echo.got) == 5
        network.heal(link)
        await asyncio.sleep(1)
        assert client.got == [0, 1, 2, 3, 4, 5]
        assert not client.lost

    in_network(scene)


@pytest.mark.parametrize(
    ("action", "way", "got", "answered"),
    [
        (WireAction.LOSE, Direction.TO_SERVER, [1, 3], [1, 3]),
        (WireAction.LOSE, Direction.TO_CLIENT, [1, 2, 3], [1, 3]),
        (WireAction.REPEAT, Direction.TO_SERVER, [1, 2, 2, 3], [1, 2, 2, 3]),
        (WireAction.HOLD, Direction.TO_SERVER, [1, 2, 3], [1, 2, 3]),
        (WireAction.RESET, Direction.TO_CLIENT, [1, 2], [1]),
    ],
)
def test_a_rule_does_something_to_one_message(action, way, got, answered):
    async def scene(network, _node, echo, client):
        rule = WireRule(action, way, matches=lambda message: message == 2, hold_ns=500 * MS)
        network.link("client", "echo").rules.append(rule)
        for number in (1, 2, 3):
            client.connection.send(number)
            await asyncio.sleep(0.1)
            if not client.connection.is_open:
                break
        if action is WireAction.HOLD:
            assert client.got == [1]
        await asyncio.sleep(1)
        assert (echo.got, client.got) == (got, answered)
        assert len(client.lost) == (action is WireAction.RESET)
        assert rule.hits == 1

    in_network(scene)


def test_a_killed_node_tells_and_one_without_power_does_not():
    async def scene(network, node, echo, client):
        quiet = Client(await network.connect("client", "echo", timeout_s=1))
        node.kill()
        await asyncio.sleep(1)
        assert isinstance(client.lost[0], ConnectionResetError)
        assert quiet.lost
        with pytest.raises(ConnectionRefusedError):
            await network.connect("client", "echo", timeout_s=1)
        node.start(echo)
        half_open = Client(await network.connect("client", "echo", timeout_s=1))
        node.lose_power()
        half_open.connection.send(1)
        await asyncio.sleep(1)
        assert not half_open.lost
        node.start(echo)
        half_open.connection.send(2)
        await asyncio.sleep(1)
        assert half_open.lost
        assert echo.got == []
        with pytest.raises(BrokenPipeError):
            half_open.connection.send(3)

    in_network(scene)


def test_a_stopped_node_takes_connections_and_answers_when_it_goes_on():
    async def scene(network, node, echo, client):
        node.stop()
        client.connection.send(1)
        late = Client(await network.connect("client", "echo", timeout_s=1))
        late.connection.send(2)
        client.connection.close()
        await asyncio.sleep(60)
        assert (echo.got, echo.gone) == ([], 0)
        node.resume()
        await asyncio.sleep(1)
        assert (sorted(echo.got), late.got, client.got, echo.gone) == ([1, 2], [2], [], 1)

    in_network(scene)


def test_the_kernel_closes_what_a_killed_process_had_open():
    async def scene(network, _node, echo, _client):
        async def main():
            connection = await network.connect("worker", "echo", timeout_s=1)
            assert PROCESS.get().name == "worker"
            connection.send("last word")
            await asyncio.sleep(100)

        process, _task = network.loop.processes.start("worker", main, network.loop.create_task)
        await asyncio.sleep(1)
        network.loop.processes.kill(process)
        await asyncio.sleep(1)
        assert (echo.got, echo.gone) == (["last word"], 1)

    in_network(scene)


@pytest.mark.parametrize(("tick_ns", "times"), [(0, 4), (100 * MS, 1)])
def test_what_arrives_within_a_tick_is_handed_over_at_its_end_in_order(tick_ns, times):
    async def main(loop):
        network = Network(
            loop, random.Random(7), delays=Delays(mean_rest_ns=5 * MS, tick_ns=tick_ns)
        )
        network.node("echo").start(Echo())
        connection = await network.connect("client", "echo", timeout_s=1)
        arrived = []
        connection.on_message(lambda message: arrived.append((loop.now_ns, message)))
        for number in range(4):
            connection.send(number)
        await asyncio.sleep(1)
        return arrived

    arrived = simulate(main)
    assert [message for _now_ns, message in arrived] == [0, 1, 2, 3]
    assert len({now_ns for now_ns, _message in arrived}) == times
    assert not tick_ns or arrived[0][0] % tick_ns == 0
