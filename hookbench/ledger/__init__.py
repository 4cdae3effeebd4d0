"""The ledger: what happened to every task of a run, written so that SIGKILL loses nothing."""
