"""A simulated NATS server with JetStream, and nats-py's own client over the simulated network."""
