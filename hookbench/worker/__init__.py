"""The worker: takes deliveries, runs handlers, acknowledges, and loses nothing when it stops."""
