"""The git hook: a push is spooled in the hook, and handed to the brokers by a flush of its own."""
