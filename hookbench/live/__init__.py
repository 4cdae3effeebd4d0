"""Gates, transitions and a look at the queues, on brokers that somebody else runs."""
