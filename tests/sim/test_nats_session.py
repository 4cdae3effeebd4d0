"""What a client says to the simulated NATS, frame by frame."""

from hookbench.sim.nats.server import NatsServer
from hookbench.sim.simulate import simulate
from tests.sim.world import World


def test_a_subscription_that_is_said_twice_is_one():
    """nats-py says again what it subscribed to while it was away, and what it had buffered."""
    told = []

    async def main(loop):
        world = World()
        node = world.network.node("nats")
        node.start(NatsServer(loop, node))
        connection = await world.network.connect("client", "nats", timeout_s=1.0)
        connection.on_message(told.append)
        for frame in (b"SUB a 1", b"SUB a 1", b"SUB a 2", b"PUB a 1\r\nx", b"UNSUB 1"):
            connection.send(frame + b"\r\n")
        await world.clock.sleep(1.0)
        connection.send(b"PUB a 1\r\ny\r\n")
        await world.clock.sleep(1.0)

    simulate(main)
    messages = [item for item in told if item.startswith(b"MSG")]
    assert messages == [b"MSG a 1 1\r\nx\r\n", b"MSG a 2 1\r\nx\r\n", b"MSG a 2 1\r\ny\r\n"]
