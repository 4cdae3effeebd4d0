"""A simulated Redis: its commands, scripts, persistence and replication, without a socket."""
