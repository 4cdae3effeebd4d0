"""What each kind of process may do on the brokers, written as their own access rules."""
